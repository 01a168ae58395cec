"""Numbers, dates and missing values as they stand in the cells of a file."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxcvx.errors import InvalidInputError, require_extra

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MISSING_TEXT = frozenset({"", "?", "nan", "nat", "null", "<na>", "n/a", "#n/a", "#n/a n/a"})
MISSING_NUMBER = MISSING_TEXT | frozenset(
    "na #na n.a. none nil missing unknown -nan 1.#qnan -1.#ind - -- – — . .. * #div/0! #value! #ref! #num!".split()
)
MONEY = r"(?:[A-Z]{2})?[$€£¥₹₩₽]|(?:USD|EUR|GBP|CHF|JPY|CAD|AUD)"
UNIT = r"%|‰|°?[^\W\d_]{1,4}(?:/[^\W\d_]{1,4})?[²³]?|°|" + MONEY
LOOSE = re.compile(
    rf"\(?[-+−]?\s?(?:{MONEY}|['\"])?\s?[-+−]?(?:\d{{1,3}}(?:[ .,'’_\xa0\u202f]\d{{2,3}})+|\d+)(?:[.,]\d*)?"
    rf"(?:[eEdD][+-]?\d+)?\s?(?:%|‰|{MONEY}|['\"]|[kKMghlms]|bn|[kmµ]g|[kcmµ]m|lbs?|oz|ft|mi|hrs?|min|ms)?\)?-?"
)
_TIMES = ("", " %H:%M", " %H:%M:%S")
_DAYS = "%Y/%m/%d %Y.%m.%d %d.%m.%Y %m/%d/%Y %d/%m/%Y %m-%d-%Y %d-%m-%Y %m/%d/%y %d/%m/%y %d-%b-%Y %d-%b-%y".split()
_DAYS += ["%b %d %Y", "%b %d, %Y", "%d %b %Y", "%B %d, %Y", "%B %d %Y", "%d %B %Y", "%b %Y", "%Y-%m"]
FORMATS = ("ISO8601", *(day + time for day in _DAYS for time in _TIMES), "%H:%M", "%H:%M:%S", "%I:%M %p")


@dataclasses.dataclass(frozen=True)
class Notation:
    """How a file writes numbers and missing values.

    Attributes:
      decimal: the decimal mark.
      thousands: the mark between groups of digits, or "" for none.
      na: further words that mean a missing value in every column.
    """

    decimal: str = "."
    thousands: str = ""
    na: tuple[str, ...] = ()

    def missing(self, text: str, numeric: bool) -> bool:
        """True if the text means that there is no value."""
        words = MISSING_NUMBER if numeric else MISSING_TEXT
        return text.lower() in words or text in self.na or same_label(text) in self.na

    def affixes(self, text: str) -> tuple[str, str] | None:
        """The currency, unit or quotes before and after the number, or None if the text is not a number."""
        found = _pattern(self.decimal, self.thousands).fullmatch(text)
        return None if found is None else (found["prefix"] or "", found["suffix"] or "")

    def value(self, text: str) -> float:
        """The number in a text that has affixes, without them."""
        found = _pattern(self.decimal, self.thousands).fullmatch(text)
        assert found is not None
        digits = found["digits"].replace(self.thousands, "") if self.thousands else found["digits"]
        sign = "-" if (found["sign"] or found["sign2"] or "") in ("-", "−") else ""
        return float(sign + re.sub("[dD]", "e", digits.replace(self.decimal, ".")))

    def fits_point(self, texts: Iterable[str]) -> bool:
        """True for numbers with a decimal point in a file of another notation, if the points cannot group digits."""
        texts = list(texts)
        numbers = self.decimal != "." and all(NUMBER.fullmatch(text) for text in texts)
        return numbers and not all(re.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3})*", text) for text in texts)

    def numbers(self, cells: np.ndarray, affixes: tuple[str, str] = ("", "")) -> tuple[np.ndarray, np.ndarray]:
        """The values of a column, nan where a cell is missing, and the mask of the cells that are not finite numbers.

        Args:
          cells: texts.
          affixes: text that must stand before and after each number. Numbers without it are not accepted.
        """
        if self == Notation() and affixes == ("", "") and not any("_" in cell for cell in cells):
            try:
                values = cells.astype(float)  # exact to the last digit, unlike pandas.to_numeric
            except ValueError:
                values = np.array([np.nan])
            if np.isfinite(values).all():
                return values, np.zeros(len(cells), bool)
        values, bad = np.full(len(cells), np.nan), np.zeros(len(cells), bool)
        for row, cell in enumerate(cells):
            if not self.missing(cell, True):
                values[row] = self.value(cell) if self.affixes(cell) == affixes else np.inf
                bad[row] = not math.isfinite(values[row])
        return values, bad


@functools.cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    mark, group = re.escape(decimal), re.escape(thousands)
    whole = rf"(?:[1-9]\d{{0,2}}(?:{group}\d{{2,3}})*{group}\d{{3}}|\d+)" if thousands else r"\d+"
    fraction = rf"(?:{whole}{mark}\d*|{mark}\d+)"
    digits = rf"(?:{fraction}[dD][+-]?\d+|(?:{fraction}|{whole})(?:[eE][+-]?\d+)?)"
    front = rf"(?P<sign>[-+−]?)(?:(?P<prefix>{MONEY}|['\"])\s?(?P<sign2>[-+−]?))?"
    return re.compile(rf"{front}(?P<digits>{digits})\s?(?P<suffix>{UNIT}|['\"])?")


def same_label(text: str) -> str:
    """The text without the ".0" that programs add to whole numbers. Other texts stay as they are: 007, 1.10, 1e5."""
    return re.sub(r"\.0+$", "", text) if re.fullmatch(r"[+-]?\d+\.0+", text) else text


def are_codes(texts: Iterable[str]) -> bool:
    """True for whole numbers that would lose digits as numbers: 007, or integers that float64 cannot tell apart."""
    texts = list(texts)
    if not all(re.fullmatch(r"[+-]?\d+", text) for text in texts):
        return False
    padded = any(re.fullmatch(r"[+-]?0\d+", text) for text in texts)
    return padded or len({float(text) for text in texts}) < len({int(text) for text in texts})


def date_format(texts: list[str]) -> str | None:
    """The format of dates that fits all texts, or None.

    Raises:
      InvalidInputError: several formats fit and mean different days.
    """
    if not texts or not all(re.search(r"\d{1,4}[-/.: ]|\d{4}", text) and len(text) < 40 for text in texts):
        return None
    if any(re.fullmatch(r"[+-]?\d*\.?\d*", text) for text in texts):
        return None
    fits = {form: days for form in FORMATS if (days := to_days(texts, form)) is not None}
    if len({days.tobytes() for days in fits.values()}) > 1:
        raise InvalidInputError(f"{texts[0]!r} fits the formats {' and '.join(fits)}")
    return next(iter(fits), None)


def to_days(texts: Any, form: str) -> np.ndarray | None:
    """Days since 1970-01-01, for times without a date parts of a day; None if a text does not fit the format."""
    pandas: Any = require_extra("pandas", "cli")
    origin = "1900-01-01" if "%H" in form and "%d" not in form or "%I" in form and "%d" not in form else "1970-01-01"
    try:
        times = pandas.to_datetime(pandas.Series(list(texts), dtype=object), format=form, utc=True)
    except (ValueError, TypeError, OverflowError):
        return None
    return ((times - pandas.Timestamp(origin, tz="UTC")) / pandas.Timedelta(days=1)).to_numpy(float)
