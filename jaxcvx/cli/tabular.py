"""Read CSV files as training data or as data for prediction, and write a column of results.

Reading is strict. A missing value, a row that is too short, a missing column, or a category that the training data did
not have could silently become a wrong number. Each of them is an error that names the position. Data rows are counted
from 1, below the header; line numbers are those of the file.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from jaxtyping import Float, Shaped

from jaxcvx.cli.csv_table import Table, listing, parse_number, quote, read_table
from jaxcvx.datasets import Dataset
from jaxcvx.errors import FileFormatError, InvalidInputError, invalid

MAX_CATEGORIES = 256
MAX_INTEGER_CLASSES = 20
MIN_ROWS = 4
Task = Literal["auto", "classification", "regression"]


@dataclasses.dataclass(frozen=True)
class Column:
    """A feature column of the training file.

    Attributes:
      name: name in the header.
      categories: the allowed values, sorted, one-hot coded in this order; None if the column is numeric.
    """

    name: str
    categories: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Schema:
    """The rule that turns rows of a file into rows of X. The training file decides it; all other files follow it.

    Attributes:
      columns: the feature columns, in the order of X.
      target: name of the target column, or None.
    """

    columns: tuple[Column, ...]
    target: str | None = None

    @classmethod
    def numeric(cls, names: Iterable[str], target: str | None = None) -> Schema:
        """The schema of numeric columns with these names, for example those of a bundled data set."""
        return cls(tuple(Column(name) for name in names), target)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the d columns of X: ``name``, or ``name=category`` for a one-hot column."""
        names: list[str] = []
        for column in self.columns:
            if column.categories is None:
                names.append(column.name)
            else:
                names.extend(f"{column.name}={category}" for category in column.categories)
        return tuple(names)

    def to_json(self) -> dict[str, Any]:
        """A dict for ``json.dumps``, from which ``from_json`` makes an equal schema."""
        columns = []
        for column in self.columns:
            categories = None if column.categories is None else list(column.categories)
            columns.append({"name": column.name, "categories": categories})
        return {"columns": columns, "target": self.target}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """The schema from which ``to_json`` made ``data``.

        Raises:
          FileFormatError: ``data`` does not have the form that ``to_json`` writes.
        """
        try:
            columns = []
            for item in data["columns"]:
                categories = item["categories"]
                texts = [item["name"], *(categories or ())]
                if not all(isinstance(text, str) for text in texts):
                    raise TypeError("names and categories must be strings")
                columns.append(Column(item["name"], None if categories is None else tuple(categories)))
            target = data["target"]
            if not (target is None or isinstance(target, str)):
                raise TypeError("the target must be a string or null")
        except (KeyError, TypeError, AttributeError) as err:
            raise FileFormatError(f"not the description of a table's columns: {err!r}") from err
        return cls(tuple(columns), target)


def read_csv(path: str | os.PathLike[str], target: str | None = None, *, task: Task = "auto") -> Dataset:
    """Read a training table; ``read_training_csv`` also returns the schema that prediction needs.

    Args and errors are those of ``read_training_csv``.
    """
    return read_training_csv(path, target, task=task)[0]


def read_training_csv(
    path: str | os.PathLike[str], target: str | None = None, *, task: Task = "auto"
) -> tuple[Dataset, Schema]:
    """Read a CSV file (UTF-8, commas, a header line) as a data set and the schema of its columns.

    A feature column is numeric if all its cells are numbers; otherwise it is one-hot coded with sorted categories.
    ``task="auto"`` means classification for a target that is not numeric, and for a target of whole numbers with at
    most 20 distinct values and more than twice as many rows. Any other target means regression.

    Args:
      path: the file.
      target: name of the target column; None takes the last one.
      task: "auto", "classification" or "regression".

    Returns:
      The data set, X of shape (n, d), and its schema.

    Raises:
      FileFormatError: as for ``read_table``; a column without a name.
      InvalidInputError: unknown target, no feature column, missing or infinite values, a mistyped number, more than
        ``MAX_CATEGORIES`` categories, fewer than four rows, a target with only one value.
    """
    if task not in ("auto", "classification", "regression"):
        raise invalid("task", repr(task), "'auto', 'classification' or 'regression'")
    table = read_table(path)
    for position, name in enumerate(table.header):
        if not name:
            raise FileFormatError(
                f"{table.name}: column {position + 1} has no name. If it is a row index, leave it out."
            )
    target = table.header[-1] if target is None else target
    if target not in table.positions:
        raise InvalidInputError(f"target: {table.name} has no column {quote(target)}; it has {listing(table.header)}.")
    feature_names = [name for name in table.header if name != target]
    if not feature_names:
        raise InvalidInputError(f"{table.name}: no feature column is left beside the target {quote(target)}.")
    if len(table.rows) < MIN_ROWS:
        got = len(table.rows)
        raise InvalidInputError(f"{table.name}: got {got} data rows, expected at least {MIN_ROWS}.")

    schema = Schema(tuple(_describe(table, name) for name in feature_names), target)
    y, classes = _targets(table, target, task)
    X = _features(table, schema)
    kind: Literal["classification", "regression"] = "regression" if classes is None else "classification"
    return Dataset(Path(path).stem, X, y, kind, schema.feature_names, classes), schema


def read_features(path: str | os.PathLike[str], schema: Schema) -> Float[np.ndarray, "n d"]:
    """Read the features of a file by the schema of the training data.

    The columns may have any order, with or without the target. Columns that the schema does not name are ignored.

    Args:
      path: the file, with at least one data row.
      schema: the schema of the training data.

    Returns:
      X of shape (n, d), float64, in the order of the file's rows.

    Raises:
      FileFormatError: as for ``read_table``.
      InvalidInputError: missing columns (the message names them), missing or infinite values, text in a numeric
        column, a category that the training data did not have.
    """
    return _features(read_table(path), schema)


def read_target(
    path: str | os.PathLike[str], schema: Schema, classes: Sequence[str] | None
) -> Shaped[np.ndarray, " n"]:
    """Read the target column of a file by the schema and the classes of the training data.

    Args:
      path: the file.
      schema: the schema of the training data, whose ``target`` names the column.
      classes: labels of the training data; None for regression.

    Returns:
      (n,) int64 indices into ``classes``, or (n,) float64 values for regression. Labels that are numbers are compared
      by value: "1.0" matches the class "1".

    Raises:
      FileFormatError: as for ``read_table``.
      InvalidInputError: no target column, missing or infinite values, an unknown label, text instead of a number.
    """
    table = read_table(path)
    if schema.target is None or schema.target not in table.positions:
        wanted = "a target column" if schema.target is None else f"the target column {quote(schema.target)}"
        raise InvalidInputError(f"{table.name}: {wanted} is needed; the file has {listing(table.header)}.")
    cells = table.column(schema.target)
    if classes is None:
        return table.numbers(schema.target)
    codes: dict[str | float, int] = {}
    for code, label in enumerate(classes):
        codes[label] = code
        value = parse_number(label)
        if value is not None:
            codes.setdefault(value, code)
    indices = np.empty(len(cells), np.int64)
    for row, cell in enumerate(cells):
        value = parse_number(cell)
        known = codes.get(cell, -1 if value is None else codes.get(value, -1))
        if known < 0:
            raise InvalidInputError(
                f"{table.place(row, schema.target)}: unknown label {quote(cell)};"
                f" the model knows {listing(classes, 'the classes')}."
            )
        indices[row] = known
    return indices


def write_csv_column(stream: TextIO, name: str, values: Iterable[object]) -> None:
    """Write a header ``name`` and one line for each value, with quotes if CSV needs them.

    Args:
      stream: a text stream.
      name: name of the column.
      values: the values. They are written by ``str``, so floats are read back exactly.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name])
    for value in values:
        writer.writerow([str(value)])


def _describe(table: Table, name: str) -> Column:
    """The coding of a feature column: numeric, or one-hot with categories."""
    if table.is_numeric(name):
        return Column(name)
    categories = sorted(set(table.column(name)))
    if len(categories) > MAX_CATEGORIES:
        raise InvalidInputError(
            f"{table.name}, column {quote(name)}: {len(categories)} different texts, expected at most"
            f" {MAX_CATEGORIES} categories. Drop the column if it names the rows."
        )
    return Column(name, tuple(categories))


def _features(table: Table, schema: Schema) -> Float[np.ndarray, "n d"]:
    """X of shape (n, d) from the columns that the schema names."""
    missing = [column.name for column in schema.columns if column.name not in table.positions]
    if missing:
        raise InvalidInputError(f"{table.name}: missing {listing(missing)}. It has {listing(table.header)}.")
    blocks: list[np.ndarray] = []
    for column in schema.columns:
        if column.categories is None:
            blocks.append(table.numbers(column.name)[:, None])
            continue
        cells = table.column(column.name)
        codes = {category: code for code, category in enumerate(column.categories)}
        block = np.zeros((len(cells), len(codes)))
        for row, cell in enumerate(cells):
            if cell not in codes:
                raise InvalidInputError(
                    f"{table.place(row, column.name)}: category {quote(cell)} is not in the training data,"
                    f" which has {listing(column.categories, 'the categories')}."
                )
            block[row, codes[cell]] = 1.0
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def _targets(table: Table, name: str, task: Task) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Codes and labels, or values and None."""
    cells = table.column(name)
    subject, only_value = f"{table.name}: the target {quote(name)}", quote(cells[0])
    values: np.ndarray | None = None
    if task == "regression" or (task == "auto" and table.is_numeric(name)):
        values = table.numbers(name)
    elif task == "classification" and all(parse_number(cell) is not None for cell in cells):
        values = table.numbers(name)
    if values is not None and task != "classification":
        distinct = np.unique(values)
        few = distinct.size <= MAX_INTEGER_CLASSES and len(cells) > 2 * distinct.size
        if task == "regression" or not (few and np.all(distinct == np.round(distinct))):
            if distinct.size < 2:
                raise InvalidInputError(f"{subject} is {only_value} in every row.")
            return values, None
    # Numeric labels of equal value form one class, which keeps the first spelling.
    spelling: dict[Any, str] = {}
    keys: list[Any] = cells if values is None else values.tolist()
    for key, cell in zip(keys, cells, strict=True):
        spelling.setdefault(key, cell)
    order = sorted(spelling)
    if len(order) < 2:
        raise InvalidInputError(f"{subject} has only one class, {only_value}.")
    if len(order) == len(cells):
        raise InvalidInputError(f"{subject} has a different label in every row.")
    codes = {key: code for code, key in enumerate(order)}
    return np.array([codes[key] for key in keys], np.int64), tuple(spelling[key] for key in order)
