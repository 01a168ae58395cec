"""Gradient descent takes the shortest path: misfit against distance, and every bound of the theory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcvx
from benchmarks.common import print_table
from experiments.common import record
from jaxcvx.plots.figure import BLACK, BLUE, GREEN, INK, ORANGE, SKY, VERMILLION, new_figure, save_png, style
from jaxcvx.problems.least_squares import (
    LeastSquares,
    generalised_linear,
    linear,
    mixed,
    one_hidden_layer,
    quadratic,
)

CLAIM = (
    "On overparametrised least squares gradient descent reaches an optimum about as near to the start as any, by a "
    "path hardly longer than the distance: misfit + alpha/4 distance never exceeds the first misfit."
)
LOW_RANK = (16, 8, 4, 2)  # n = d r / that
CASES = (
    "linear",
    "generalised linear",
    "one hidden layer",
    *(f"low rank, n = dr/{part}" for part in LOW_RANK),
)
LAYERS = (64, 256, 128, 10)


class Case(NamedTuple):
    """A problem, the path of gradient descent on it, and the report on this path."""

    problem: LeastSquares
    path: Any
    report: jaxcvx.PathReport
    rate: float
    optimum: Any


class _Setup(NamedTuple):
    problem: LeastSquares
    rate: float
    steps: int
    known: dict[str, Any]  # what the theory knows beforehand


def case(name: str, small: bool = False, seed: int = 0) -> Case:
    """Run gradient descent on one of CASES to a misfit of 1e-8, and report on its path."""
    rng = np.random.default_rng(seed)
    if name.startswith("low rank"):
        problem, rate, steps, known = _low_rank(rng, int(name.rsplit("/")[1]), small)
    else:
        problem, rate, steps, known = _SETUPS[name](rng, small)
    path = jaxcvx.trajectory(problem, jaxcvx.GradientDescent(optimizer=optax.sgd(rate)), steps)
    misfits = jnp.sqrt(jax.vmap(problem.objective)(path))
    path = path[: max(2, int((misfits > 1e-8 * misfits[0]).sum()))]
    report = jaxcvx.path_report(path, problem.outputs, problem.targets, learning_rate=rate, **known)
    return Case(problem, path, report, rate, known.get("optimum"))


def _linear(rng: np.random.Generator, small: bool) -> _Setup:
    n, p = (10, 40) if small else (30, 100)
    X, y, start = rng.standard_normal((n, p)), rng.standard_normal(n), rng.standard_normal(p)
    values = np.linalg.svd(X, compute_uv=False)
    optimum = start + np.linalg.pinv(X) @ (y - X @ start)
    known = {"alpha": values[-1], "beta": values[0], "optimum": optimum, "glm": True}
    problem = LeastSquares(jnp.asarray(X), jnp.asarray(y), jnp.asarray(start), linear)
    return _Setup(problem, 0.5 / values[0] ** 2, 300, known)


def _generalised_linear(rng: np.random.Generator, small: bool) -> _Setup:
    n, p = (10, 40) if small else (30, 100)
    X, start, teacher = rng.standard_normal((n, p)), rng.standard_normal(p) / 10, rng.standard_normal(p) / 10
    phi, values = mixed(jnp.tanh, 0.5), np.linalg.svd(X, compute_uv=False)
    optimum = start + np.linalg.pinv(X) @ X @ (teacher - start)
    known = {"alpha": 0.5 * values[-1], "beta": values[0], "optimum": optimum, "glm": True}
    problem = LeastSquares(jnp.asarray(X), phi(X @ teacher), jnp.asarray(start), generalised_linear(phi))
    return _Setup(problem, 1 / values[0] ** 2, 300, known)


def _one_hidden_layer(rng: np.random.Generator, small: bool) -> _Setup:
    n, d, k = (8, 25, 10) if small else (20, 50, 40)
    X, y, W = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal((k, d)) / math.sqrt(d)
    v = rng.standard_normal(k)
    model = one_hidden_layer(mixed(jax.nn.softplus, 0.2), tuple((v / np.linalg.norm(v)).tolist()))
    problem = LeastSquares(jnp.asarray(X), jnp.asarray(y), jnp.asarray(W), model)
    return _Setup(problem, 0.5 / np.linalg.norm(X, 2) ** 2, 700, {})


def _low_rank(rng: np.random.Generator, part: int, small: bool) -> _Setup:
    d, r = (40, 3) if small else (100, 4)
    n = d * r // part
    X, y = rng.standard_normal((n, d, d)), rng.choice([-1.0, 1.0], n)
    size = math.sqrt(np.linalg.norm(y)) / (r * n) ** 0.25
    left, right = np.linalg.qr(rng.standard_normal((d, r)))[0], np.linalg.qr(rng.standard_normal((r, r)))[0]
    start = left * rng.uniform(size, 2 * size, r) @ right
    problem = LeastSquares(jnp.asarray(X), jnp.asarray(y), jnp.asarray(start), quadratic)
    largest = float(jaxcvx.jacobian_spectrum(problem.outputs, problem.start)[1])
    return _Setup(problem, min(math.sqrt(n) / (4 * d * np.linalg.norm(y)), 0.5 / largest**2), 400, {})


_SETUPS: dict[str, Callable[[np.random.Generator, bool], _Setup]] = {
    "linear": _linear,
    "generalised linear": _generalised_linear,
    "one hidden layer": _one_hidden_layer,
}


def _perceptron(params: list[Any], X: Any) -> Any:
    for weights, bias in params[:-1]:
        X = jax.nn.relu(X @ weights + bias)
    return X @ params[-1][0] + params[-1][1]


def _digits(n: int, repeats: int, steps: int) -> dict[str, Any]:
    """Run Adam with batches of 100 on one-hot digits: misfit and relative distance of each layer, over repeats."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(labels))[:n]
    X, Y = jnp.asarray(pixels[chosen] / 16), jnp.eye(10)[labels[chosen]]
    solver = jaxcvx.GradientDescent(optimizer=optax.adam(1e-3), batch_size=min(n, 100))

    def walk(key: Any) -> tuple[Any, Any, Any]:
        keys = jax.random.split(key, len(LAYERS))
        start = [
            (jax.random.normal(k, (a, b)) * math.sqrt(2 / a), jnp.zeros(b))
            for k, a, b in zip(keys, LAYERS, LAYERS[1:], strict=False)
        ]
        problem = LeastSquares(X, Y, start, _perceptron)
        path = jaxcvx.trajectory(problem, solver, steps, key=keys[-1], every=10)
        misfits = jnp.sqrt(jax.lax.map(problem.objective, path))
        sizes = [jnp.linalg.norm(weights) for weights, _ in start]
        moved = [jaxcvx.path_report(weights).distances / s for (weights, _), s in zip(path, sizes, strict=True)]
        right = jnp.mean(jnp.argmax(_perceptron([(w[-1], b[-1]) for w, b in path], X), 1) == jnp.argmax(Y, 1))
        return misfits / misfits[0], jnp.stack(moved), right

    keys = jax.random.split(jax.random.key(0), repeats)
    misfits, moved, accuracy = jax.device_get(jax.jit(jax.vmap(walk))(keys))
    return {
        "n": n,
        "misfit": misfits.mean(0).round(5).tolist(),
        "distance": moved.mean(0).round(5).tolist(),
        "accuracy": float(accuracy.mean()),
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Run every case of the theory, and a network on digits; ``quick``: small instances."""
    settings = {"digits": {"n": [100] if quick else [100, 1000], "repeats": 2 if quick else 5, "steps": 1000}}
    if quick:
        settings["digits"]["steps"] = 100
    cases = [_summary(name, case(name, small=quick)) for name in CASES]
    options = settings["digits"]
    digits = [_digits(n, options["repeats"], options["steps"]) for n in options["n"]]
    return record("shortest_path", CLAIM, quick, settings, cases=cases, digits=digits)


def _summary(name: str, found: Case) -> dict[str, Any]:
    report = found.report
    alpha, beta, first = (float(x) for x in (report.alpha, report.beta, report.misfits[0]))
    start = float(jnp.linalg.norm(found.path[0]))
    distance, misfit = np.asarray(report.distances), np.asarray(report.misfits)
    return {
        "name": name,
        "n": found.problem.num_samples,
        "p": int(found.path[0].size),
        "learning_rate": found.rate,
        "steps": len(misfit) - 1,
        "last_misfit": float(misfit[-1] / first),
        "ratio": float(report.ratio),
        "alpha": alpha,
        "beta": beta,
        "upper": float(((alpha / 4 * distance + misfit) / first)[1:].max()),
        "straight": float(((alpha * distance + misfit) / first)[1:].max()),
        "lower": float(((beta * distance + misfit) / first)[1:].min()),
        "relative_distance": float(distance[-1] / start),
        "bounds": {k: {"holds": bool(b.holds), "tightness": float(b.tightness)} for k, b in report.bounds.items()},
        "curve": {"distance": distance.tolist(), "misfit": misfit.tolist(), "start": start},
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    rows = [
        (
            c["name"],
            str(c["steps"]),
            f"{c['last_misfit']:.0e}",
            f"{c['ratio']:.3f}",
            f"{c['upper']:.2f}",
            f"{c['straight']:.2f}",
            f"{c['lower']:.2f}",
            f"{c['bounds']['path']['tightness']:.2f}",
            f"{c['relative_distance']:.2f}",
            ", ".join(k for k, b in c["bounds"].items() if not b["holds"]) or "none",
        )
        for c in result["cases"]
    ]
    header = (
        "",
        "steps",
        "misfit",
        "path/dist",
        "a/4 d + r",
        "a d + r",
        "b d + r",
        "path/bound",
        "rel. dist",
        "fails",
    )
    print_table("Gradient descent", header, rows)
    for d in result["digits"]:
        last = ", ".join(f"{moved[-1]:.2f}" for moved in d["distance"])
        print(f"digits, n={d['n']}: misfit {d['misfit'][-1]:.3f}, layers moved by {last}, accuracy {d['accuracy']:.3f}")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw misfit against distance: the theory's lines, low-rank regression, a network's layers on digits."""
    figure = new_figure(13, 4.4, "Misfit against distance from the start")
    theory, rank, digits = figure.subplots(1, 3)
    named = {c["name"]: c for c in result["cases"]}
    for ax in (theory, rank, digits):
        style(ax)
        ax.set_ylabel("misfit / first misfit")
    for name, color in zip(CASES[:3], (BLUE, VERMILLION, GREEN), strict=True):
        c = named[name]
        first = c["curve"]["misfit"][0]
        x, y = c["alpha"] * np.array(c["curve"]["distance"]) / first, np.array(c["curve"]["misfit"]) / first
        theory.plot(x, y, color=color, linewidth=1.6, label=name)
    ends = np.array([0.0, 1.0])
    theory.plot(ends, 1 - ends, color=INK, linewidth=0.9, linestyle=":", label="straight: alpha")
    theory.plot(ends, 1 - ends / 4, color=INK, linewidth=0.9, linestyle="--", label="proved: alpha / 4")
    theory.set(xlabel="alpha · distance / first misfit", xlim=(0, 1), ylim=(0, 1.02))
    for name, color in zip(CASES[3:], (SKY, BLUE, ORANGE, VERMILLION), strict=True):
        c = named[name]
        x, y = np.array(c["curve"]["distance"]) / c["curve"]["start"], np.array(c["curve"]["misfit"])
        rank.plot(x, y / y[0], color=color, linewidth=1.6, label=f"n = {c['n']}")
    rank.set(xlabel="distance / norm of the start", ylim=(0, 1.02))
    rank.set_title("low-rank regression", fontsize=10, color=INK, loc="left")
    for d, dash in zip(result["digits"], ("-", "--"), strict=False):
        for at, (moved, color) in enumerate(zip(d["distance"], (BLUE, GREEN, BLACK), strict=True)):
            digits.plot(moved, d["misfit"], dash, color=color, linewidth=1.4, label=f"layer {at + 1}, n = {d['n']}")
    digits.set(xlabel="distance / norm of the layer's start", ylim=(0, 1.02))
    digits.set_title("digits, three layers, Adam", fontsize=10, color=INK, loc="left")
    theory.legend(frameon=False, fontsize=8.5, loc="upper right", bbox_to_anchor=(1.0, 0.76))
    for ax in (rank, digits):
        ax.legend(frameon=False, fontsize=8.5)
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["shortest_path", *sys.argv[1:]]))
