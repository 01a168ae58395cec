"""One-bit completion with incoherence constraints by the primal-dual method, and completion of digits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import record, track
from jaxcvx.plots.figure import BLUE, GREEN, INK, VERMILLION, new_figure, save_png, style

CLAIM = (
    "A low-rank matrix is recovered from signs of noisy entries; the incoherence constraints bind there, and the "
    "primal-dual method finds the same point from random and from spectral starts."
)
RANK, SCALE = 2, 0.3


def run(quick: bool = False) -> dict[str, Any]:
    """Compute one-bit errors by share and by size, and errors on digits by rank."""
    settings = {
        "trials": 2 if quick else 5,
        "sides": [40] if quick else [40, 60, 80, 160],
        "shares": [0.2, 0.4, 0.6, 1.0],
        "rank": RANK,
        "scale": SCALE,
        "slack": 1.05,
        "digits": {"ranks": [5] if quick else [1, 2, 5, 8, 10], "share": 0.5},
    }
    keys = jax.random.split(jax.random.key(0), settings["trials"])
    one_bit = [_one_bit(keys, d, settings) for d in track(settings["sides"], "one-bit")]
    digits = [_digits(r, settings["digits"]["share"]) for r in track(settings["digits"]["ranks"], "digits")]
    return record("one_bit", CLAIM, quick, settings, one_bit=one_bit, digits=digits)


def _one_bit(keys: Any, d: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Compute median squared errors for each share, from spectral and random starts, with and without constraints."""
    rows, cols = np.divmod(np.arange(d * d), d)
    whole = jaxcvx.OneBitCompletion(rows, cols, np.ones(d * d), (d, d), RANK, "probit", SCALE, 1.0)

    def trial(key: Any, share: Any) -> dict[str, Any]:
        left, right, noise, choose, start = jax.random.split(key, 5)
        U, V = (jax.random.uniform(k, (d, RANK), minval=-0.5, maxval=0.5) for k in (left, right))
        X = U @ V.T
        size = jnp.max(jnp.abs(X))
        X, U, V = X / size, U / size**0.5, V / size**0.5
        signs = jnp.where(X + SCALE * jax.random.normal(noise, (d, d)) > 0, 1.0, -1.0)
        kept = jax.random.permutation(choose, d * d) < share * d * d
        operator = whole.operator.only(kept)
        longest = jnp.stack([jnp.max(jnp.linalg.norm(F, axis=1)) for F in (U, V)])
        problem = whole.replace(
            operator=operator,
            targets=operator.spread(jnp.where(kept, signs.reshape(-1), 0)),
            row_bounds=settings["slack"] * longest,
        )
        starts = {"spectral": problem.spectral_params(), "random": problem.random_params(start)}
        solver = jaxcvx.PrimalDual(tol=1e-5, max_steps=1000)
        found = {name: jaxcvx.solve(problem, solver, init=params) for name, params in starts.items()}
        matrices = {name: problem.matrix(s.params) for name, s in found.items()}
        errors = {name: jnp.sum((Z - X) ** 2) / jnp.sum(X**2) for name, Z in matrices.items()}
        difference = jnp.linalg.norm(matrices["random"] - matrices["spectral"]) / jnp.linalg.norm(X)
        dual = found["spectral"].dual
        largest = jnp.maximum(jnp.max(dual.left), jnp.max(dual.right))
        active = jnp.mean(jnp.concatenate([dual.left, dual.right]) > 1e-3)
        return errors | {"difference": difference, "largest_multiplier": largest, "active": active}

    cells = jax.jit(jax.vmap(jax.vmap(trial, in_axes=(0, None)), in_axes=(None, 0)))
    found = cells(keys, jnp.asarray(settings["shares"]))
    return {"d": d, **{name: np.median(values, axis=1).tolist() for name, values in found.items()}}


def _digits(rank: int, share: float) -> dict[str, Any]:
    """Complete scikit-learn's digits (1797 x 64, centred) from observed entries. Return errors there and elsewhere."""
    from sklearn.datasets import load_digits

    X = load_digits().data
    X = X - X.mean(axis=0)
    observed = np.random.default_rng(0).random(X.shape) < share
    rows, cols = np.nonzero(observed)
    problem = jaxcvx.MatrixCompletion(rows, cols, X[rows, cols], X.shape, rank)
    errors = {}
    for name, key in (("spectral", None), ("random", jax.random.key(0))):
        solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(max_steps=500, tol=1e-4), key=key)
        R = np.asarray(problem.matrix(solution.params)) - X
        errors[name] = {
            "train": float(np.sqrt(np.mean(R[observed] ** 2))),
            "held_out": float(np.sqrt(np.mean(R[~observed] ** 2))),
            "steps": int(solution.num_steps),
        }
    return {"rank": rank, "scale": float(X.std()), **errors}


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    shares = result["settings"]["shares"]
    rows = [
        (f"d={row['d']}, {name}", *(f"{x:.3g}" for x in row[name]))
        for row in result["one_bit"]
        for name in ("spectral", "random", "difference", "largest_multiplier", "active")
    ]
    print_table("One-bit completion: relative squared error by share", ("", *(f"{s:g}" for s in shares)), rows)
    rows = [
        (str(row["rank"]), *(f"{row[s][k]:.3f}" for s in ("spectral", "random") for k in ("train", "held_out")))
        for row in result["digits"]
    ]
    title = f"Digits, half observed: root mean square error (of {result['digits'][0]['scale']:.2f})"
    print_table(title, ("rank", "train", "held out", "train, random", "held out, random"), rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw errors by share of signs for each size, and errors on digits by rank."""
    figure = new_figure(10, 4, "One-bit completion, and completion of digits")
    left, right = figure.subplots(1, 2)
    style(left)
    shares = result["settings"]["shares"]
    for row, marker in zip(result["one_bit"], "osD^", strict=False):
        left.plot(shares, row["spectral"], f"{marker}-", color=BLUE, alpha=0.8, label=f"d = {row['d']}")
        left.plot(shares, row["random"], "x", color=VERMILLION)
    left.plot([], [], "x", color=VERMILLION, label="random starts")
    left.set(xscale="log", yscale="log", xlabel="share of signs observed", ylabel="relative squared error (median)")
    left.set_xticks(shares, [f"{s:g}" for s in shares])
    left.minorticks_off()
    left.set_title(f"rank {RANK}, probit noise {SCALE}", fontsize=10, color=INK, loc="left")
    left.legend(frameon=False, fontsize=8.5)
    style(right)
    ranks = [row["rank"] for row in result["digits"]]
    for key, color in (("train", GREEN), ("held_out", BLUE)):
        errors, label = [row["spectral"][key] for row in result["digits"]], key.replace("_", " ")
        right.plot(ranks, errors, "o-", color=color, label=label)
        right.plot(ranks, [row["random"][key] for row in result["digits"]], "x", color=VERMILLION)
    right.axhline(result["digits"][0]["scale"], color=INK, linewidth=0.8, linestyle=":")
    right.set(xlabel="rank", ylabel="root mean square error", ylim=(0, None))
    right.set_title("digits, half of the pixels observed", fontsize=10, color=INK, loc="left")
    right.legend(frameon=False, fontsize=8.5)
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["one_bit", *sys.argv[1:]]))
