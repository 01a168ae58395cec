"""Read a CSV file into a table of cells. The table has rows of equal length and can name the position of a cell."""

from __future__ import annotations

import array
import collections
import csv
import io
import math
import os
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from jaxtyping import Float

from jaxcvx.errors import FileFormatError, InvalidInputError

MAX_BYTES = 2**30
MAX_COLUMNS = 100_000
MISSING = frozenset({"", "na", "nan", "null", "?"})
_REPR = reprlib.Repr()
_REPR.maxstring = 60


class Table(NamedTuple):
    """The cells of a file, without surrounding blanks.

    Attributes:
      name: name of the file, for messages.
      header: the column names.
      rows: the cells of each data row.
      lines: the line of the file where each data row begins.
      positions: index of each column in the header.
    """

    name: str
    header: list[str]
    rows: list[list[str]]
    lines: Sequence[int]
    positions: dict[str, int]

    def place(self, row: int, column: str) -> str:
        """The position of a cell, for messages."""
        return f"{self.name}, data row {row + 1} (line {self.lines[row]}), column {quote(column)}"

    def column(self, name: str) -> list[str]:
        """The cells of an existing column.

        Raises:
          InvalidInputError: a value is missing or infinite.
        """
        position = self.positions[name]
        cells = [row[position] for row in self.rows]
        for row, cell in enumerate(cells):
            if cell.lower() in MISSING:
                raise InvalidInputError(
                    f"{self.place(row, name)}: the value is missing ({quote(cell)}). Fill it in or drop the row."
                )
            value = parse_number(cell)
            if value is not None and not math.isfinite(value):
                raise InvalidInputError(f"{self.place(row, name)}: {quote(cell)} is not a finite number.")
        return cells

    def numbers(self, name: str) -> Float[np.ndarray, " n"]:
        """The cells of an existing column, as numbers.

        Raises:
          InvalidInputError: as for ``column``; a cell is not a number.
        """
        cells = self.column(name)
        values = np.empty(len(cells))
        for row, cell in enumerate(cells):
            value = parse_number(cell)
            if value is None:
                raise InvalidInputError(f"{self.place(row, name)}: {quote(cell)} is not a number.")
            values[row] = value
        return values

    def is_numeric(self, name: str) -> bool:
        """True if all cells of a column are numbers.

        Raises:
          InvalidInputError: as for ``column``; most of the cells are numbers but not all, which is probably a typing
            error.
        """
        cells = self.column(name)
        texts = [row for row, cell in enumerate(cells) if parse_number(cell) is None]
        if texts and 2 * len(texts) < len(cells):
            raise InvalidInputError(
                f"{self.place(texts[0], name)}: {quote(cells[texts[0]])} is not a number, but most of the column is."
            )
        return not texts


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read all cells of a file (UTF-8, commas, a header line). It checks the shape of the table, not the values.

    Blank lines at the end are ignored; any other blank line counts as a row that is too short. Reading ends at the
    first fault.

    Raises:
      FileFormatError: the file does not exist, is a directory, empty, too large, not UTF-8, or has NUL bytes, no data
        rows, unbalanced quotes, an over-long field, too many columns, repeated column names, or rows of unequal length.
    """
    name = Path(path).name or os.fspath(path)
    records = _records(_text(path, name), name)
    _, header = next(records, (1, []))
    if _is_blank(header) and all(_is_blank(record) for _, record in records):
        raise FileFormatError(f"{name}: the file is empty.")
    _check_header(header, name)
    rows: list[list[str]] = []
    lines = array.array("q")
    blank: int | None = None
    for line, record in records:
        if _is_blank(record):
            blank = line if blank is None else blank
            continue
        if blank is not None:
            raise FileFormatError(f"{name}, line {blank}: 0 fields, expected {len(header)}.")
        if len(record) != len(header):
            raise FileFormatError(f"{name}, line {line}: {len(record)} fields, expected {len(header)}.")
        rows.append(record)
        lines.append(line)
    if not rows:
        raise FileFormatError(f"{name}: there is a header and no data row.")
    return Table(name, header, rows, lines, {column: place for place, column in enumerate(header)})


def _text(path: str | os.PathLike[str], name: str) -> TextIO:
    """The file as a stream of text. The stream decodes line by line, which takes far less memory than a string."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as err:
        raise FileFormatError(f"no such file: {os.fspath(path)}") from err
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise FileFormatError(f"cannot read {os.fspath(path)}: {reason}") from err
    if len(data) > MAX_BYTES:
        raise FileFormatError(f"{name}: more than {MAX_BYTES} bytes, which is the most that is read.")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise FileFormatError(f"{name}, line {line}: a NUL byte: this is not a CSV file in UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data[: err.start].count(b"\n") + 1
        raise FileFormatError(f"{name}, line {line}: byte 0x{data[err.start]:02x} is not UTF-8.") from err
    if not text or text.isspace():
        raise FileFormatError(f"{name}: the file is empty.")
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")


def _records(text: TextIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each record begins, and its cells without surrounding blanks."""
    reader, start = csv.reader(text, strict=True), 1
    try:
        for record in reader:
            if len(record) > MAX_COLUMNS:
                raise FileFormatError(
                    f"{name}, line {start}: {len(record)} fields, expected at most {MAX_COLUMNS} columns."
                )
            yield start, [cell.strip() for cell in record]
            start = reader.line_num + 1
    except csv.Error as err:
        raise FileFormatError(f"{name}, record that begins on line {start}: {err}.") from err


def _check_header(header: list[str], name: str) -> None:
    if _is_blank(header):
        raise FileFormatError(f"{name}, line 1: blank, expected the column names.")
    for separator in (";", "\t"):
        if len(header) == 1 and separator in header[0]:
            raise FileFormatError(f"{name}: columns are separated by {separator!r}, expected commas.")
    twice = sorted(column for column, count in collections.Counter(header).items() if column and count > 1)
    if twice:
        raise FileFormatError(f"{name}: a name is given more than once in the {listing(twice, 'header')}.")


def _is_blank(record: list[str]) -> bool:
    return len(record) == 0 or record == [""]


def parse_number(text: str) -> float | None:
    """The value of a decimal number, or None for other text. Python's digit separators are not accepted."""
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def quote(text: str) -> str:
    """The text in quotes; the middle of a long text is left out."""
    return _REPR.repr(text)


def listing(names: Sequence[str], noun: str = "columns") -> str:
    """The first ten names, and the number of the others."""
    shown = ", ".join(quote(name) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{noun}: {shown}{more}"
