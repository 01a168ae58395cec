"""Cells of a CSV file: numbers, shapes, and positions of faults."""

from __future__ import annotations

import bz2
import gzip
import lzma

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


PLAIN = b"a,b,goal\n" + b"".join(b"%d,%d.5,%d\n" % (i * i % 17, i * i % 13, i % 3) for i in range(12))
BODY = PLAIN[9:]
QUOTED = b"\n".join(b"'" + line.replace(b",", b"','") + b"'" for line in PLAIN.splitlines())


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "gzip": gzip.compress(PLAIN, mtime=0),
        "bzip2": bz2.compress(PLAIN),
        "xz": lzma.compress(PLAIN),
        "UTF-16 of Excel": PLAIN.decode().encode("utf-16"),
        "UTF-16 big-endian, tabs": b"\xfe\xff" + PLAIN.decode().replace(",", "\t").encode("utf-16-be"),
        "semicolons": PLAIN.replace(b",", b";"),
        "pipes": PLAIN.replace(b",", b"|"),
        "pipes among blanks": PLAIN.replace(b",", b" | "),
        "blanks": PLAIN.replace(b",", b" "),
        "many blanks": b"".join(b"  " + line.replace(b",", b"    ") + b"  \n" for line in PLAIN.splitlines()),
        "sep=;": b"sep=;\n" + PLAIN.replace(b",", b";"),
        "sep in quotes": b'"sep=|"\r\n' + PLAIN.replace(b",", b"|"),
        "a title": b"Report of 2024\n\n" + PLAIN,
        "a title of Excel": b"Report,,\n,,\n" + PLAIN,
        "comments": b"# made by x, y\n# in 2024\n" + PLAIN,
        "blank lines first": b"\n\n" + PLAIN,
        "commas at the ends": PLAIN.replace(b"\n", b",\n"),
        "commas at the ends of rows": b"a,b,goal\n" + BODY.replace(b"\n", b",,\n"),
        "comma at the end of the header": b"a,b,goal,\n" + BODY,
        "apostrophes as quotes": QUOTED,
        "blanks before quotes": b"".join(
            b", ".join(b'"%s"' % cell for cell in line.split(b",")) + b"\n" for line in PLAIN.splitlines()
        ),
    }.items(),
)
def test_forms_of_files_are_recognised(tmp_path, name, content):
    path = tmp_path / "t.csv"
    path.write_bytes(PLAIN)
    expected = read_table(path)
    path.write_bytes(content)
    found = read_table(path)
    assert list(found.cells) == ["a", "b", "goal"], name
    for column in expected.cells:
        assert found.cells[column].tolist() == expected.cells[column].tolist()


def test_unusual_forms_are_told(tmp_path):
    path = tmp_path / "t.csv"
    for content, words in (
        (PLAIN.replace(b",", b";"), "separated by ';'"),
        (b"sep=;\n" + PLAIN.replace(b",", b";"), "the first line says"),
        (b"Report of 2024\n" + PLAIN, "skipped before the header: 'Report of 2024'"),
    ):
        path.write_bytes(content)
        table = read_table(path)
        assert len(table.notes) == 1 and words in table.notes[0]
        assert content.splitlines()[table.lines[3] - 1].startswith(b"9")
    path.write_bytes(PLAIN)
    assert read_table(path).notes == ()


def test_row_names_of_r_and_of_pandas(tmp_path):
    path = tmp_path / "t.csv"
    rows = b"".join(b"r%d," % place + line + b"\n" for place, line in enumerate(BODY.splitlines()))
    for header in (b"a,b,goal\n", b",a,b,goal\n"):
        path.write_bytes(header + rows)
        assert list(read_table(path).cells) == ["column 1", "a", "b", "goal"]


@pytest.mark.parametrize(
    "first",
    [b"5.1,3.5,7", b"1,2,3.0", b"8,8,8", b"39,s,7\n50,s,3", b"x,-1e3,4\ny,2,5"],
)
def test_data_instead_of_a_header_is_refused_with_the_option(tmp_path, first):
    path = tmp_path / "t.csv"
    path.write_bytes(first + b"\n" + b"4,s,2\n" * 4)
    with pytest.raises(FileFormatError, match="--no-header"):
        read_table(path)
    table = read_table(path, header=False)
    assert list(table.cells) == ["c1", "c2", "c3"] and table.lines[0] == 1


@pytest.mark.parametrize("header", ["country,1990,2000", "0,1,2", "1,2,3", "a,b,c", "x1,x2,y"])
def test_headers_that_look_a_little_like_data(tmp_path, header):
    path = tmp_path / "t.csv"
    path.write_text(header + "\nA,2.5,3\nB,3.5,4\n")
    assert ",".join(read_table(path).cells) == header


def test_decimal_commas_do_not_separate(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1,5;2,5\n3,5;4,5\n")
    assert read_table(path, header=False, decimal=",").cells["c2"].tolist() == ["2,5", "4,5"]
    path.write_text('a,b\n"1,5",x\n"2,5",y\n')
    assert read_table(path, decimal=",").cells["a"].tolist() == ["1,5", "2,5"]


@pytest.mark.parametrize("kind", ["parquet", "excel"])
def test_files_of_pandas(tmp_path, kind):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow" if kind == "parquet" else "openpyxl")
    when = pandas.to_datetime(["2024-01-02"] * 3)
    frame = pandas.DataFrame({"a": [0.1, np.nan, 1 / 3], "when": when, "s": ["x", None, "NA"]})
    path = tmp_path / ("t.parquet" if kind == "parquet" else "t.xlsx")
    getattr(frame, f"to_{kind}")(path, index=False)
    cells = read_table(path).cells
    assert cells["a"].tolist() == ["0.1", "", repr(1 / 3)] and cells["when"][0].startswith("2024-01-02")
    assert cells["s"].tolist()[:2] == ["x", ""]
    path.write_bytes(b"PK\3\4 no such file")
    with pytest.raises(FileFormatError, match="cannot read t"):
        read_table(path)


def test_damaged_compressed_files_are_refused(tmp_path):
    path = tmp_path / "t.csv.gz"
    for content in (gzip.compress(PLAIN)[:40], bz2.compress(PLAIN)[:30], b"\xfd7zXZ\0 nothing", b"\x1f\x8b nothing"):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="cannot read"):
            read_table(path)
