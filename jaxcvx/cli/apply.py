"""Commands for a saved model and a CSV file: predict and certify."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from jaxcvx.certificates.certify import certify
from jaxcvx.cli.artifacts import write_text
from jaxcvx.cli.model import load_model, outputs
from jaxcvx.cli.tabular import read_labelled, read_rows


def predict_file(model: str, path: str) -> tuple[list[Any], list[str]]:
    """Predictions for each row of the file, in the original labels or units, and notes on cells that were filled."""
    network, prep, _ = load_model(model)
    X, notes = read_rows(path, prep.schema)
    decided = prep.decide(outputs(network, prep, X))
    if prep.classes is None:
        return [float(value) for value in decided], notes
    return [prep.classes[code] for code in decided], notes


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


def write_predictions(values: list[Any], output: str | None) -> None:
    """Write a CSV with one column, `prediction`, to a file, or to standard output if ``output`` is None."""
    if output is None:
        write_csv_column(sys.stdout, "prediction", values)
        return
    text = io.StringIO()
    write_csv_column(text, "prediction", values)
    write_text(output, text.getvalue())


def certify_file(model: str, path: str, method: str) -> dict[str, Any]:
    """Certificate of a saved model for the training problem on the rows of this file, as plain numbers."""
    network, prep, _ = load_model(model)
    X, y = read_labelled(path, prep.schema, prep.classes)
    certificate = certify(network, prep.inputs(X), prep.targets(y), prep.beta, loss=prep.loss, method=method)
    return {
        "upper": float(certificate.upper),
        "lower": float(certificate.lower),
        "gap": float(certificate.gap),
        "scope": certificate.scope,
        "beta": prep.beta,
        "rows": len(y),
        "metrics": prep.metrics(outputs(network, prep, X), y),
    }
