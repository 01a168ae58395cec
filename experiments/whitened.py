"""Whitened data: the soft-thresholded SVD is the global optimum of training, and costs one SVD."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import adam_runs, cpu_seconds_of, describe, record, timed_solve
from jaxcvx.analysis.closed_forms import whitened_value
from jaxcvx.datasets import load_dataset
from jaxcvx.plots.figure import BLUE, GREEN, INK, ORANGE, VERMILLION, new_figure, save_png, style

CLAIM = (
    "On whitened data with one-hot labels training is solved by a soft-thresholded singular value decomposition: "
    "as good as gradient descent in objective and accuracy, and far faster."
)


def features(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Compute ``num`` random ReLU features of unit-norm digits in random order. Return them and the labels."""
    data, rng = load_dataset("digits"), np.random.default_rng(seed)
    order = rng.permutation(len(data.y))
    pixels = data.X[order] / np.linalg.norm(data.X[order], axis=1, keepdims=True)
    return np.maximum(pixels @ rng.standard_normal((pixels.shape[1], num)), 0), data.y[order]


def run(quick: bool = False) -> dict[str, Any]:
    """Compare the closed form with Adam for each beta; ``quick``: 100 training images."""
    settings = {
        "n_train": 100 if quick else 1200,
        "features": 150 if quick else 1600,
        "betas": [1.0] if quick else [0.1, 1.0, 5.0],
        "adam": {"width": 30, "runs": 1, "steps": 300 if quick else 4000, "learning_rate": 0.03},
        "whitening": "pca",
    }
    X, y = features(settings["features"])
    n = settings["n_train"]
    seconds, whitening = cpu_seconds_of(lambda: jaxcvx.fit_whitening(X[:n], method="pca"))
    train, test = np.asarray(whitening(X[:n])), np.asarray(whitening(X[n:]))
    cases = [_case(train, y[:n], test, y[n:], beta, settings["adam"]) for beta in settings["betas"]]
    return record(
        "whitened", CLAIM, quick, settings,
        size={"n": n, "test": len(test), "c": 10},
        whitening={"seconds": seconds, "error": float(np.abs(train @ train.T - np.eye(n)).max())},
        cases=cases,
    )  # fmt: skip


def _case(X: Any, y: Any, test: Any, labels: Any, beta: float, adam: dict[str, Any]) -> dict[str, Any]:
    problem = jaxcvx.make_problem(X, np.eye(10)[y], beta)

    def accuracy(network: Any) -> float:
        return float((np.asarray(network(test)).argmax(axis=1) == labels).mean())

    solver = jaxcvx.SoftThresholdedSVD()
    closed, certified = timed_solve(problem, solver, repeat=True)
    formula = jax.jit(lambda problem: jaxcvx.solve(problem, solver).network).lower(problem).compile()
    seconds, _ = cpu_seconds_of(lambda: formula(problem))
    runs = adam_runs(problem, adam["width"], runs=1, steps=adam["steps"], rate=adam["learning_rate"])
    trained = jax.tree.map(lambda a: a[0], runs.networks)
    return {
        "beta": beta,
        "formula": float(whitened_value(np.sqrt(np.bincount(y, minlength=10)), beta)),
        "closed": {
            **describe(closed),
            "seconds": seconds,
            "seconds_with_certificate": certified,
            "accuracy": accuracy(closed.network),
        },
        "adam": {
            "objective": runs.objectives[0],
            "seconds": runs.seconds,
            "accuracy": accuracy(trained),
            "steps": runs.steps,
            "trace": runs.traces[0],
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for case in result["cases"]:
        closed, adam = case["closed"], case["adam"]
        for name, one, value in (("SVD", closed, closed["upper_bound"]), ("Adam", adam, adam["objective"])):
            row = (f"{value:.6f}", f"{one['seconds']:.3g}", f"{one['accuracy']:.4f}")
            rows.append((f"beta={case['beta']:g}, {name}", *row))
    size = result["size"]
    print_table(f"Digits, {size['n']} whitened rows", ("", "objective", "CPU seconds", "test accuracy"), rows)
    print(f"whitening, for both: {result['whitening']['seconds']:.2f} CPU seconds")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, left: Adam's excess over the optimum against time, and the formula's; right: test accuracies by beta."""
    size = result["size"]
    title = f"Digits, {size['n']} training images, {result['settings']['features']} random features, whitened"
    figure = new_figure(10, 3.9, title)
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    style(left)
    cases = result["cases"]
    for case, color in zip(cases, (VERMILLION, ORANGE, GREEN), strict=False):
        adam, closed = case["adam"], case["closed"]
        seconds = adam["seconds"] * np.array(adam["steps"][1:]) / adam["steps"][-1]
        excess = np.maximum(np.array(adam["trace"][1:]) / case["formula"] - 1, 1e-16)
        left.plot(seconds, excess, color=color, linewidth=1.5, label=f"Adam, beta = {case['beta']:g}")
        left.plot(closed["seconds"], max(closed["gap"], 1e-16), "o", color=color, markersize=8)
    left.plot([], [], "o", color=INK, markersize=8, label="soft-thresholded SVD, gap proved")
    left.set(xscale="log", yscale="log", xlabel="CPU seconds (after whitening)", ylabel="relative excess")
    left.legend(frameon=False, fontsize=8.5, loc="center left")
    style(right)
    names = [f"{case['beta']:g}" for case in cases]
    for key, form, color, name in (
        ("closed", "o", BLUE, "soft-thresholded SVD"),
        ("adam", "s", VERMILLION, "Adam"),
    ):
        values = [case[key]["accuracy"] for case in cases]
        right.plot(names, values, form, color=color, markersize=8, alpha=0.75, markeredgewidth=0, label=name)
    low = min(case[key]["accuracy"] for case in cases for key in ("closed", "adam"))
    right.set(xlabel="beta", ylabel="test accuracy", ylim=(min(0.9, low - 0.02), 1.0))
    right.margins(x=0.2)
    right.legend(frameon=False, fontsize=8.5, loc="lower right")
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["whitened", *sys.argv[1:]]))
