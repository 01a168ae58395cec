"""Test errors on bundled data: least squares, backpropagation, convex heads on raw inputs and on patch features."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import record, track
from jaxcvx.datasets import load_dataset
from jaxcvx.plots.figure import BLUE, GREEN, INK, VERMILLION, new_figure, save_png, style

CLAIM = (
    "On bundled data networks trained through convex programs are at least as accurate as those trained by "
    "backpropagation; on images a convex head on fixed convolutional features (extreme points of random patches) "
    "is the most accurate."
)
LABELS = {"least squares": "least\nsquares", "backpropagation": "back-\npropagation"}
METHODS = ("least squares", "backpropagation", "convex", "Convex-RF")


def run(quick: bool = False) -> dict[str, Any]:
    """Run all data sets; ``quick``: one split, few samples and short runs."""
    settings = {
        "splits": 1 if quick else 3,
        "test_share": 0.3,
        "betas": [0.003, 0.03] if quick else [0.003, 0.01, 0.03, 0.1],
        "folds": 3,
        "adam": {"width": 64, "steps": 300 if quick else 3000},
        "filters": 50 if quick else 128,
        "most_samples": 200 if quick else None,
        "datasets": ["breast_cancer"] if quick else ["breast_cancer", "wine", "diabetes"],
    }
    names = ["digits", *settings["datasets"]]
    cases = [_case(name, settings) for name in track(names, "data sets")]
    return record("accuracy", CLAIM, quick, settings, cases=cases)


def _case(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Compute errors and seconds of every method on every split."""
    data = load_dataset(name)
    rng = np.random.default_rng(0)
    methods: dict[str, Callable[..., Any]] = {
        "least squares": _least_squares,
        "backpropagation": _backpropagation,
        "convex": _convex,
    }
    if name == "digits":
        methods["Convex-RF"] = _convex_patches
    rows: dict[str, dict[str, list[float]]] = {m: {"errors": [], "seconds": [], "betas": []} for m in methods}
    for split in range(settings["splits"]):
        order = rng.permutation(len(data.y))[: settings["most_samples"]]
        cut = round(settings["test_share"] * len(order))
        test, train = order[:cut], order[cut:]
        task = _Task(data, train, test, settings, split)
        for method in methods:
            start = time.perf_counter()
            beta, error = methods[method](task)
            rows[method]["seconds"].append(time.perf_counter() - start)
            rows[method]["errors"].append(error)
            rows[method]["betas"].append(beta)
    shape = {"train": len(train), "test": len(test), "d": data.X.shape[1]}
    return {"data": name, "task": data.task, "size": shape, "methods": rows}


class _Task:
    """One split of one data set. The inputs are standardised by the training rows."""

    def __init__(self, data: Any, train: Any, test: Any, settings: dict[str, Any], seed: int):
        self.settings, self.seed, self.classes = settings, seed, data.classes
        self.raw_train, self.raw_test = data.X[train], data.X[test]
        self.y_train, self.y_test = data.y[train], data.y[test]
        mean, spread = self.raw_train.mean(axis=0), self.raw_train.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        self.train, self.test = (self.raw_train - mean) / spread, (self.raw_test - mean) / spread
        self.beta: float | None = None  # chosen for the convex method

    def targets(self) -> np.ndarray:
        """Return one-hot rows, or standardised targets."""
        if self.classes is not None:
            return np.eye(len(self.classes))[self.y_train]
        return ((self.y_train - self.y_train.mean()) / self.y_train.std())[:, None]

    def error(self, outputs: np.ndarray) -> float:
        """Share of wrong labels, or mean squared error divided by the variance of the training targets."""
        if self.classes is not None:
            return float((outputs.argmax(axis=1) != self.y_test).mean())
        wanted = (self.y_test - self.y_train.mean()) / self.y_train.std()
        return float(((outputs[:, 0] - wanted) ** 2).mean())

    def search(self, *stages: Any) -> tuple[Any, float]:
        """Fit a convex head after the stages to the training rows. Cross-validation chooses its beta."""
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline

        from jaxcvx.estimators import ConvexReLUClassifier, ConvexReLURegressor

        kind = ConvexReLURegressor if self.classes is None else ConvexReLUClassifier
        head = kind(loss="squared", beta_scale="relative", random_state=self.seed)
        grid = {f"{kind.__name__.lower()}__beta": self.settings["betas"]}
        found = GridSearchCV(make_pipeline(*stages, head), grid, cv=self.settings["folds"])
        found.fit(self.raw_train, self.y_train if self.classes is not None else self.targets()[:, 0])
        return found.best_estimator_, float(found.best_estimator_[-1].beta_)

    def outputs(self, model: Any) -> np.ndarray:
        """Compute outputs for the test rows, one column for each class."""
        if self.classes is None:
            return model.predict(self.raw_test)[:, None]
        scores = model.decision_function(self.raw_test)
        return scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1)


def _least_squares(task: _Task) -> tuple[float, float]:
    rows = np.hstack([task.train, np.ones((len(task.train), 1))])
    weights = np.linalg.lstsq(rows, task.targets(), rcond=None)[0]
    return 0.0, task.error(task.test @ weights[:-1] + weights[-1])


def _backpropagation(task: _Task) -> tuple[float, float]:
    """Run Adam on the same training problem. A fifth of the training rows chooses beta."""
    adam = task.settings["adam"]
    solver = jaxcvx.GradientDescent(width=adam["width"], max_steps=adam["steps"], schedule="cosine")
    X, Y = np.hstack([task.train, np.ones((len(task.train), 1))]), task.targets()
    rest = len(X) // 5

    def train(rows: Any, targets: Any, fraction: Any, key: Any) -> Any:
        problem = jaxcvx.make_problem(rows, targets, 1.0)
        problem = problem.replace(beta=fraction * largest * len(rows) / len(X))
        return jaxcvx.solve(problem, solver, key=key).network

    largest = float(jaxcvx.beta_max(jaxcvx.make_problem(X, Y, 1.0)))
    fractions = np.array(task.settings["betas"])
    key = jax.random.key(task.seed)
    networks = jax.jit(jax.vmap(train, in_axes=(None, None, 0, None)))(X[rest:], Y[rest:], fractions, key)
    held_out = np.maximum(np.einsum("nd,bmd->bnm", X[:rest], networks.hidden), 0) @ np.asarray(networks.output)
    if task.classes is not None:
        errors = (held_out.argmax(axis=2) != task.y_train[:rest]).mean(axis=1)
    else:
        errors = ((held_out - Y[:rest]) ** 2).mean(axis=(1, 2))
    best = fractions[int(np.argmin(errors))]
    network = jax.jit(train)(X, Y, best, key)
    rows = np.hstack([task.test, np.ones((len(task.test), 1))])
    return float(best * largest), task.error(np.asarray(network(rows)))


def _convex(task: _Task) -> tuple[float, float]:
    from sklearn.preprocessing import StandardScaler

    model, beta = task.search(StandardScaler())
    return beta, task.error(task.outputs(model))


def _convex_patches(task: _Task) -> tuple[float, float]:
    from sklearn.preprocessing import StandardScaler

    from jaxcvx.estimators import ConvexPatchFeatures

    patches = ConvexPatchFeatures(image_shape=(8, 8), n_filters=task.settings["filters"], random_state=task.seed)
    model, beta = task.search(patches, StandardScaler())
    return beta, task.error(task.outputs(model))


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    rows = []
    for case in result["cases"]:
        size = case["size"]
        name = f"{case['data']} ({size['train']} x {size['d']})"
        for method, found in case["methods"].items():
            mean, spread = np.mean(found["errors"]), np.std(found["errors"])
            error = f"{mean:.4f} +- {spread:.4f}"
            if case["task"] == "classification":
                error = f"{100 * mean:.2f} % +- {100 * spread:.2f}"
            rows.append((name, method, error, f"{np.mean(found['seconds']):.1f}"))
            name = ""
    splits = result["settings"]["splits"]
    title = f"Test error (share of wrong labels; squared error over variance), mean of {splits} splits"
    print_table(title, ("data", "method", "error", "s, choice of beta in it"), rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the errors of every method: a panel for each data set, a point for each split."""
    cases = result["cases"]
    figure = new_figure(3.1 * len(cases) + 1, 3.9, "Test errors on bundled data")
    colors = dict(zip(METHODS, (INK, VERMILLION, BLUE, GREEN), strict=True))
    for ax, case in zip(np.atleast_1d(figure.subplots(1, len(cases))), cases, strict=True):
        style(ax)
        for place, (method, found) in enumerate(case["methods"].items()):
            errors = np.array(found["errors"]) * (100 if case["task"] == "classification" else 1)
            ax.plot(np.full(len(errors), place), errors, "o", color=colors[method], alpha=0.5, markeredgewidth=0)
            ax.plot([place - 0.25, place + 0.25], [errors.mean()] * 2, color=colors[method], linewidth=2.5)
            ax.annotate(f"{errors.mean():.3g}", (place + 0.28, errors.mean()), va="center", fontsize=8, color=INK)
        names = list(case["methods"])
        ax.set_xticks(range(len(names)), [LABELS.get(n, n) for n in names], fontsize=8)
        unit = "wrong labels (%)" if case["task"] == "classification" else "squared error / variance"
        ax.set(ylabel=unit, ylim=(0, None), xlim=(-0.5, len(names) - 0.2))
        ax.set_title(case["data"], fontsize=10, color=INK, loc="left")
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["accuracy", *sys.argv[1:]]))
