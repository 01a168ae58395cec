"""Other methods on the same rows and folds: their numbers are those of plain calls."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcvx.cli.compare import compare
from jaxcvx.cli.pipeline import Settings, train
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import Dataset

pytest.importorskip("sklearn")


@pytest.mark.parametrize("classes", [None, ("no", "yes")])
def test_scores_are_those_of_the_folds(classes):
    from sklearn.linear_model import LogisticRegression, RidgeCV

    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    y = np.abs(X[:, 0]) if classes is None else (X[:, 0] > 0.3).astype(int)
    task = "regression" if classes is None else "classification"
    data = Dataset("d", X, y, task, ("a", "b"), classes)
    with jax.enable_x64(True):
        result = train(data, Schema.numeric(("a", "b"), "y"), Settings(beta=0.4, folds=2, prove=0.0))
        adam, *others = compare(result, 0)
    assert result.certificate.upper * (1 - 1e-4) <= adam["objective"] <= result.certificate.upper * 1.05
    assert [other["method"].split()[-1] for other in others] == ["(default)", "boosting", "model"]
    X, scores = result.split.prep.inputs(X), []
    for rows, test in result.folds:
        model = (RidgeCV(np.logspace(-2, 4, 13)) if classes is None else LogisticRegression()).fit(X[rows], y[rows])
        scores.append(model.score(X[test], y[test]))
    assert others[-1]["score"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert others[-1]["standard_error"] == pytest.approx(np.std(scores, ddof=1) / 2**0.5, abs=1e-6)
