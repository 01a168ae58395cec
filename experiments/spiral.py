"""The spiral: gated bound <= copositive relaxation = exact optimum <= Frank-Wolfe, Adam at every width."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import adam_runs, describe, record, timed_solve
from jaxcvx.datasets import spiral
from jaxcvx.networks.network import balanced_penalty
from jaxcvx.plots.figure import (
    BLACK,
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    new_figure,
    save_png,
    style,
)

CLAIM = (
    "Training is a copositive program. Its relaxation is exact for two features, its value is that of the best "
    "network of any width, and gradient descent comes close to it only with enough neurons."
)
CONVEX = ("gated nuclear norm", "copositive relaxation", "column generation", "Frank-Wolfe")


def run(quick: bool = False) -> dict[str, Any]:
    """Solve the spiral by every method, for each beta; ``quick``: 12 points and short runs."""
    settings = {
        "points_per_arm": 4 if quick else 20,
        "betas": [0.1] if quick else [0.1, 0.01],
        "widths": [5, 10] if quick else [5, 10, 100, 200, 300],
        "adam": {"runs": 5, "steps": 2000 if quick else 8000, "learning_rate": 0.01, "schedule": "cosine"},
        "frank_wolfe_steps": 300 if quick else 3000,
        "tol": {"column generation": 1e-9, "copositive relaxation": 1e-8, "gated nuclear norm": 1e-8},
    }
    X, arm = spiral(settings["points_per_arm"])
    cells = jaxcvx.enumerate_arrangements(X)
    cases = []
    for beta in settings["betas"]:
        problem = jaxcvx.make_problem(X, np.eye(3)[arm], beta, arrangements=cells)
        cases.append(_case(problem, settings))
    return record("spiral", CLAIM, quick, settings, size={"n": len(X), "d": 2, "c": 3, "P": len(cells)}, cases=cases)


def _case(problem: Any, settings: dict[str, Any]) -> dict[str, Any]:
    tol = settings["tol"]
    exact, seconds = timed_solve(problem, jaxcvx.ColumnGeneration(tol=tol["column generation"]))
    radius = float(balanced_penalty(exact.network))
    solvers = {
        "gated nuclear norm": jaxcvx.NuclearProximalGradient(tol=tol["gated nuclear norm"]),
        "copositive relaxation": jaxcvx.CopositiveADMM(tol=tol["copositive relaxation"]),
        "Frank-Wolfe": jaxcvx.FrankWolfe(radius=radius, max_steps=settings["frank_wolfe_steps"], tol=1e-9),
    }
    methods = {"column generation": {**describe(exact), "seconds": seconds}}
    for name, solver in solvers.items():
        solution, seconds = timed_solve(problem, solver)
        methods[name] = {**describe(solution), "seconds": seconds}
    adam = []
    for width in settings["widths"]:
        options = settings["adam"]
        runs = adam_runs(problem, width, runs=options["runs"], steps=options["steps"], rate=options["learning_rate"])
        adam.append({"width": width, "objectives": runs.objectives, "seconds": runs.seconds})
    beta = float(problem.beta)
    methods["Frank-Wolfe"]["objective"] += beta * radius  # the constrained program has the loss alone
    return {"beta": beta, "radius": radius, "methods": methods, "adam": adam}


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    for case in result["cases"]:
        rows = [
            (
                name,
                f"{m['objective']:.7f}",
                f"{m['lower_bound']:.7f}",
                f"{m['upper_bound']:.7f}",
                str(m["width"]),
            )
            for name, m in ((name, case["methods"][name]) for name in CONVEX)
        ]
        for runs in case["adam"]:
            best, worst = min(runs["objectives"]), max(runs["objectives"])
            rows.append((f"Adam, m={runs['width']}", "", "", f"{best:.7f} .. {worst:.7f}", str(runs["width"])))
        header = ("", "program", "lower bound", "network", "neurons")
        print_table(f"Spiral, n={result['size']['n']}, beta={case['beta']:g}", header, rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, left: Adam's excess over the exact optimum, by width; right: the value of every method."""
    count = len(result["cases"])
    figure = new_figure(10, 3.3 * count + 0.4, f"Spiral, n = {result['size']['n']}, three classes")
    grid = figure.subplots(count, 2, squeeze=False, width_ratios=[1, 1.15])
    for (left, right), case in zip(grid, result["cases"], strict=True):
        _draw_widths(left, case)
        _draw_values(right, case)
    save_png(figure, path)


def _draw_widths(ax: Any, case: dict[str, Any]) -> None:
    style(ax)
    best = case["methods"]["column generation"]["lower_bound"]
    excess = {a["width"]: np.maximum(np.array(a["objectives"]) / best - 1, 1e-9) for a in case["adam"]}
    widths = list(excess)
    for width, values in excess.items():
        ax.plot([width] * len(values), values, "o", color=VERMILLION, alpha=0.55, markeredgewidth=0, markersize=6)
    ax.plot(widths, [v.min() for v in excess.values()], color=VERMILLION, linewidth=1.2, label="Adam, best of 5")
    walk = case["methods"]["Frank-Wolfe"]["upper_bound"] / best - 1
    ax.axhline(walk, color=ORANGE, linewidth=1.4, linestyle="--", label="Frank-Wolfe")
    rounded = max(case["methods"]["copositive relaxation"]["upper_bound"] / best - 1, 1e-12)
    ax.axhline(rounded, color=BLUE, linewidth=1.4, linestyle=":", label="relaxation, rounded")
    ax.set(xscale="log", yscale="log", xlabel="hidden neurons m", ylabel="relative excess over the optimum")
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.minorticks_off()
    ax.set_title(f"beta = {case['beta']:g}", fontsize=10, color=INK, loc="left")
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")


def _draw_values(ax: Any, case: dict[str, Any]) -> None:
    style(ax)
    methods = case["methods"]
    adam = [(f"Adam, m = {a['width']}", min(a["objectives"]), VERMILLION) for a in case["adam"]]
    rows = [
        ("gated nuclear norm (lower bound)", methods["gated nuclear norm"]["objective"], PURPLE),
        ("copositive relaxation", methods["copositive relaxation"]["objective"], BLUE),
        ("column generation (exact)", methods["column generation"]["objective"], BLACK),
        ("Frank-Wolfe network", methods["Frank-Wolfe"]["upper_bound"], ORANGE),
        *adam,
    ]
    best = methods["column generation"]["objective"]
    ax.axvline(best, color=GREEN, linewidth=1)
    for place, (_, value, color) in enumerate(rows):
        ax.plot(value, place, "o", color=color, markersize=7)
        ax.annotate(f"{value:.5f}", (value, place), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
    low = min(value for _, value, _ in rows)
    ax.set_xlim(low - 0.08 * (best - low), best + 0.35 * (best - low))
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8.5)
    ax.invert_yaxis()
    ax.set_xlabel("objective (Adam: best of 5)")


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["spiral", *sys.argv[1:]]))
