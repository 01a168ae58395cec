"""Other methods on the same rows and folds: Adam, and scikit-learn's networks, trees and linear models."""

from __future__ import annotations

import time
import warnings
from typing import Any

import jax
import numpy as np

from jaxcvx.cli.pipeline import FEATURES, Result, fold_score
from jaxcvx.errors import require_extra
from jaxcvx.networks.network import prune, training_objective
from jaxcvx.problems.training import make_problem
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.gradient.descent import GradientDescent

WIDTH, STEPS = 100, 5000


def compare(result: Result, seed: int) -> list[dict[str, Any]]:
    """One entry for each method: its name, objective, neurons, score in the folds with standard error, and seconds."""
    return [_adam(result, seed), *_others(result, seed)]


def _adam(result: Result, seed: int) -> dict[str, Any]:
    """The training objective that Adam reaches at the same beta, in float32 as usual."""
    split = result.split
    X, Y, prep = split.prep.inputs(split.X), split.prep.targets(split.y), split.prep
    small: Any = np.asarray(Y, np.float32) if np.asarray(Y).dtype.kind == "f" else Y
    problem = make_problem(np.asarray(X, np.float32), small, prep.beta, loss=prep.loss, features=FEATURES)
    solver = GradientDescent(width=WIDTH, max_steps=STEPS, learning_rate=1e-2, schedule="cosine", check_every=500)
    began = time.perf_counter()
    network = prune(solve(problem, solver, key=jax.random.key(seed)).network)
    seconds = time.perf_counter() - began
    value = float(training_objective(network, X, Y, prep.beta, loss=prep.loss))
    return {
        "method": f"Adam, width {WIDTH}, {STEPS} steps, same beta",
        "objective": value,
        "neurons": network.width,
        "score": None,
        "standard_error": None,
        "seconds": seconds,
    }


def _others(result: Result, seed: int) -> list[dict[str, Any]]:
    require_extra("sklearn", "cli")
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import cross_val_score
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    split = result.split
    regression = split.prep.classes is None
    models = {
        "scikit-learn's MLP (default)": (MLPRegressor if regression else MLPClassifier)(random_state=seed),
        "gradient boosting": (HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier)(
            random_state=seed
        ),
        "linear model": RidgeCV(np.logspace(-2, 4, 13)) if regression else LogisticRegression(max_iter=1000),
    }
    X = split.prep.inputs(split.X)
    y = split.prep.targets(split.y)[:, 0] if regression else split.y
    scoring = "r2" if fold_score(split.prep) == "r2" else "accuracy"
    entries = []
    for name, model in models.items():
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the defaults stop the MLP after 200 epochs
            scores = cross_val_score(model, X, y, cv=result.folds, scoring=scoring)
        entries.append(
            {
                "method": name,
                "objective": None,
                "neurons": None,
                "score": scores.mean(),
                "standard_error": scores.std(ddof=1) / len(scores) ** 0.5,
                "seconds": time.perf_counter() - began,
            }
        )
    return entries
