"""Commands for a saved model and a CSV file: predict and certify."""

from __future__ import annotations

import io
import sys
from typing import Any

from jaxcvx.certificates.certify import certify
from jaxcvx.cli.artifacts import write_text
from jaxcvx.cli.model import load_model, outputs
from jaxcvx.cli.tabular import read_features, read_target, write_csv_column


def predict_file(model: str, path: str) -> list[Any]:
    """Predictions for each row of the file, in the original labels or units."""
    network, prep, _ = load_model(model)
    decided = prep.decide(outputs(network, prep, read_features(path, prep.schema)))
    if prep.classes is None:
        return [float(value) for value in decided]
    return [prep.classes[code] for code in decided]


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
    X = read_features(path, prep.schema)
    y = read_target(path, prep.schema, prep.classes)
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
