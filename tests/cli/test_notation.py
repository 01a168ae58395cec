"""Numbers and dates in texts, one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.cli.notation import Notation, are_codes, date_format, same_label, to_days
from jaxcvx.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.5", 1.5), ("-3e2", -300), ("+.5", 0.5), ("5.", 5), ("1.2D-3", 0.0012), ("−4", -4), ("$-2", -2), ("7%", 7)],
)
def test_values(text, value):
    assert Notation().affixes(text) is not None and Notation().value(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1_000", "1,5", "1 000", "0x1f", "inf", "nan", "1.2.3", "--1", "1D3", "1-2", "(3)"]
)
def test_texts_that_are_no_numbers(text):
    assert Notation().affixes(text) is None


@pytest.mark.parametrize(
    ("decimal", "thousands", "text", "value"),
    [
        (",", "", "1,5", 1.5),
        (",", ".", "1.234.567,5", 1234567.5),
        (".", ",", "12,34,567.5", 1234567.5),  # lakh
        (".", "'", "1'234", 1234.0),
        (".", ",", "1234.5", 1234.5),
    ],
)
def test_marks(decimal, thousands, text, value):
    notation = Notation(decimal, thousands)
    assert notation.affixes(text) == ("", "") and notation.value(text) == value
    assert Notation(",").affixes("1.5") is None and Notation(".", ",").affixes("1,23") is None


def test_columns_of_numbers():
    values, bad = Notation().numbers(np.array(["1", "x", "NA", "1e999", "inf"], object))
    np.testing.assert_array_equal(values, [1, np.inf, np.nan, np.inf, np.inf])
    np.testing.assert_array_equal(bad, [False, True, False, True, True])
    values, bad = Notation().numbers(np.array(["0.1", "1e-320"], object))
    np.testing.assert_array_equal(values, [0.1, 1e-320])
    assert not bad.any()


def test_labels_and_codes():
    assert [same_label(t) for t in ("1.0", "-2.00", "1.10", "1e5", "007", "x.0")] == [
        "1",
        "-2",
        "1.10",
        "1e5",
        "007",
        "x.0",
    ]
    assert are_codes(["007", "8"]) and are_codes([str(2**53), str(2**53 + 1)])
    assert not are_codes(["0", "10"]) and not are_codes(["0.5", "007"])


def test_dates():
    assert date_format(["2024-02-01", "2024-12-31"]) == "ISO8601"
    assert date_format(["1/13/2024"]) == "%m/%d/%Y" and date_format(["13/1/2024"]) == "%d/%m/%Y"
    for texts in (["20240101"], ["10-20"], ["1.5"], ["tomorrow"], [], ["2024-13-01"], ["30.02.2024"]):
        assert date_format(texts) is None
    with pytest.raises(InvalidInputError, match="fits the formats"):
        date_format(["1/2/2024"])
    np.testing.assert_allclose(to_days(["1970-01-02T12:00:00+12:00"], "ISO8601"), [1.0])
