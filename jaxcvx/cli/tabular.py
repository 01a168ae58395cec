"""Read files as training data or as data for prediction by one schema, which tells what was done to every column.

Data rows are counted from 1, below the header; line numbers are those of the file. docs/data.md has the rules.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from jaxcvx.cli.columns import Column, Unfit, describe, doubts, find
from jaxcvx.cli.csv_table import Table, count, listing, quote, read_table
from jaxcvx.cli.notation import NUMBER, Notation, are_codes
from jaxcvx.datasets import Dataset
from jaxcvx.errors import FileFormatError, InvalidInputError, invalid

MAX_INTEGER_CLASSES = 20
MIN_ROWS = 4
TARGETS = ("target", "class", "label", "outcome", "response")
Task = Literal["auto", "classification", "regression"]


@dataclasses.dataclass(frozen=True)
class Options:
    """The user's words on how to read a file.

    Attributes:
      notation: decimal mark, thousands separator and words for missing values.
      missing: "impute", "error" or "drop", which leaves out the rows with missing cells.
      header: the first row holds the names.
      choices: pairs of a column and "drop", "keep", "categorical", "datetime" or "datetime=FORMAT".
    """

    notation: Notation = Notation()
    missing: str = "impute"
    header: bool = True
    choices: tuple[tuple[str, str], ...] = ()

    def read(self, path: str | os.PathLike[str]) -> Table:
        """The table of a file."""
        return read_table(path, header=self.header, decimal=self.notation.decimal)


@dataclasses.dataclass(frozen=True)
class Schema:
    """The rule that turns rows of a file into rows of X. The training file decides it; all other files follow it.

    Attributes:
      columns: the columns beside the target, in the order of X; some may be left out.
      target: name of the target column, or None.
      options: how files are read.
      notes: sentences on what was done to the file and to the target.
      point: the target has a decimal point whatever the options say.
    """

    columns: tuple[Column, ...]
    target: str | None = None
    options: Options = Options()
    notes: tuple[str, ...] = ()
    point: bool = False

    @classmethod
    def numeric(cls, names: Iterable[str], target: str | None = None) -> Schema:
        """The schema of numeric columns with these names, for example those of a bundled data set."""
        return cls(tuple(Column(name) for name in names), target)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the d columns of X: ``name``, or ``name=category`` where one-hot coded, numbered if repeated."""
        names: dict[str, None] = {}
        for name in (name for column in self.columns for name in column.feature_names):
            copies = (f"{name} ({copy})" if copy > 1 else name for copy in range(1, len(names) + 2))
            names[next(unused for unused in copies if unused not in names)] = None
        return tuple(names)

    def describe(self) -> list[str]:
        """A sentence for the file, the target and every column on what was done to it."""
        return [*self.notes, *(f"column {quote(c.name)}: {c.note}." for c in self.columns if c.note)]

    def to_json(self) -> dict[str, Any]:
        """A dict for ``json.dumps``, from which ``from_json`` makes an equal schema."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """The schema from which ``to_json`` made ``data``, also that of version 0.1, which had fewer fields.

        Raises:
          FileFormatError: ``data`` does not have the form that ``to_json`` writes.
        """
        try:
            columns = []
            for item in data["columns"]:
                levels, affixes = item["categories"], item.get("affixes", ("", ""))
                texts = [item["name"], *(levels or ()), *affixes, item.get("format") or "", item.get("note", "")]
                if not all(isinstance(text, str) for text in texts) or len(affixes) != 2:
                    raise TypeError("names and categories must be strings")
                levels = None if levels is None else tuple(levels)
                columns.append(Column(**{**item, "categories": levels, "affixes": tuple(affixes)}))
            options = dict(data.get("options", {}))
            notation = dict(options.pop("notation", {}))
            notation["na"] = tuple(notation.get("na", ()))
            options["choices"] = tuple((name, choice) for name, choice in options.get("choices", ()))
            if not isinstance(data["target"], str | None):
                raise TypeError("the target must be a string or null")
            read = Options(Notation(**notation), **options)
            return cls(tuple(columns), data["target"], read, tuple(data.get("notes", ())), bool(data.get("point")))
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise FileFormatError(f"not the description of a table's columns: {err!r}") from err


def read_csv(path: str | os.PathLike[str], target: str | None = None, *, task: Task = "auto") -> Dataset:
    """Read a training table; ``read_training_csv`` also returns the schema that prediction needs."""
    return read_training_csv(path, target, task=task)[0]


def read_training_csv(
    path: str | os.PathLike[str], target: str | None = None, *, task: Task = "auto", options: Options = Options()
) -> tuple[Dataset, Schema]:
    """Read a file as a data set and the schema of its columns. Rows without a target are left out.

    ``task="auto"`` means classification for a target that is not numeric, and for a target of whole numbers with at
    most 20 distinct values and more than twice as many rows. Any other target means regression. Labels are texts.

    Args:
      path: the file.
      target: name of the target column; None takes the first that is named like one (``TARGETS``), else the last.
      task: "auto", "classification" or "regression".
      options: how the file is read.

    Returns:
      The data set, X of shape (n, d), and its schema.

    Raises:
      FileFormatError: as for ``read_table``.
      InvalidInputError: an unknown column, no feature column, cells that cannot be read (one message on all columns),
        fewer than four rows, a target with only one value.
    """
    if task not in ("auto", "classification", "regression"):
        raise invalid("task", repr(task), "'auto', 'classification' or 'regression'")
    table = options.read(path)
    if target is None:
        target = next((name for name in table.cells if name.strip().lower() in TARGETS), list(table.cells)[-1])
    for name, option in (
        (target, "target"),
        *((name, f"--{choice.partition('=')[0]}") for name, choice in options.choices),
    ):
        if name not in table.cells:
            raise InvalidInputError(
                f"{option}: {table.name} has no column {quote(name)}; it has {listing(list(table.cells))}."
            )
    target_column = _target_column(table, target, task, options)
    names = [name for name in table.cells if name != target]
    columns, notes = _columns(table, names, options), table.notes
    rest, notes = _complete(table, target_column, columns, options)
    if len(rest.lines) < MIN_ROWS:
        raise InvalidInputError(f"{table.name}: got {len(rest.lines)} data rows, expected at least {MIN_ROWS}.")
    if len(rest.lines) < len(table.lines):
        table, columns = rest, _columns(rest, names, options)
    if all(column.left_out for column in columns):
        raise InvalidInputError(f"{table.name}: no feature column is left beside the target {quote(target)}.")
    y, classes = _targets(table, target_column, options)
    told = "numbers" if classes is None else listing(classes, f"{len(classes)} classes")
    told += doubts(classes or ())
    schema = Schema(tuple(columns), target, options, (*notes, f"target {quote(target)}: {told}."), target_column.point)
    X, _ = _features(table, schema)
    kind: Literal["classification", "regression"] = "regression" if classes is None else "classification"
    return Dataset(Path(path).name.split(".")[0], X, y, kind, schema.feature_names, classes), schema


def read_features(path: str | os.PathLike[str], schema: Schema) -> Float[np.ndarray, "n d"]:
    """Read the features of a file by the schema of the training data: the X of ``read_rows``."""
    return read_rows(path, schema)[0]


def read_rows(path: str | os.PathLike[str], schema: Schema) -> tuple[Float[np.ndarray, "n d"], list[str]]:
    """Read the features of a file by the schema of the training data.

    The columns may have any order, with or without the target. Columns that the schema does not name are ignored.

    Returns:
      X of shape (n, d), float64, in the order of the file's rows, and sentences on the missing cells that were filled.

    Raises:
      FileFormatError: as for ``read_table``.
      InvalidInputError: missing columns, missing values that training did not allow, infinite values, text in a
        numeric column, a category that the training data did not have. One message tells of all columns.
    """
    return _features(schema.options.read(path), schema)


def read_texts(path: str | os.PathLike[str], schema: Schema, name: str) -> list[str]:
    """The cells of one column of a file, as they are."""
    table = schema.options.read(path)
    if name not in table.cells:
        raise InvalidInputError(f"{table.name} has no column {quote(name)}; it has {listing(list(table.cells))}.")
    return [str(cell) for cell in table.cells[name]]


def read_labelled(
    path: str | os.PathLike[str], schema: Schema, classes: Sequence[str] | None
) -> tuple[Float[np.ndarray, "n d"], Shaped[np.ndarray, " n"]]:
    """Read features and targets. Rows that training would leave out are left out."""
    table = schema.options.read(path)
    column = _known_target(table, schema, classes)
    table, _ = _complete(table, column, schema.columns, schema.options)
    return _features(table, schema)[0], _codes(table, column, schema.options.notation)


def read_target(
    path: str | os.PathLike[str], schema: Schema, classes: Sequence[str] | None
) -> Shaped[np.ndarray, " n"]:
    """Read the target column of a file by the schema and the classes of the training data.

    Args:
      path: the file.
      schema: the schema of the training data, whose ``target`` names the column.
      classes: labels of the training data; None for regression.

    Returns:
      (n,) int64 indices into ``classes``, or (n,) float64 values for regression. A label is found by its text, and
      "1.0" also matches "1".

    Raises:
      FileFormatError: as for ``read_table``.
      InvalidInputError: no target column, missing or infinite values, an unknown label, text instead of a number.
    """
    table = schema.options.read(path)
    return _codes(table, _known_target(table, schema, classes), schema.options.notation)


def _known_target(table: Table, schema: Schema, classes: Sequence[str] | None) -> Column:
    if schema.target is None or schema.target not in table.cells:
        wanted = "a target column" if schema.target is None else f"the target column {quote(schema.target)}"
        raise InvalidInputError(f"{table.name}: {wanted} is needed; the file has {listing(list(table.cells))}.")
    return Column(schema.target, None if classes is None else tuple(classes), point=schema.point)


def _codes(table: Table, column: Column, notation: Notation) -> np.ndarray:
    """The values of the target, or the places of its labels."""
    cells = table.cells[column.name]
    if column.categories is None:
        try:
            return column.encode(cells, notation)[0][:, 0]
        except Unfit as err:
            raise _refusal(table, [(column.name, err)]) from err
    places = {label: code for code, label in enumerate(column.categories)}
    codes = np.array([find(places, cell) for cell in cells], np.int64)
    if (codes < 0).any():
        rows = np.flatnonzero(codes < 0)
        told = f"unknown label {quote(cells[rows[0]])}; the model knows {listing(column.categories, 'the classes')}"
        gone = notation.missing(cells[rows[0]], False)
        raise _refusal(table, [(column.name, Unfit("the value is missing" if gone else told, rows))])
    return codes


def _refusal(table: Table, faults: Sequence[tuple[str, Unfit]]) -> InvalidInputError:
    """One error on the cells of all columns."""
    parts = []
    for name, fault in faults[:5]:
        more = f" ({len(fault.rows)} such cells)" if len(fault.rows) > 1 else ""
        where = table.place(fault.rows[0], name) if fault.rows else f"{table.name}, column {quote(name)}"
        parts.append(f"{where}: {fault}{more}.")
    if len(faults) > 1:
        parts.insert(0, f"{sum(len(f.rows) for _, f in faults)} cells of {len(faults)} columns cannot be read.")
    more = f" And {listing([name for name, _ in faults[5:]])}." if len(faults) > 5 else ""
    return InvalidInputError(
        " ".join(parts) + more + " See --decimal, --thousands, --na, --missing, --categorical, --drop."
    )


def _columns(table: Table, names: Sequence[str], options: Options) -> list[Column]:
    """The descriptions of columns, or one error on all that cannot be read."""
    columns, faults, choices, refuse = [], [], dict(options.choices), options.missing == "error"
    for name in names:
        try:
            columns.append(describe(name, table.cells[name], options.notation, choices.get(name, ""), refuse))
        except Unfit as err:
            faults.append((name, err))
    if faults:
        raise _refusal(table, faults)
    if len(columns) == 1 and columns[0].left_out and not choices:  # the only column is a feature, not an identifier
        columns = [describe(names[0], table.cells[names[0]], options.notation, "keep", refuse)]
    return columns


def _features(table: Table, schema: Schema) -> tuple[Float[np.ndarray, "n d"], list[str]]:
    """X of shape (n, d) from the columns that the schema names, and notes on cells that were filled."""
    used = [column for column in schema.columns if not column.left_out]
    absent = [column.name for column in used if column.name not in table.cells]
    if absent:
        raise InvalidInputError(f"{table.name}: missing {listing(absent)}. It has {listing(list(table.cells))}.")
    blocks, faults, filled = [], [], {}
    for column in used:
        try:
            block, missing = column.encode(table.cells[column.name], schema.options.notation)
        except Unfit as err:
            faults.append((column.name, err))
            continue
        blocks.append(block)
        if missing.any():
            filled[column.name] = missing
    if faults:
        raise _refusal(table, faults)
    if not filled:
        return np.concatenate(blocks, axis=1), []
    rows, cells = np.any(list(filled.values()), axis=0).sum(), sum(int(gone.sum()) for gone in filled.values())
    note = f"{table.name}: {count(cells, 'missing cell')} in {rows} of {len(table.lines)} rows filled as in training:"
    return np.concatenate(blocks, axis=1), [f"{note} {listing(list(filled))}."]


def _target_column(table: Table, name: str, task: Task, options: Options) -> Column:
    """The target as a numeric column, or with its labels as categories."""
    cells, notation = table.cells[name], options.notation
    texts = {cell for cell in cells if not notation.missing(cell, True)}
    point = notation.fits_point(texts)
    notation = Notation() if point else notation
    plain = {text for text in texts if notation.affixes(text) == ("", "")}
    if task == "regression" or (task == "auto" and plain == texts and not are_codes(texts)):
        whole = all(notation.value(text).is_integer() for text in plain)
        few = whole and len(texts) <= MAX_INTEGER_CLASSES and len(cells) > 2 * len(texts)
        if task == "regression" or not few:
            return Column(name, point=point)
    elif task == "auto" and 2 * sum(cell in plain for cell in cells) > len(cells) and not are_codes(texts):
        return Column(name)
    numeric = bool(texts) and plain == texts
    labels = texts if numeric else {cell for cell in cells if not notation.missing(cell, False)}
    return Column(name, tuple(sorted(labels, key=lambda label: (notation.value(label) if numeric else 0.0, label))))


def _complete(
    table: Table, target: Column, columns: Sequence[Column], options: Options
) -> tuple[Table, tuple[str, ...]]:
    """The rows that have a target, and with ``--missing drop`` no missing cell; and notes on the others."""
    words = options.notation
    numeric = target.categories is None or all(map(NUMBER.fullmatch, target.categories))
    gone = np.array([words.missing(cell, numeric) for cell in table.cells[target.name]])
    if gone.any() and options.missing == "error":
        first = quote(table.cells[target.name][gone][0])
        raise _refusal(table, [(target.name, Unfit(f"the value is missing ({first})", np.flatnonzero(gone)))])
    notes = list(table.notes)
    if gone.any():
        notes.append(f"left out without a target: {count(int(gone.sum()), 'row')}.")
    if options.missing == "drop":
        masks = [c.encode(table.cells[c.name], words)[1] for c in columns if not c.left_out and c.name in table.cells]
        holes = np.any(masks, axis=0) & ~gone if masks else np.zeros_like(gone)
        notes += [f"left out for missing cells: {count(int(holes.sum()), 'row')}."] if holes.any() else []
        gone = gone | holes
    return (table.select(~gone) if gone.any() else table), tuple(notes)


def _targets(table: Table, column: Column, options: Options) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Codes and labels, or values and None."""
    cells = table.cells[column.name]
    y = _codes(table, column, options.notation)
    subject, first = f"{table.name}: the target {quote(column.name)}", quote(cells[0])
    if column.categories is None:
        if (y == y[0]).all():
            raise InvalidInputError(f"{subject} is {first} in every row.")
        return y, None
    labels, y = np.unique(y, return_inverse=True)  # labels of rows that are left out are no classes
    if len(labels) < 2:
        raise InvalidInputError(f"{subject} has only one class, {first}.")
    if len(labels) == len(cells):
        raise InvalidInputError(f"{subject} has a different label in every row.")
    return y.astype(np.int64), tuple(column.categories[label] for label in labels)
