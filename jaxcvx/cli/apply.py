"""Commands for a saved model: predict, and certify with or without a data file."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple, TextIO

import numpy as np

from jaxcvx.atomic_file import write_text
from jaxcvx.certificates.certify import certify
from jaxcvx.cli.model import ROWS, Preprocessing, fingerprint, load_model, load_rows, outputs
from jaxcvx.cli.report import describe_certificate
from jaxcvx.cli.tabular import read_labelled, read_rows, read_texts
from jaxcvx.errors import FileFormatError, invalid
from jaxcvx.networks.network import Network, training_objective
from jaxcvx.status import CallbackFunction

_SAME = 1e-9  # relative difference of two computations of one objective


class Predictions(NamedTuple):
    """The predictions of a file, as columns.

    Attributes:
      columns: the values of each column of the output, by its name.
      notes: sentences on cells that were filled.
    """

    columns: dict[str, list[Any]]
    notes: list[str]


def predict_file(model: str, path: str, *, proba: bool = False, ids: str | None = None) -> Predictions:
    """Predictions for each row of the file, in the original labels or units.

    Args:
      model: the model's file or directory.
      path: the data file.
      proba: add a column for the probability of each class.
      ids: a column of the file whose texts come first.

    Raises:
      InvalidInputError: the model has no probabilities; the file has no such column, or does not fit the model.
      FileFormatError: a file cannot be read.
    """
    network, prep, _ = load_model(model)
    X, notes = read_rows(path, prep.schema)
    F = outputs(network, prep, X)
    columns: dict[str, list[Any]] = {}
    if ids is not None:
        columns[ids] = read_texts(path, prep.schema, ids)
    decided = prep.decide(F)
    labels = prep.classes
    columns["prediction"] = decided.tolist() if labels is None else [labels[code] for code in decided]
    if proba:
        shares = prep.probabilities(F)
        if shares is None or labels is None:
            got = f"a model of {prep.task} with loss {prep.loss}"
            raise invalid("--proba", got, "a classifier with the loss logistic or softmax")
        columns |= {f"probability {label}": share for label, share in zip(labels, shares.T.tolist(), strict=True)}
    return Predictions(columns, notes)


def write_csv_columns(stream: TextIO, columns: dict[str, Iterable[object]]) -> None:
    """Write a header and one line for each row, with quotes if CSV needs them.

    Args:
      stream: a text stream.
      columns: values by name. They are written by ``str``, so floats are read back exactly.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([str(value) for value in row])


def write_predictions(columns: dict[str, Any], output: str | None) -> None:
    """Write a CSV to a file, or to standard output if ``output`` is None."""
    if output is None:
        write_csv_columns(sys.stdout, columns)
        return
    text = io.StringIO()
    write_csv_columns(text, columns)
    write_text(output, text.getvalue())


def certify_model(
    model: str,
    path: str | None,
    *,
    method: str = "auto",
    seconds: float = 60.0,
    tol: float = 1e-2,
    as_training_data: bool = False,
    callback: CallbackFunction | None = None,
) -> dict[str, Any]:
    """What is known about a saved model on its training rows, or on the rows of a file, as plain numbers.

    The stored certificate is checked: the rows must have its fingerprint, and the objective is computed anew. Then its
    bound is proved anew for ``seconds``; the better bound counts. Other rows than those of training get loss and
    accuracy only, unless ``as_training_data``.

    Args:
      model: the model's file or directory.
      path: a data file with features and target, or None for the training rows beside the model.
      method: as for ``jaxcvx.certify``.
      seconds: time of the proof; 0 only checks.
      tol: relative gap at which the proof ends.
      as_training_data: bound the objective on the file's rows whatever the model was trained on.
      callback: told of the proof.

    Raises:
      FileFormatError: a file cannot be read; the stored certificate is not that of these rows and weights.
    """
    network, prep, metadata = load_model(model)
    stored, known = metadata.get("certificate"), metadata.get("rows")
    folder = model if os.path.isdir(model) else os.path.dirname(model)
    if path is None:
        X, y = load_rows(os.path.join(folder, ROWS))
        if fingerprint(X, y) != known:
            raise FileFormatError(f"{os.path.join(folder, ROWS)}: these are not the rows that {model} was trained on.")
    else:
        X, y = read_labelled(path, prep.schema, prep.classes)
    trained_on = fingerprint(X, y) == known
    inputs, targets = prep.inputs(X), prep.targets(y)
    value = float(training_objective(network, inputs, targets, prep.beta, loss=prep.loss))
    numbers: dict[str, Any] = {
        "rows": len(y),
        "training_data": trained_on,
        "beta": prep.beta,
        "objective": value,
        "loss": prep.loss,
        "mean_loss": mean_loss(network, prep, value, len(y)),
        "metrics": prep.metrics(outputs(network, prep, X), y),
    }
    if not (trained_on or as_training_data):
        return numbers
    if trained_on and stored and abs(stored["upper"] - value) > _SAME * abs(value):
        raise FileFormatError(f"{model}: its certificate has the objective {stored['upper']}, the weights {value}.")
    found = dict(stored) if trained_on and stored else None
    if seconds > 0 and not (found and found["gap"] is not None and found["gap"] <= 1e-6):
        fresh = describe_certificate(
            certify(
                network,
                inputs,
                targets,
                prep.beta,
                loss=prep.loss,
                method=method,
                tol=tol,
                max_seconds=seconds,
                callback=callback,
            )
        )
        if found is None or found["lower"] is None or fresh["lower"] >= found["lower"]:
            found = fresh
    return numbers | (found or {"upper": value, "lower": None, "gap": None, "scope": "none"})


def mean_loss(network: Network, prep: Preprocessing, objective: float, n: int) -> float:
    """The loss per row: the training objective without its penalty, over the n rows."""
    squares = sum(float((np.asarray(a) ** 2).sum()) for a in (network.hidden, network.output))
    return (objective - 0.5 * prep.beta * squares) / n


def describe(numbers: dict[str, Any], path: str | None) -> list[str]:
    """The lines that ``jaxcvx certify`` prints."""
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in numbers["metrics"].items())
    where = "the training rows" if numbers["training_data"] else f"{path}, which is another data set"
    lines = [f"{numbers['rows']} rows of {where}: mean {numbers['loss']} loss {numbers['mean_loss']:.6g}, {metrics}."]
    if "sentence" in numbers:
        lines.append(numbers["sentence"])
    elif "scope" in numbers:
        lines.append(f"The training objective is {numbers['objective']:.6g}; nothing is proved yet.")
    else:
        lines.append("The certificate is about the training rows: leave out the file, or add --as-training-data.")
    return lines
