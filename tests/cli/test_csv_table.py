"""Cells of a CSV file: numbers, shapes, and positions of faults."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.cli.csv_table import listing, parse_number, quote, read_table
from jaxcvx.errors import FileFormatError, InvalidInputError


@pytest.mark.parametrize(("text", "value"), [("1.5", 1.5), ("-3e2", -300.0), ("1_000", None), ("x", None)])
def test_numbers(text, value):
    assert parse_number(text) == value


def test_long_texts_and_listings_are_cut():
    assert len(quote("a" * 500)) < 100
    assert listing(["a", "b"]) == "columns: 'a', 'b'"
    assert listing([str(i) for i in range(12)]).endswith("and 2 more")


def test_columns_and_places(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,x\n"2\n",y\n3,z\n')
    table = read_table(path)
    assert table.header == ["a", "b"] and list(table.lines) == [2, 3, 5]
    np.testing.assert_array_equal(table.numbers("a"), [1, 2, 3])
    assert table.is_numeric("a") and not table.is_numeric("b")
    assert table.place(2, "b") == "t.csv, data row 3 (line 5), column 'b'"
    with pytest.raises(InvalidInputError, match="data row 1 .line 2., column 'b': 'x' is not a number"):
        table.numbers("b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a,b\n", "no data row"),
        (b"a,a\n1,2\n", "more than once"),
        (b"a,b\n1\n", "line 2: 1 fields, expected 2"),
        (b"a;b\n1;2\n", "separated by ';'"),
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
