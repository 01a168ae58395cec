"""The tables of the documentation are those of the records."""

from __future__ import annotations

import pytest

from benchmarks import document


@pytest.mark.parametrize("page", document.PAGES, ids=lambda page: page.name)
def test_pages_do_not_contradict_the_records(page):
    text = page.read_text()
    assert document.renewed(text) == text, "run: python -m benchmarks.document"


def test_a_wrong_number_is_seen():
    page = document.PAGES[1].read_text()
    assert "<!-- record: proof -->" in page and "<!-- record: path -->" in page
    start = page.index("<!-- record: proof -->")
    digit = next(k for k in range(page.index(" %", start) - 1, start, -1) if page[k].isdigit())
    wrong = page[:digit] + str((int(page[digit]) + 1) % 10) + page[digit + 1 :]
    assert document.renewed(wrong) == page != wrong


def test_missed_aims_are_bold():
    row = {"table": "a_b", "size": [1, 2, 3], "fraction": 0.3, "gap": 0.01, "aim": 0.02, "seconds": 1.0, "nodes": 4}
    text = document.proof({"rows": [row, row | {"gap": 0.03}]})
    assert text.splitlines()[2] == "| a b (1, 2, 3) | 0.3 | 1.000 % | 2 % | 1.0 | 4 |"
    assert "**3.000 %**" in text.splitlines()[3]
