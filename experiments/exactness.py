"""Exactness of the copositive relaxation: always exact up to four facets per cell, mostly exact beyond."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import record
from jaxcvx.plots.figure import BLUE, FAINT, INK, VERMILLION, new_figure, save_png, style

CLAIM = (
    "The copositive program relaxed to doubly non-negative matrices is exact for certain classes (here: cells of at "
    "most four facets, so always for two features) and a tight bound elsewhere."
)


def run(quick: bool = False) -> dict[str, Any]:
    """Compare relaxation and exact optimum on random instances with one-hot labels; ``quick``: two small ones."""
    settings = {
        "sizes": [[3, 6]] if quick else [[2, 8], [3, 8], [4, 10], [5, 8]],  # d, n
        "instances": 2 if quick else 10,
        "classes": 4,
        "beta": 0.3,
        "exact_if": 1e-6,
        "tol": {"column generation": 1e-9, "copositive relaxation": 1e-7},
    }
    cases = [_case(d, n, seed, settings) for d, n in settings["sizes"] for seed in range(settings["instances"])]
    if not quick:
        cases.append(_reference(settings))
    return record("exactness", CLAIM, quick, settings, cases=cases, summary=_summary(cases))


def _case(d: int, n: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng([d, n, seed])
    X, labels = rng.standard_normal((n, d)), rng.integers(0, settings["classes"], n)
    return {"d": d, "n": n, "seed": seed, **_compare(X, labels, settings)}


def _reference(settings: dict[str, Any]) -> dict[str, Any]:
    """An instance known to have a gap: n = 10, d = 4; relaxation 1.7790006, exact 1.7792828."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((10, 4))
    rng.standard_normal(2 * 4 * 20)
    return {"d": 4, "n": 10, "seed": None, **_compare(X, rng.integers(0, 4, 10), settings)}


def _compare(X: np.ndarray, labels: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    cells = jaxcvx.enumerate_arrangements(X)
    Y = np.eye(settings["classes"])[labels]
    problem = jaxcvx.make_problem(X, Y, settings["beta"], arrangements=cells)
    tol = settings["tol"]
    exact = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(tol=tol["column generation"], pricing="exact"))
    solver = jaxcvx.CopositiveADMM(tol=tol["copositive relaxation"])
    prepared = _padded(solver.prepare(problem), len(X))
    relaxed = jaxcvx.solve(prepared, solver)
    difference = float((exact.upper_bound - relaxed.objective) / exact.upper_bound)
    return {
        "cells": len(cells),
        "facets": int(np.asarray(prepared.facets.live.sum(axis=1)).max()),
        "exact": float(exact.upper_bound),
        "exact_gap": float(exact.gap),
        "relaxation": float(relaxed.objective),
        "relaxation_gap": float(relaxed.program_gap),
        "difference": difference,
        "is_exact": bool(difference < settings["exact_if"]),
    }


def _padded(problem: Any, count: int) -> Any:
    """The same problem with ``count`` slots for the facets of a cell. Instances of one size then compile once."""
    missing = count - problem.facets.index.shape[1]

    def pad(a: Any) -> Any:
        return jnp.pad(a, [(0, 0), (0, missing)] + [(0, 0)] * (a.ndim - 2))

    return dataclasses.replace(problem, facets=jax.tree.map(pad, problem.facets))


def _summary(cases: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for key in ("d", "facets"):
        found[key] = []
        for value in sorted({case[key] for case in cases}):
            own = [case for case in cases if case[key] == value and case["seed"] is not None]
            if own:
                exact = sum(case["is_exact"] for case in own)
                worst = max(case["difference"] for case in own)
                found[key].append({key: value, "instances": len(own), "exact": exact, "worst": worst})
    return found


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    for key, what in (("d", "features d"), ("facets", "facets of the largest cell")):
        rows = [
            (str(row[key]), str(row["instances"]), str(row["exact"]), f"{row['worst']:.1e}")
            for row in result["summary"][key]
        ]
        print_table(f"Relaxation exact, by {what}", (what, "instances", "exact", "largest difference"), rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, left: share of exact instances by d; right: difference of every instance against its facets."""
    figure = new_figure(10, 3.8, "Copositive relaxation against the exact optimum, random one-hot labels")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.6])
    style(left)
    rows = result["summary"]["d"]
    share = [row["exact"] / row["instances"] for row in rows]
    bars = left.bar([str(row["d"]) for row in rows], share, color=BLUE, width=0.6)
    left.bar_label(bars, [f"{row['exact']} / {row['instances']}" for row in rows], fontsize=9, color=INK, padding=2)
    left.set(xlabel="features d", ylabel="share of instances where it is exact", ylim=(0, 1.1))
    style(right)
    rng = np.random.default_rng(0)
    for flag, color, name in ((True, BLUE, "exact"), (False, VERMILLION, "not exact")):
        own = [case for case in result["cases"] if case["is_exact"] is flag]
        across = np.array([case["facets"] for case in own]) + rng.uniform(-0.2, 0.2, len(own))
        up = [max(abs(case["difference"]), 1e-11) for case in own]
        right.plot(across, up, "o", color=color, alpha=0.6, markersize=5.5, markeredgewidth=0, label=name)
    right.axhline(result["settings"]["exact_if"], color=FAINT, linewidth=1, linestyle="--")
    right.axvspan(1.5, 4.5, color=FAINT, alpha=0.12, linewidth=0)
    right.annotate(
        "at most 4 facets:\nproved exact",
        (1.6, 0.98),
        xycoords=("data", "axes fraction"),
        va="top",
        fontsize=8.5,
    )
    most = max(case["facets"] for case in result["cases"])
    right.set(yscale="log", xlabel="facets of the cell that has most", ylabel="relative difference")
    right.set(xlim=(1.5, most + 0.6), xticks=range(2, most + 1))
    right.legend(frameon=False, fontsize=8.5, loc="best")
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["exactness", *sys.argv[1:]]))
