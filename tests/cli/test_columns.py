"""Columns: numbers in other notations, missing cells, dates, identifiers, labels. Each case was a fault once."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from jaxcvx.cli.columns import describe, find
from jaxcvx.cli.notation import Notation
from jaxcvx.cli.tabular import Options, read_features, read_labelled, read_target, read_training_csv
from jaxcvx.errors import InvalidInputError

VALUES = np.random.default_rng(3).normal(size=40) * 900
DAYS = [f"2024-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(40)]


@pytest.fixture
def read(tmp_path: Any) -> Any:
    """Read a feature column x beside another one and a target; returns data, schema and the folder's writer."""

    def of(cells: Any, target: Any = None, **options: Any) -> Any:
        cells = [f'"{cell}"' if "," in str(cell) and '"' not in str(cell) else cell for cell in cells]
        target = [f"{np.sin(3 * i):.3f}" for i in range(len(cells))] if target is None else target
        path = tmp_path / "t.csv"
        rows = [f"{np.cos(5 * i):.4f},{x},{y}" for i, (x, y) in enumerate(zip(cells, target, strict=True))]
        path.write_text("\n".join(["other,x,goal", *rows]) + "\n")
        data, schema = read_training_csv(path, "goal", options=Options(**options))
        again = read_labelled(path, schema, data.classes)
        np.testing.assert_array_equal(again[0], data.X)
        np.testing.assert_array_equal(again[1], data.y)
        return data, schema

    return of


def near(data: Any, expected: Any) -> None:
    assert data.feature_names == ("other", "x") and data.X.shape == (len(expected), 2)
    np.testing.assert_allclose(data.X[:, 1], expected, atol=0.006)


# Read without an option: each cell is a number in one notation, the same in all rows.
UNAMBIGUOUS = {
    "per cent": lambda v: f"{v:.2f}%",
    "currency": lambda v: f"${v:.2f}",
    "sign before the currency": lambda v: f"-${-v:.2f}" if v < 0 else f"${v:.2f}",
    "currency code": lambda v: f"EUR {v:.2f}",
    "unit": lambda v: f"{v:.2f} mm",
    "unit of a rate": lambda v: f"{v:.2f} km/h",
    "unit without a blank": lambda v: f"{v:.2f}°C",
    "blank before a quote": lambda v: f' "{v:.2f}"',
    "Fortran exponent": lambda v: f"{v / 1000:.6f}D+03",
    "apostrophes": lambda v: f"'{v:.2f}'",
    "minus of a typesetter": lambda v: f"{v:.2f}".replace("-", "−"),
    "bare points": lambda v: re.sub(r"^(-?)0\.", r"\1.", f"{v:.2f}"),
}


@pytest.mark.parametrize("name", UNAMBIGUOUS)
def test_one_notation_is_read(read, name, tmp_path):
    data, schema = read([UNAMBIGUOUS[name](v) for v in VALUES])
    near(data, VALUES)
    new = tmp_path / "new.csv"
    new.write_text(f"x,other\n{UNAMBIGUOUS[name](123.45)},2\n")
    np.testing.assert_allclose(read_features(new, schema), [[2, 123.45]])


# Refused with the column and an example, and read with the option.
AMBIGUOUS = {
    "decimal comma": (lambda v: f"{v:.2f}".replace(".", ","), Notation(",")),
    "thousands": (lambda v: f"{v + 5000:,.2f}", Notation(".", ",")),
    "points for thousands": (lambda v: f"{v + 5000:_.2f}".translate({46: ",", 95: "."}), Notation(",", ".")),
    "blanks for thousands": (lambda v: f"{v + 5000:_.2f}".replace("_", " "), Notation(".", " ")),
    "apostrophes for thousands": (lambda v: f"{v + 5000:_.2f}".replace("_", "'"), Notation(".", "'")),
    "decimal comma and a unit": (lambda v: f"{v:.2f} kg".replace(".", ","), Notation(",")),
    "underscores": (lambda v: f"{v + 5000:_.2f}", Notation(".", "_")),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_other_notations_need_their_option(read, name):
    write, notation = AMBIGUOUS[name]
    cells = [write(v) for v in VALUES]
    with pytest.raises(InvalidInputError, match=r"column 'x': .* is not a number.*--decimal, --thousands"):
        read(cells)
    data, _ = read(cells, notation=notation)
    np.testing.assert_allclose(data.X[:, 1] - VALUES, round((data.X[:, 1] - VALUES).mean()), atol=0.006)


@pytest.mark.parametrize(
    "write",
    [
        lambda v: f"({abs(v):.2f})" if v < 0 else f"{v:.2f}",  # as in accounts
        lambda v: f"{abs(v):.2f}-" if v < 0 else f"{v:.2f}",  # a sign behind
        lambda v: f"{v:.1f}%" if v > 0 else f"{v / 100:.3f}",
        lambda v: f"${v:.2f}" if v > 0 else f"€{v:.2f}",
        lambda v: f"{abs(v):.0f} g" if abs(v) < 500 else f"{abs(v) / 1000:.2f} kg",
        lambda v: f"{v:.1f}" if v > -900 else "n.d.",
    ],
)
def test_mixed_notations_are_refused_with_an_example(read, write):
    with pytest.raises(InvalidInputError, match=r"column 'x': '.*' is not a number") as err:
        read([write(v) for v in VALUES])
    assert "line " in str(err.value)


# Words for missing cells.
@pytest.mark.parametrize(
    "word", ["", "N/A", "n/a", "None", "<NA>", "#N/A", "-", "NA", "NULL", "NaT", "..", ".", "--", "#DIV/0!", "missing"]
)
def test_missing_numbers_are_filled_with_an_indicator(read, word, tmp_path):
    cells = [word if i % 3 else f"{v:.4f}" for i, v in enumerate(VALUES)]  # in most rows
    data, schema = read(cells)
    assert data.feature_names == ("other", "x", "x (missing)")
    known = np.arange(40) % 3 == 0
    median = np.median(data.X[known, 1])
    assert (data.X[~known, 1] == median).all() and (data.X[:, 2] == ~known).all()
    assert "26 missing cells became the median" in schema.describe()[-1]
    with pytest.raises(InvalidInputError, match="26 such cells"):
        read(cells, missing="error")
    dropped, _ = read(cells, missing="drop")
    assert dropped.feature_names == ("other", "x") and len(dropped.y) == 14
    new = tmp_path / "new.csv"
    new.write_text("x,other\nNULL,1\n2.5,1\n")
    np.testing.assert_array_equal(read_features(new, schema), [[1, median, 1], [1, 2.5, 0]])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["red", "N/A", "green"], ["(missing)", "green", "red"]),
        (["red", "<NA>", ""], ["(missing)", "red"]),
        (["NA", "ZA", "BW"], ["BW", "NA", "ZA"]),
        (['"NA"', '"ZA"', '"BW"'], ["BW", "NA", "ZA"]),
        (["None", "light", "heavy"], ["None", "heavy", "light"]),
        (["-", "+", "+"], ["+", "-"]),
        (["inf", "sup", "max"], ["inf", "max", "sup"]),
        (["True", "TRUE", "False"], ["False", "TRUE", "True"]),
        (["10-20", "20-30", "30+"], ["10-20", "20-30", "30+"]),
        (["1.2.3", "1.2.4", "1.10.0"], ["1.10.0", "1.2.3", "1.2.4"]),
        (["007", "7", "07"], ["007", "07", "7"]),
        (["00501", "10001", "02134"], ["00501", "02134", "10001"]),
        ([str(2**53 + i) for i in range(3)], [str(2**53 + i) for i in range(3)]),
        (["Q1", "Q2", "Q3"], ["Q1", "Q2", "Q3"]),
        (["12A", "12B", "3C"], ["12A", "12B", "3C"]),
        (["1st", "2nd", "3rd"], ["1st", "2nd", "3rd"]),
    ],
)
def test_texts_stay_categories(read, texts, expected):
    data, _ = read(texts * 14)
    assert data.feature_names == ("other", *(f"x={text}" for text in expected))


def test_words_of_the_user_mean_missing(read):
    cells = ["-999" if i == 3 else "-999.0" if i == 5 else "k.A." if i == 9 else f"{i}.5" for i in range(40)]
    data, _ = read(cells, notation=Notation(na=("-999", "k.A.")))
    assert np.flatnonzero(data.X[:, 2]).tolist() == [3, 5, 9]


# Labels are texts.
@pytest.mark.parametrize(
    "labels",
    [
        ["007", "7"],
        ["1e5", "100000"],
        [str(2**53), str(2**53 + 1), str(2**53 + 2)],
        ["1", "01", "1.0"],
        ["+1", "1"],
        ["0", "-0"],
        ["10", "1e1", "10.0"],
        ["None", "no"],
        ["-", "+"],
        ["True", "true"],
        ["NA", "ZA"],
    ],
)
def test_labels_that_differ_as_texts_are_other_labels(read, labels, tmp_path):
    target = (labels * 40)[:40]
    data, schema = read(VALUES.round(3), target)
    assert data.classes is not None and set(data.classes) == set(labels)
    assert [data.classes[code] for code in data.y] == target
    new = tmp_path / "new.csv"
    new.write_text("goal\n" + "\n".join(reversed(labels)) + "\n")
    assert [data.classes[c] for c in read_target(new, schema, data.classes)] == labels[::-1]


def test_versions_are_labels_when_asked(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("a,v\n" + "".join(f"{i * i},{('1.1', '1.10', '1.2')[i % 3]}\n" for i in range(30)))
    assert read_training_csv(path, "v", task="classification")[0].classes == ("1.1", "1.10", "1.2")
    data, schema = read_training_csv(path, "v")
    assert data.task == "regression" and "numbers" in schema.describe()[0]


@pytest.mark.parametrize("word", ["", "<NA>", "nan", "N/A"])
def test_rows_without_a_label_are_left_out_and_told(read, word):
    data, schema = read(VALUES.round(3), ["yes", "no", "no", word] * 10)
    assert data.classes == ("no", "yes") and len(data.y) == 30
    assert schema.describe()[0] == "left out without a target: 10 rows."


def test_labels_that_may_mean_missing_are_told(read):
    _, schema = read(VALUES.round(3), ["yes", "no", "None", "no"] * 10)
    assert "'None' is one of them; --na None" in schema.describe()[0]
    data, schema = read(VALUES.round(3), ["yes", "no", "None", "no"] * 10, notation=Notation(na=("None",)))
    assert data.classes == ("no", "yes") and "10 rows" in schema.describe()[0]
    data, _ = read(VALUES.round(3), ["1", "0", "None", "<NA>"] * 10)  # numbers and None of pandas
    assert data.classes == ("0", "1") and len(data.y) == 20


# The same normal form at prediction.
@pytest.mark.parametrize(
    ("known", "later", "place"),
    [
        (["1", "2"], "1.0", 0),
        (["1.0", "2.0"], "2", 1),
        (["1", "1.0"], "1.0", 1),
        (["1", "1.0"], "1.00", -1),  # either could be meant
        (["7"], "007", -1),
        (["1.1"], "1.10", -1),
        (["100000"], "1e5", -1),
        (["9007199254740993"], "9007199254740993.0", 0),
        (["9007199254740993"], "9007199254740992", -1),
        (["-3"], "-3.0", 0),
        (["a"], "A", -1),
    ],
)
def test_labels_are_found_again(known, later, place):
    assert find({label: code for code, label in enumerate(known)}, later) == place


def test_numeric_categories_are_the_same_later(read, tmp_path):
    _, schema = read([1, 2, 3, 2] * 10, choices=(("x", "categorical"),))
    new = tmp_path / "new.csv"
    new.write_text("other,x\n0,1.0\n0,3\n")
    np.testing.assert_array_equal(read_features(new, schema)[:, 1:], [[1, 0, 0], [0, 0, 1]])


def test_feature_names_are_unique(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{'xy'[i % 2]},{i}.5,{'' if i == 3 else i}.5,{i % 3}.25,{i}.1" for i in range(9)]
    path.write_text("c,c=x,d,d (missing),goal\n" + "\n".join(row.replace(",.5", ",") for row in rows) + "\n")
    names = read_training_csv(path, "goal")[0].feature_names
    assert names == ("c=x", "c=y", "c=x (2)", "d", "d (missing)", "d (missing) (2)")


# Dates.
@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%b %d %Y", "%B %d; %Y", "%d-%b-%Y", "%d %b %Y",
     "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M", "%d.%m.%Y %H:%M"],
)  # fmt: skip
def test_dates_become_days(read, form, tmp_path):
    import datetime

    dates = [datetime.datetime.fromisoformat(day) for day in DAYS]
    data, schema = read([date.strftime(form.replace(";", ",")) for date in dates])
    near(data, [(date - datetime.datetime(1970, 1, 1)).days for date in dates])
    new = tmp_path / "new.csv"
    new.write_text(f'other,x\n1,"{datetime.datetime(1970, 1, 3).strftime(form.replace(";", ","))}"\n1,\n')
    np.testing.assert_array_equal(read_features(new, schema)[:, 1], [2, np.median(data.X[:, 1])])


def test_ambiguous_dates_need_their_format(read):
    cells = [f"{1 + i % 12:02d}/{1 + 3 * i % 7:02d}/2024" for i in range(40)]
    with pytest.raises(InvalidInputError, match=r"%m/%d/%Y and %d/%m/%Y.*--datetime"):
        read(cells)
    first, _ = read(cells, choices=(("x", "datetime=%d/%m/%Y"),))
    second, _ = read(cells, choices=(("x", "datetime=%m/%d/%Y"),))
    assert first.X[0, 1] == second.X[0, 1] and first.X[1, 1] != second.X[1, 1]


def test_compact_dates_and_times_of_the_day(read):
    data, _ = read([day.replace("-", "") for day in DAYS], choices=(("x", "datetime=%Y%m%d"),))
    assert data.X[0, 1] == 19723
    data, _ = read([f"{i % 24:02d}:30" for i in range(40)])
    assert data.X[13, 1] == 13.5 / 24


# Identifiers.
@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("id", [str(842302 + 17 * i * i) for i in range(40)]),
        ("Patient_ID", [str(900 - i) for i in range(40)]),
        ("", [str(i) for i in range(40)]),
        ("Unnamed: 0", [str(i) for i in range(40)]),
        ("row", [str(i + 1) for i in range(40)]),
        ("rownames", [str(i + 1) for i in range(40)]),
        ("name", [f"car {i}" for i in range(40)]),
        ("name", [f"car {i * 2 // 3}" for i in range(40)]),
        ("PassengerId", [str(900 - 3 * i) for i in range(40)]),
        ("hash", [f"{i * 7919:08x}a" for i in range(40)]),
        ("mail", [f"u{i}@x.org" for i in range(40)]),
        ("street", [f"{i} Main St" for i in range(40)]),
    ],
)
def test_identifiers_are_left_out_and_named(tmp_path, name, cells):
    path = tmp_path / "t.csv"
    rows = [f"{cell},{np.cos(5 * i):.4f},{np.sin(3 * i):.3f}" for i, cell in enumerate(cells)]
    path.write_text("\n".join([f"{name},other,goal", *rows]))
    data, schema = read_training_csv(path)
    assert data.feature_names == ("other",) and f"column '{name or 'column 1'}': left out" in schema.describe()[1]
    new = tmp_path / "new.csv"
    new.write_text("other\n3\n")
    assert read_features(new, schema).tolist() == [[3.0]]  # the column is not needed
    kept, _ = read_training_csv(path, options=Options(choices=((name or "column 1", "keep"),)))
    assert kept.X.shape[1] >= 2


@pytest.mark.parametrize("cells", [[1950 + i for i in range(40)], [i * 37 % 101 for i in range(40)]])
def test_numbers_that_differ_in_each_row_stay(read, cells):
    near(read(cells)[0], cells)
    assert read(cells, choices=(("x", "drop"),))[0].feature_names == ("other",)


def test_faults_of_all_columns_come_in_one_error(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{i}.5,{'x' if i in (4, 9) else i},{'1_0' if i == 6 else i},{i % 2}" for i in range(20)]
    path.write_text("\n".join(["a,b,c,goal", *rows]))
    with pytest.raises(InvalidInputError) as err:
        read_training_csv(path)
    message = str(err.value)
    assert "3 cells of 2 columns" in message and "(line 6), column 'b'" in message and "(line 8), column 'c'" in message
    assert "(2 such cells)" in message and len(message) < 600


def test_a_column_without_any_value_is_left_out():
    column = describe("x", np.array(["", "NA", "-"], object), Notation())
    assert not column.left_out  # NA and - may be texts
    assert describe("x", np.array(["", "n/a"], object), Notation()).left_out
