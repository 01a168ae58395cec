"""Read a file into columns of texts: its compression, encoding, separator, title lines and header are recognised.

The csv module splits the rows, since pandas fills short rows and takes surplus cells as an index without a word.
"""

from __future__ import annotations

import bz2
import collections
import csv
import gzip
import io
import itertools
import lzma
import os
import re
import reprlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcvx.cli.notation import NUMBER
from jaxcvx.errors import FileFormatError, require_extra

MAX_BYTES = 2**30
MAX_COLUMNS = 100_000
SAMPLE = 50  # rows that decide on the separator and on title lines
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"": open}
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
ENGINES = {
    ".parquet": "read_parquet",
    ".xlsx": "read_excel",
    ".xls": "read_excel",
    ".ods": "read_excel",
    ".json": "read_json",
}
_REPR = reprlib.Repr()
_REPR.maxstring = 60


class Table(NamedTuple):
    """The cells of a file, without surrounding blanks.

    Attributes:
      name: name of the file, for messages.
      cells: the texts of each column, by its name.
      lines: the line of the file where each data row begins.
      notes: sentences on lines that were skipped and on unusual separators.
    """

    name: str
    cells: dict[str, np.ndarray]
    lines: Sequence[int]
    notes: tuple[str, ...] = ()

    def place(self, row: int, column: str) -> str:
        """The position of a cell, for messages."""
        return f"{self.name}, data row {row + 1} (line {self.lines[row]}), column {quote(column)}"

    def select(self, rows: np.ndarray) -> Table:
        """The table of the rows where a mask is true."""
        cells = {name: column[rows] for name, column in self.cells.items()}
        return self._replace(cells=cells, lines=list(itertools.compress(self.lines, rows)))


def read_table(path: str | os.PathLike[str], *, header: bool = True, decimal: str = ".") -> Table:
    """Read all cells of a file as texts. It checks the shape of the table, not the values.

    Args:
      path: a CSV file, plain or compressed, or a Parquet or Excel file if pandas has an engine for it.
      header: the first row holds the column names. Without a header the names are c1, c2, ...
      decimal: the decimal mark. A comma as the decimal mark is the last guess for the separator.

    Raises:
      FileFormatError: the file does not exist, cannot be decoded, is empty or too large, or has no data rows,
        unbalanced quotes, too many columns, repeated column names, data instead of a header, or rows of unequal length.
    """
    name = Path(path).name or os.fspath(path)
    engine = ENGINES.get(Path(path).suffix.lower())
    text = _text(path, name) if engine is None else _frame(path, name, engine)
    start, dialect, notes = _dialect(text, decimal) if engine is None else (1, {}, [])
    records = _records(text, name, start, dialect)
    head = list(itertools.islice(records, SAMPLE))
    skip = _titles(head)
    if skip:
        notes.append(f"skipped before the header: {quote(' '.join(cell for _, row in head[:skip] for cell in row))}")
    names, body = (head[skip][1], head[skip + 1 :]) if header else ([], head[skip:])
    if not any(any(row) for _, row in head[skip:]):
        raise FileFormatError(f"{name}: the file is empty.")
    if not body or not any(row for _, row in body):
        raise FileFormatError(f"{name}: there is a header and no data row.")
    names = names or [f"c{place + 1}" for place in range(len(body[0][1]))]
    if all(len(row) == len(names) + 1 and row[-1] for _, row in body):
        names = ["", *names]  # R gives its column of row names no name
    while not names[-1] and len(names) > len(body[0][1]):
        names.pop()
    twice = sorted(column for column, count in collections.Counter(names).items() if column and count > 1)
    if twice:
        hint = " --no-header reads a file without names." if any(map(NUMBER.fullmatch, twice)) else ""
        raise FileFormatError(f"{name}: a name is given more than once in the {listing(twice, 'header')}.{hint}")
    lines, rows = _rows(itertools.chain(body, records), len(names), name)
    cells: dict[str, np.ndarray] = {}
    for place, (column, texts) in enumerate(zip(names, zip(*rows, strict=True), strict=True)):
        if column or any(texts):  # a column without name and text comes from commas at the ends of lines
            cells[column or f"column {place + 1}"] = np.array(texts, object)
    if header:
        _check_header(cells, name)
    return Table(name, cells, lines, tuple(notes))


def _text(path: str | os.PathLike[str], name: str) -> io.TextIOWrapper:
    """The file as a stream of text. The stream decodes line by line, which takes far less memory than a string."""
    try:
        with open(path, "rb") as stream:
            start = stream.read(6)
        with next(opener for magic, opener in OPENERS.items() if start.startswith(magic))(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as err:
        raise FileFormatError(f"no such file: {os.fspath(path)}") from err
    except (OSError, ValueError, EOFError, lzma.LZMAError, zlib.error) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise FileFormatError(f"cannot read {os.fspath(path)}: {reason}") from err
    if len(data) > MAX_BYTES:
        raise FileFormatError(f"{name}: more than {MAX_BYTES} bytes, which is the most that is read.")
    encoding = next((code for mark, code in MARKS.items() if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise FileFormatError(f"{name}, line {line}: a NUL byte: this is not a CSV file in UTF-8.")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as err:
        line, kind = data[: err.start].count(b"\n") + 1, encoding.removesuffix("-sig").upper()
        raise FileFormatError(f"{name}, line {line}: byte 0x{data[err.start]:02x} is not {kind}.") from err
    if not text or text.isspace():
        raise FileFormatError(f"{name}: the file is empty.")
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline="")


def _frame(path: str | os.PathLike[str], name: str, engine: str) -> io.StringIO:
    """A Parquet or Excel file, written as CSV: numbers with all digits, missing cells empty."""
    pandas: Any = require_extra("pandas", "cli")
    try:
        return io.StringIO(getattr(pandas, engine)(path).to_csv(index=False), newline="")
    except Exception as err:  # each engine has exceptions of its own
        raise FileFormatError(f"cannot read {name}: {' '.join(str(err).split())[:200]}") from err


def _dialect(text: Any, decimal: str) -> tuple[int, dict[str, Any], list[str]]:
    """The line where the table begins, the dialect in which most rows are equally long, and notes."""
    lines = (line[:10_000] for line in itertools.islice(text, 10 * SAMPLE))
    sample = list(itertools.islice((line for line in lines if line.strip()), SAMPLE)) or [""]
    text.seek(0)
    told = re.fullmatch(r'"?sep=(.)"?\s*', sample[0])
    if told:
        text.readline()
        return 2, {"delimiter": told[1]}, [f"columns are separated by {told[1]!r}, as the first line says"]
    best, options = 0.0, {"delimiter": ","}
    for separator in sorted(",;\t| ", key=lambda mark: mark == decimal):
        end = re.escape(separator)
        single = not any('"' in line for line in sample) and all(
            re.search(rf"(^|{end})\s*'[^']*'\s*($|{end})", line) for line in sample
        )
        dialect: dict[str, Any] = {"delimiter": separator, "quotechar": "'" if single else '"'}
        try:
            rows = csv.reader((line.strip(" \r\n") for line in sample), skipinitialspace=True, **dialect)
            widths = collections.Counter(len(row) for row in rows)
        except csv.Error:
            continue
        width, count = widths.most_common(1)[0]
        share = count / sum(widths.values()) if width > 1 else 0.0
        if share > best and (separator != " " or share == 1.0):
            best, options = share, dialect
    return 1, options, [] if options["delimiter"] == "," else [f"columns are separated by {options['delimiter']!r}"]


def _records(text: Any, name: str, start: int, dialect: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """The line where each record begins, and its cells without surrounding blanks; none for a blank line."""
    reader, begin = csv.reader(text, strict=True, skipinitialspace=True, **dialect), start
    try:
        for record in reader:
            if len(record) > MAX_COLUMNS:
                raise FileFormatError(
                    f"{name}, line {begin}: {len(record)} fields, expected at most {MAX_COLUMNS} columns."
                )
            yield begin, [] if record == [""] else [cell.strip() for cell in record]
            begin = reader.line_num + start
    except csv.Error as err:
        raise FileFormatError(f"{name}, record that begins on line {begin}: {err}.") from err


def _titles(head: list[tuple[int, list[str]]]) -> int:
    """The number of records before the header: blank lines, comments, and titles in the first of several columns."""
    sizes = [max((place + 1 for place, cell in enumerate(row) if cell), default=0) for _, row in head]
    usual = collections.Counter(size for size in sizes if size).most_common(1)
    width = usual[0][0] if usual else 0
    return next(
        (
            place
            for place, (size, (_, row)) in enumerate(zip(sizes, head, strict=True))
            if size == width or (size > 1 and not row[0].startswith("#")) or (size == 1 and width < 2)
        ),
        0,
    )


def _rows(records: Iterator[tuple[int, list[str]]], width: int, name: str) -> tuple[list[int], list[list[str]]]:
    """The lines and cells of the data rows. Blank lines are allowed at the end only, empty surplus cells anywhere."""
    lines: list[int] = []
    rows: list[list[str]] = []
    blank: int | None = None
    for line, record in records:
        if not record:
            blank = line if blank is None else blank
            continue
        if len(record) > width and not any(record[width:]):
            del record[width:]
        if blank is not None or len(record) != width:
            line, got = (line, len(record)) if blank is None else (blank, 0)
            raise FileFormatError(f"{name}, line {line}: {got} fields, expected {width}.")
        rows.append(record)
        lines.append(line)
    return lines, rows


def _check_header(cells: dict[str, np.ndarray], name: str) -> None:
    """Refuse a first row that looks like data: a decimal number, only numbers, or cells that its columns repeat."""
    numbers = [column for column in cells if NUMBER.fullmatch(column)]
    counted = numbers in ([str(i + k) for i in range(len(numbers))] for k in (0, 1))
    broken = any(not column.lstrip("+-").isdigit() for column in numbers)
    repeated = numbers and any(column in texts for column, texts in cells.items() if column not in numbers)
    if broken or repeated or (len(numbers) == len(cells) and not counted):
        raise FileFormatError(
            f"{name}: the first row, {listing(list(cells), 'cells')}, looks like data, expected the names of the"
            " columns. --no-header reads a file without names; they are then c1, c2, ..."
        )


def quote(text: str) -> str:
    """The text in quotes; the middle of a long text is left out."""
    return _REPR.repr(str(text))


def listing(names: Sequence[str], noun: str = "columns") -> str:
    """The first ten names, and the number of the others."""
    shown = ", ".join(quote(name) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{noun}: {shown}{more}"


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural if it needs that."""
    return f"{number} {noun}" + "s" * (number != 1)
