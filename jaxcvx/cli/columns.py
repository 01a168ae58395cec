"""A column of a file: the decision of what it holds, and its coding as columns of X."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxcvx.cli.csv_table import count, listing, quote
from jaxcvx.cli.notation import LOOSE, MISSING_NUMBER, Notation, are_codes, date_format, same_label, to_days
from jaxcvx.errors import InvalidInputError

MAX_CATEGORIES = 256
FEW = 20  # texts that are coded as categories in any file
_IDENTIFIER = re.compile(
    r"(.*[a-z])?I[dD]|(.*[_ .-])?(?i:ids?|uuid|guid|key|nr|no|number)|(?i:index|idx|row|rownames?|record|unnamed.*)|#"
)


class Unfit(InvalidInputError):
    """Cells of a column do not fit its description; ``rows`` are their rows."""

    def __init__(self, message: str, rows: Any = ()):
        super().__init__(message)
        self.rows = list(rows)


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the training file.

    Attributes:
      name: name in the header.
      categories: the allowed values, sorted, one-hot coded in this order; "" stands for missing cells. None if the
        column is numeric.
      fill: value of missing cells: the median, or the most frequent category. None if missing cells are refused.
      indicator: a further column of X is 1 where the cell is missing.
      affixes: the text before and after each number, such as a currency and a unit.
      format: format of dates, which become days since 1970-01-01.
      point: the decimal mark is a point whatever the options say.
      left_out: the column is not used.
      note: a sentence on what was done to the column.
    """

    name: str
    categories: tuple[str, ...] | None = None
    fill: float | str | None = None
    indicator: bool = False
    affixes: tuple[str, str] = ("", "")
    format: str | None = None
    point: bool = False
    left_out: bool = False
    note: str = ""

    @property
    def feature_names(self) -> list[str]:
        """Names of its columns of X."""
        if self.left_out:
            return []
        if self.categories is not None:
            return [f"{self.name}={category or '(missing)'}" for category in self.categories]
        return [self.name, f"{self.name} (missing)"] if self.indicator else [self.name]

    def encode(self, cells: np.ndarray, notation: Notation) -> tuple[np.ndarray, np.ndarray]:
        """The columns of X and the mask of missing cells.

        Raises:
          Unfit: cells are missing although ``fill`` is None, or are not numbers, dates or known categories.
        """
        if self.categories is not None:
            return self._one_hot(cells, notation)
        if self.format is not None:
            missing = np.array([notation.missing(cell, True) for cell in cells])
            values, bad = np.full(len(cells), np.nan), np.zeros(len(cells), bool)
            days = to_days(cells[~missing], self.format)
            if days is None:
                bad = ~missing & np.array([to_days([cell], self.format) is None for cell in cells])
                raise Unfit(f"{quote(cells[bad][0])} is not a date of the format {self.format}", np.flatnonzero(bad))
            values[~missing] = days
        else:
            notation = dataclasses.replace(notation, decimal=".", thousands="") if self.point else notation
            values, bad = notation.numbers(cells, self.affixes)
            missing = np.isnan(values) & ~bad
        if bad.any():
            first, endless = cells[bad][0], re.fullmatch(r"[+-]?(inf|infinity|\d+(\.\d*)?e\d+)", cells[bad][0].lower())
            kind = (
                "a finite number" if endless else "a number" if self.affixes == ("", "") else "written as in training"
            )
            raise Unfit(f"{quote(first)} is not {kind}", np.flatnonzero(bad))
        if missing.any():
            if self.fill is None:
                raise Unfit(f"the value is missing ({quote(cells[missing][0])})", np.flatnonzero(missing))
            values = np.where(missing, self.fill, values)
        return np.stack([values, missing] if self.indicator else [values], axis=1), missing

    def _one_hot(self, cells: np.ndarray, notation: Notation) -> tuple[np.ndarray, np.ndarray]:
        assert self.categories is not None
        missing = np.array([notation.missing(cell, False) for cell in cells])
        place = {category: code for code, category in enumerate(self.categories)}
        codes = np.array([find(place, "" if gone else cell) for cell, gone in zip(cells, missing, strict=True)])
        if self.fill is not None:
            codes[missing & (codes < 0)] = place[str(self.fill)]
        unknown = codes < 0
        if (unknown & missing).any():
            raise Unfit(
                f"the value is missing ({quote(cells[unknown & missing][0])})", np.flatnonzero(unknown & missing)
            )
        if unknown.any():
            raise Unfit(
                f"category {quote(cells[unknown][0])} is not in the training data,"
                f" which has {listing(self.categories, 'the categories')}",
                np.flatnonzero(unknown),
            )
        return np.eye(len(place))[codes], missing


def find(places: dict[str, int], text: str) -> int:
    """The place of the same label, else of the only one with the same whole number ("1" for "1.0"), else -1."""
    if text in places:
        return places[text]
    alike = [place for label, place in places.items() if same_label(label) == same_label(text)]
    return alike[0] if len(alike) == 1 else -1


def doubts(labels: Iterable[str]) -> str:
    """A remark on labels that mean a missing value in columns of numbers."""
    words = [label for label in labels if label.lower() in MISSING_NUMBER]
    return f" ({quote(words[0])} is one of them; --na {words[0]} makes it a missing value)" if words else ""


def describe(name: str, cells: np.ndarray, notation: Notation, choice: str = "", refuse: bool = False) -> Column:
    """Decide on the coding of a column of the training file.

    Args:
      name: its name.
      cells: its texts.
      notation: how the file writes numbers and missing values.
      choice: the user's word: "drop", "keep", "categorical", "datetime" or "datetime=FORMAT"; "" decides by the cells.
      refuse: missing cells are refused.

    Raises:
      Unfit: most cells are numbers but not all, or look like numbers in another notation, or are ambiguous dates.
    """
    if choice == "drop":
        return Column(name, left_out=True, note="left out by --drop")
    counts = collections.Counter(cells.tolist())
    texts = [text for text in counts if not notation.missing(text, True)]
    total = sum(counts[text] for text in texts)
    if choice.startswith("datetime"):
        return _date(name, cells, texts, notation, choice.partition("=")[2], refuse)
    if choice != "categorical" and total and not are_codes(texts):
        point = notation.fits_point(texts)
        affixes = {("", "")} if point else {notation.affixes(text) for text in texts}
        if len(affixes) == 1 and None not in affixes:
            column = Column(name, affixes=next(iter(affixes)) or ("", ""), point=point)
            return _number(column, cells, len(texts), notation, choice, refuse)
        form = None if any(notation.affixes(text) for text in texts[:1]) else _format(texts)
        if form is not None:
            return _date(name, cells, texts, notation, form, refuse)
        plain = sum(counts[text] for text in texts if notation.affixes(text) == ("", ""))
        odd = [text for text in texts if notation.affixes(text) != ("", "") and LOOSE.fullmatch(text)]
        if 2 * plain > total or 2 * (plain + sum(counts[text] for text in odd)) > total:
            rest = set(odd if 2 * plain <= total else texts) - {t for t in texts if notation.affixes(t) == ("", "")}
            rows = [row for row, cell in enumerate(cells) if cell in rest]
            if all(re.fullmatch(r"[+-]?inf(inity)?", cells[row].lower()) for row in rows):
                raise Unfit(f"{quote(cells[rows[0]])} is not a finite number", rows)
            why = "but most of the column is" if 2 * plain > total else "but looks like one in another notation"
            raise Unfit(f"{quote(cells[rows[0]])} is not a number, {why}", rows)
    return _category(name, cells, counts, notation, choice, refuse)


def _format(texts: list[str]) -> str | None:
    try:
        return date_format(texts)
    except InvalidInputError as err:
        raise Unfit(f"{err}. --datetime COLUMN=FORMAT tells which") from err


def _filled(column: Column, cells: np.ndarray, notation: Notation, note: str, refuse: bool) -> Column:
    """The numeric column with its median, and with an indicator if cells are missing."""
    values, missing = dataclasses.replace(column, fill=np.nan).encode(cells, notation)
    fill = float(np.median(values[~missing])) if not missing.all() else 0.0
    if refuse:
        return dataclasses.replace(column, note=note)
    if missing.any():
        note += f"; {count(int(missing.sum()), 'missing cell')} became the median {fill:.6g}, with an indicator column"
    return dataclasses.replace(column, fill=fill, indicator=bool(missing.any()), note=note)


def _date(name: str, cells: np.ndarray, texts: list[str], notation: Notation, form: str, refuse: bool) -> Column:
    form = form or _format(texts) or "ISO8601"
    note = f"dates ({form}) became days since 1970-01-01, times of the day parts of a day"
    return _filled(Column(name, format=form), cells, notation, note, refuse)


def _number(column: Column, cells: np.ndarray, distinct: int, notation: Notation, choice: str, refuse: bool) -> Column:
    whole = distinct == len(cells) and all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells)
    counter = whole and [int(cell) for cell in cells] in (list(range(distinct)), list(range(1, distinct + 1)))
    unnamed = column.name == "column 1"
    if whole and distinct > FEW and not choice and (counter or unnamed or _IDENTIFIER.fullmatch(column.name)):
        return _identifier(column.name, f"a different integer in each of {distinct} rows")
    around = " and ".join(quote(affix) for affix in column.affixes if affix)
    note = "numbers" + (f" read without {around}" if around else " with a decimal point" if column.point else "")
    if whole and distinct > FEW:
        note += " (different in each row; --drop leaves the column out if it names the rows)"
    return _filled(column, cells, notation, note, refuse)


def _identifier(name: str, why: str) -> Column:
    return Column(name, left_out=True, note=f"left out as an identifier: {why}; --keep uses it")


def _category(
    name: str, cells: np.ndarray, counts: collections.Counter[str], notation: Notation, choice: str, refuse: bool
) -> Column:
    levels = sorted(text for text in counts if not notation.missing(text, False))
    missing = len(cells) - sum(counts[level] for level in levels)
    if not levels:
        return Column(name, left_out=True, note="left out: all cells are missing")
    unique = len(levels) == len(cells) and len(cells) >= 8
    if not choice and (unique or len(levels) > min(MAX_CATEGORIES, max(FEW, len(cells) // 2))):
        return _identifier(name, f"{len(levels)} different texts in {len(cells)} rows")
    note = f"{len(levels)} {listing(levels, 'categories')}"
    if are_codes(levels):
        note += " (whole numbers that differ as texts only)"
    if len({level.lower() for level in levels}) < len(levels):
        note += " (some differ in case only)"
    note += doubts(levels)
    if refuse:
        return Column(name, tuple(levels), note=note)
    if missing:
        note += f"; {count(missing, 'missing cell')} got a category of their own"
    fill = None if missing else max(levels, key=counts.__getitem__)
    return Column(name, (*[""] * bool(missing), *levels), fill, note=note)
