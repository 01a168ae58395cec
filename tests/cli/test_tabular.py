"""CSV files: the data that are read, and the messages of refusals."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcvx.cli.apply import write_csv_columns
from jaxcvx.cli.columns import Column
from jaxcvx.cli.tabular import (
    Options,
    Schema,
    read_csv,
    read_features,
    read_target,
    read_training_csv,
)
from jaxcvx.datasets import load_dataset
from jaxcvx.errors import FileFormatError, InvalidInputError

FRUIT = """size,colour,kind
1.5,red,apple
2,green,pear
-3e-1,red,apple
4,blue,pear
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(content: str | bytes, name: str = "data.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def table(*columns: list[Any], header: str = "") -> str:
    """A file of these columns, called c0, c1, ... unless a header is given."""
    lines = [header or ",".join(f"c{i}" for i in range(len(columns)))]
    lines += [",".join(str(cell) for cell in row) for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


def test_numeric_and_categorical_columns(write: Any) -> None:
    data, schema = read_training_csv(write(FRUIT, "fruit.csv"), "kind")
    assert data.name == "fruit" and data.task == "classification" and data.classes == ("apple", "pear")
    assert data.feature_names == ("size", "colour=blue", "colour=green", "colour=red")
    expected = [[1.5, 0, 0, 1], [2, 0, 1, 0], [-0.3, 0, 0, 1], [4, 1, 0, 0]]
    np.testing.assert_array_equal(data.X, expected)
    assert data.X.dtype == np.float64 and data.y.dtype == np.int64
    np.testing.assert_array_equal(data.y, [0, 1, 0, 1])
    size, colour = schema.columns
    assert size.categories is None and size.fill == 1.75 and colour.categories == ("blue", "green", "red")
    assert schema.feature_names == data.feature_names


def test_target_anywhere_and_last_by_default(write: Any) -> None:
    path = write(FRUIT)
    first, schema = read_training_csv(path, "size")
    assert first.task == "regression" and first.y.dtype == np.float64 and first.classes is None
    np.testing.assert_array_equal(first.y, [1.5, 2, -0.3, 4])
    assert [column.name for column in schema.columns] == ["colour", "kind"]
    np.testing.assert_array_equal(read_csv(path).y, read_csv(path, "kind").y)


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["no", "yes"] * 5, "auto", ("no", "yes")),
        ([0, 1] * 5, "auto", ("0", "1")),
        (["10", "9", "10.0", "-1", "9"] * 2, "auto", ("-1", "9", "10", "10.0")),
        (["1.0", "2.0"] * 5, "auto", ("1.0", "2.0")),
        ([1, 2, 3, 4, 5] * 2, "auto", None),  # n = 2 * distinct
        ([1, 2, 3, 4, 4] * 2, "auto", ("1", "2", "3", "4")),
        (list(range(21)) * 3, "auto", None),  # more than 20 distinct values
        (list(range(20)) * 3, "auto", tuple(map(str, range(20)))),
        ([0.5, 1.5] * 5, "auto", None),
        ([0.5, 1.5] * 5, "classification", ("0.5", "1.5")),
        ([0, 1] * 5, "regression", None),
        (["3+", 1, 2, 1, 2], "classification", ("1", "2", "3+")),
    ],
)
def test_task_and_classes(write: Any, target: list[Any], task: Any, classes: tuple[str, ...] | None) -> None:
    path = write(table(list(range(len(target))), target))
    data, schema = read_training_csv(path, "c1", task=task)
    assert data.classes == classes
    assert data.task == ("regression" if classes is None else "classification")
    if classes is None:
        np.testing.assert_array_equal(data.y, [float(cell) for cell in target])
    elif isinstance(target[0], str) and "+" in target[0]:
        assert [classes[code] for code in data.y] == list(map(str, target))
    else:
        for cell, code in zip(target, data.y, strict=True):
            assert classes[code] == str(cell)
    np.testing.assert_array_equal(read_target(path, schema, classes), data.y)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + FRUIT.encode(),
        FRUIT.replace("\n", "\r\n").encode(),
        FRUIT.replace(",", " , ").encode(),
        FRUIT.encode() + b"\n\r\n",
        FRUIT.rstrip().encode(),
        FRUIT.replace("red", '"red"').replace("size", '"size"').encode(),
    ],
)
def test_harmless_variations(write: Any, content: bytes) -> None:
    data, schema = read_training_csv(write(content))
    reference, reference_schema = read_training_csv(write(FRUIT))
    np.testing.assert_array_equal(data.X, reference.X)
    assert schema == reference_schema and data.classes == reference.classes


def test_quoted_commas_and_unicode(write: Any) -> None:
    text = 'a,"x, y"\n1,"ä, ö"\n2,"ü\nnew line"\n3,"say ""hi"""\n4,"ä, ö"\n'
    data = read_csv(write(text))
    assert data.classes == ('say "hi"', "ä, ö", "ü\nnew line")


@pytest.mark.parametrize("value", ["", " ", "nan", "NaN", "Null", "?"])
@pytest.mark.parametrize("column", ["size", "colour", "kind"])
def test_missing_values_name_row_line_and_column(write: Any, value: str, column: str) -> None:
    cells = dict(zip(("size", "colour", "kind"), ("2", "green", "pear"), strict=True)) | {column: value}
    path = write(FRUIT.replace("2,green,pear", ",".join(cells.values())))
    with pytest.raises(InvalidInputError) as err:
        read_training_csv(path, options=Options(missing="error"))
    assert f"data row 2 (line 3), column '{column}': the value is missing" in str(err.value)


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999"])
def test_infinite_values(write: Any, value: str) -> None:
    with pytest.raises(InvalidInputError, match=r"data row 4 \(line 5\), column 'size'.*not a finite"):
        read_csv(write(FRUIT.replace("4,blue", f"{value},blue")))


def test_lines_count_quoted_line_breaks(write: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"data row 3 \(line 5\), column 'a'"):
        read_csv(write('a,b\n1,"x\ny"\n2,z\ninf,z\n4,z\n'))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ('""\n', "empty"),
        ("a,b\n", "no data row"),
        ("a,b\n\n\n", "no data row"),
        ("a,b,a,c,c\n1,2,3,4,5\n", "more than once in the header: 'a', 'c'"),
        ("a,b\n1,2\n3\n4,5\n", "line 3: 1 fields, expected 2"),
        ("a,b\n1,2\n3,4,5\n", "line 3: 3 fields, expected 2"),
        ("a,b\n1,2\n\n3,4\n", "line 3: 0 fields, expected 2"),
        ('a,b\n1,"x\n2"\n3\n', "line 4: 1 fields"),
        (b"a,b\n1,\xff\n", "line 2: byte 0xff is not UTF-8"),
        ("a,b\n1,\0\n", "line 2: a NUL byte"),
        ("a,b\n1," + "x" * 200_000 + "\n", "line 2: field larger"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3"),
        ('a,b\n1,"2"3\n', "line 2"),
    ],
)
def test_files_of_bad_form(write: Any, content: str | bytes, message: str) -> None:
    with pytest.raises(FileFormatError) as err:
        read_csv(write(content))
    assert message in str(err.value)
    assert len(str(err.value)) < 200 and "\n" not in str(err.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file: .*missing.csv"):
        read_csv(tmp_path / "missing.csv")
    with pytest.raises(FileFormatError, match="cannot read .*directory"):
        read_csv(tmp_path)
    with pytest.raises(FileFormatError, match="cannot read"):
        read_csv("nul\0byte")


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        (FRUIT, "taste", "has no column 'taste'; it has columns: 'size', 'colour', 'kind'"),
        (table(*[[1]] * 12), "x", "'c9' and 2 more"),
        ("a\n1\n2\n3\n4\n", "a", "no feature column"),
        (table([1, 2, 3], [0, 1, 0]), "c1", "got 3 data rows, expected at least 4"),
        (table([1, 2, 3, 4], ["a"] * 4), "c1", "only one class, 'a'"),
        (table([1, 2, 3, 4], [1] * 4), "c1", "only one class, '1'"),
        (table([1, 2, 3, 4], [1.5] * 4), "c1", "is '1.5' in every row"),
        (table([1, 2, 3, 4], list("abcd")), "c1", "different label in every row"),
        (table([1, 2, 3, "4.4.4"], [0, 1, 0, 1]), "c1", "(line 5), column 'c0': '4.4.4' is not a number"),
        (table([1, 2, 3, "1_000"], [0, 1, 0, 1]), "c1", "'1_000' is not a number"),
        (table([1, 2, 3, 4], [0.1, 0.2, "o.3", 0.4]), "c1", "(line 4), column 'c1': 'o.3' is not a number"),
    ],
)
def test_data_that_cannot_be_trained_on(write: Any, content: str, target: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as err:
        read_csv(write(content), target)
    assert message in str(err.value) and len(str(err.value)) < 300


def test_regression_by_request_needs_numbers(write: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"\(line 2\), column 'kind': 'apple' is not a number"):
        read_csv(write(FRUIT), "kind", task="regression")
    with pytest.raises(InvalidInputError, match="^task: got 'rank'"):
        read_csv(write(FRUIT), "kind", task="rank")  # type: ignore[arg-type]


def test_long_cells_are_cut_in_messages(write: Any) -> None:
    _, schema = read_training_csv(write(FRUIT))
    with pytest.raises(InvalidInputError) as err:
        read_features(write("size,colour\n1," + "x" * 10_000 + "\n", "new.csv"), schema)
    assert len(str(err.value)) < 300


@pytest.mark.parametrize(
    "content",
    [
        FRUIT,
        "colour,note,size,note2\nred,,1.5,?\ngreen,x,2,\nred,,-.3,\nblue,nan,4,inf\n",
        "kind,colour,size\n,red,1.5\n,green,2\n,red,-0.3\n,blue,4\n",
    ],
)
def test_features_again(write: Any, content: str) -> None:
    data, schema = read_training_csv(write(FRUIT))
    np.testing.assert_array_equal(read_features(write(content, "new.csv"), schema), data.X)


def test_one_row_and_absent_categories(write: Any) -> None:
    _, schema = read_training_csv(write(FRUIT))
    X = read_features(write("size,colour\n7,blue\n", "new.csv"), schema)
    np.testing.assert_array_equal(X, [[7, 1, 0, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("size\n1\n", "missing columns: 'colour'. It has columns: 'size'"),
        ("x\n1\n", "missing columns: 'size', 'colour'"),
        ("size,colour\n1,red\n2,pink\n", "data row 2 (line 3), column 'colour': category 'pink'"),
        ("size,colour\n1,red\nbig,red\n", "data row 2 (line 3), column 'size': 'big' is not a number"),
        ("size,colour\n1,red\ninf,red\n", "data row 2 (line 3), column 'size': 'inf' is not a finite"),
    ],
)
def test_features_that_do_not_fit_the_schema(write: Any, content: str, message: str) -> None:
    _, schema = read_training_csv(write(FRUIT))
    with pytest.raises(InvalidInputError) as err:
        read_features(write(content, "new.csv"), schema)
    assert message in str(err.value)


def test_structure_is_checked_for_features_too(write: Any) -> None:
    _, schema = read_training_csv(write(FRUIT))
    with pytest.raises(FileFormatError, match="no data row"):
        read_features(write("size,colour\n", "new.csv"), schema)


def test_target_of_new_data(write: Any) -> None:
    data, schema = read_training_csv(write(FRUIT))
    path = write("kind\npear\npear\napple\n", "new.csv")
    np.testing.assert_array_equal(read_target(path, schema, data.classes), [1, 1, 0])
    with pytest.raises(InvalidInputError, match=r"data row 3 \(line 4\), column 'kind': unknown label 'fig'"):
        read_target(write("kind\npear\npear\nfig\n", "new.csv"), schema, data.classes)
    with pytest.raises(InvalidInputError, match="column 'kind' is needed; the file has columns: 'a'"):
        read_target(write("a\n1\n", "new.csv"), schema, data.classes)
    with pytest.raises(InvalidInputError, match="a target column is needed"):
        read_target(path, Schema(schema.columns), data.classes)
    with pytest.raises(InvalidInputError, match="column 'kind': 'pear' is not a number"):
        read_target(write("kind\npear\n", "new.csv"), schema, None)


def test_numeric_labels_match_by_value(write: Any) -> None:
    schema = Schema.numeric(["a"], "y")
    codes = read_target(write("y\n1.0\n 2\n3.00\n"), schema, ("1", "2", "3"))
    np.testing.assert_array_equal(codes, [0, 1, 2])
    for other in ("1e0", "03", "1.5", "+1"):
        with pytest.raises(InvalidInputError, match="unknown label"):
            read_target(write(f"y\n1\n{other}\n"), schema, ("1", "2", "3"))
    np.testing.assert_array_equal(read_target(write("y\n1\n1.0\n"), schema, ("1", "1.0")), [0, 1])
    values = read_target(write("y\n1.5\n2\n"), schema, None)
    assert values.dtype == np.float64 and values.tolist() == [1.5, 2.0]


def test_schema_through_json(write: Any) -> None:
    _, schema = read_training_csv(write(FRUIT))
    back = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert back == schema and hash(back) == hash(schema)
    assert Schema.from_json(Schema.numeric(["a", "b"]).to_json()) == Schema((Column("a"), Column("b")), None)


def test_schema_of_an_older_model(write: Any) -> None:
    """Version 0.1 wrote names and categories only. Its models refuse missing cells, as they did."""
    columns = [{"name": "size", "categories": None}, {"name": "colour", "categories": ["blue", "red"]}]
    schema = Schema.from_json({"columns": columns, "target": "kind"})
    X = read_features(write("colour,size\nred,1\nblue,2\n"), schema)
    np.testing.assert_array_equal(X, [[1, 0, 1], [2, 1, 0]])
    with pytest.raises(InvalidInputError, match=r"2 cells of 2 columns.*'size': the value is missing"):
        read_features(write("colour,size\n,\n"), schema)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"columns": [], "target": 1},
        {"columns": [{"name": "a"}], "target": None},
        {"columns": [{"name": 1, "categories": None}], "target": None},
        {"columns": [{"name": "a", "categories": [1]}], "target": None},
        {"columns": 3, "target": None},
    ],
)
def test_schema_from_other_json(data: Any) -> None:
    with pytest.raises(FileFormatError, match="not the description"):
        Schema.from_json(data)


def test_bundled_data_through_a_file(write: Any) -> None:
    """Numbers written by repr come back bit for bit."""
    data = load_dataset("spiral")
    lines = [",".join([*data.feature_names, "y_true"])]
    lines += [f"{row[0]!r},{row[1]!r},{code}" for row, code in zip(data.X.tolist(), data.y, strict=True)]
    path = write("\n".join(lines))
    back, schema = read_training_csv(path)
    np.testing.assert_array_equal(back.X, data.X)
    np.testing.assert_array_equal(back.y, data.y)
    assert schema.feature_names == data.feature_names and schema.target == "y_true"


def test_write_csv_columns(write: Any) -> None:
    values = [np.float64(0.1) * 3, np.float32(0.1), 2, "a,b", 'say "x"', "", np.int64(5)]
    stream = io.StringIO()
    write_csv_columns(stream, {"prediction": values})
    assert stream.getvalue() == 'prediction\n0.30000000000000004\n0.1\n2\n"a,b"\n"say ""x"""\n""\n5\n'
    stream = io.StringIO()
    write_csv_columns(stream, {"y": [0.5, 1 / 3]})
    back = read_target(write(stream.getvalue()), Schema((), "y"), None)
    assert back.tolist() == [0.5, 1 / 3]


def test_paths_may_be_strings(write: Any) -> None:
    assert read_csv(os.fspath(write(FRUIT)), "kind").X.shape == (4, 4)
