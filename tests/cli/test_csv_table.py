"""Cells of a CSV file: numbers, shapes, and positions of faults."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.cli.csv_table import listing, quote, read_table
from jaxcvx.errors import FileFormatError


def test_long_texts_and_listings_are_cut():
    assert len(quote("a" * 500)) < 100
    assert listing(["a", "b"]) == "columns: 'a', 'b'"
    assert listing([str(i) for i in range(12)]).endswith("and 2 more")


def test_columns_and_places(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,x\n"2\n",y\n3,z\n')
    table = read_table(path)
    assert list(table.cells) == ["a", "b"] and list(table.lines) == [2, 3, 5]
    assert table.cells["a"].tolist() == ["1", "2", "3"]
    assert table.place(2, "b") == "t.csv, data row 3 (line 5), column 'b'"
    assert table.select(np.array([False, True, True])).lines == [3, 5]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a,b\n", "no data row"),
        (b"a,a\n1,2\n", "more than once"),
        (b"a,b\n1\n", "line 2: 1 fields, expected 2"),
        (b"a\n\0\n", "NUL"),
        (b"a\n\xff\n", "not UTF-8"),
        (b'a\n"1\n', "record that begins on line 2"),
    ],
)
def test_files_that_are_not_tables_are_refused(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=words):
        read_table(path)
