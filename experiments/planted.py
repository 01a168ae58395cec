"""A planted network: the paper's Frank-Wolfe reaches the exact optimum at its rate of 1/k; Adam stays above."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import adam_runs, describe, record, timed_solve
from jaxcvx.networks.network import balanced_penalty
from jaxcvx.plots.figure import BLUE, FAINT, INK, ORANGE, VERMILLION, label, new_figure, save_png, style

CLAIM = (
    "Frank-Wolfe over the constrained nuclear norm finds the global optimum, at a rate of 1/k; fully corrected, "
    "as column generation, it does so in a few rounds."
)
RULES = {"2 / (k + 2)": False, "line search": True}


def instance(n: int, planted: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Draw Gaussian X (n, 2) and targets (n, 5) of a random network with ``planted`` neurons."""
    rng = np.random.default_rng(seed)
    X, U, V = (
        rng.standard_normal((n, 2)),
        rng.standard_normal((2, planted)),
        rng.standard_normal((planted, 5)),
    )
    return X, np.maximum(X @ U, 0) @ V


def run(quick: bool = False) -> dict[str, Any]:
    """Run column generation, Frank-Wolfe with its optimum's radius, and Adam; ``quick``: fewer points and steps."""
    settings = {
        "n": 10 if quick else 25,
        "planted_neurons": 100,
        "beta": 0.1,
        "frank_wolfe_steps": 300 if quick else 3000,
        "check_every": 10,
        "adam": {"width": 100, "runs": 3, "steps": 1000 if quick else 20000, "learning_rate": 0.01},
        "tol": 1e-9,
    }
    X, Y = instance(settings["n"], settings["planted_neurons"])
    cells = jaxcvx.enumerate_arrangements(X)
    problem = jaxcvx.make_problem(X, Y, settings["beta"], arrangements=cells)
    exact, seconds = timed_solve(problem, jaxcvx.ColumnGeneration(tol=settings["tol"]))
    radius = float(balanced_penalty(exact.network))
    best = float(exact.upper_bound) - settings["beta"] * radius  # loss of the optimum
    walks = {rule: _walk(problem, radius, best, search, settings) for rule, search in RULES.items()}
    adam = settings["adam"]
    runs = adam_runs(problem, adam["width"], runs=adam["runs"], steps=adam["steps"], rate=adam["learning_rate"])
    return record(
        "planted", CLAIM, quick, settings,
        size={"n": len(X), "d": 2, "c": 5, "P": len(cells)},
        exact={**describe(exact), "seconds": seconds},
        radius=radius,
        rate_constant=4 * radius**2 * float(np.linalg.norm(X, 2)) ** 2,
        frank_wolfe=walks,
        adam={"objectives": runs.objectives, "seconds": runs.seconds},
    )  # fmt: skip


def _walk(problem: Any, radius: float, best: float, search: bool, settings: dict[str, Any]) -> dict[str, Any]:
    solver = jaxcvx.FrankWolfe(
        radius=radius, line_search=search, max_steps=settings["frank_wolfe_steps"], tol=1e-12,
        check_every=settings["check_every"],
    )  # fmt: skip
    solution, seconds = timed_solve(problem, solver)
    history = solution.history
    return {
        **describe(solution),
        "seconds": seconds,
        "k": np.asarray(history.step).tolist(),
        "excess": (np.asarray(history.objective) - best).tolist(),
        "certified": (np.asarray(history.objective) - np.asarray(history.bound)).tolist(),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    exact, beta = result["exact"], result["settings"]["beta"]
    print(f"Optimum {exact['upper_bound']:.7f}, gap {exact['gap']:.1e}, {exact['width']} neurons; beta={beta:g}")
    walks = result["frank_wolfe"]
    marks = [k for k in (10, 100, 300, 1000, 3000) if k <= result["settings"]["frank_wolfe_steps"]]
    rows = []
    for k in marks:
        excess = (walk["excess"][walk["k"].index(k)] for walk in walks.values())
        rows.append((str(k), *(f"{e:.4g}" for e in excess), f"{2 * result['rate_constant'] / (k + 2):.4g}"))
    print_table("Frank-Wolfe: loss above the optimum's", ("k", *walks, "bound 2C/(k+2)"), rows)
    print("Adam, m=100:", ", ".join(f"{v:.5f}" for v in sorted(result["adam"]["objectives"])))


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, left: excess of Frank-Wolfe against k; right: excess of the final networks."""
    figure = new_figure(10, 3.9, f"Planted network, n = {result['size']['n']}, d = 2, five outputs")
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    style(left)
    walks = result["frank_wolfe"]
    for (rule, walk), color in zip(walks.items(), (BLUE, ORANGE), strict=True):
        k, excess, certified = (np.array(walk[key][1:]) for key in ("k", "excess", "certified"))
        left.plot(k, excess, color=color, linewidth=1.6, label=rule if rule == "line search" else f"step {rule}")
        left.plot(k, certified, color=color, linewidth=0.8, alpha=0.6, linestyle=":")
    k = np.array(walks["2 / (k + 2)"]["k"][1:], float)
    bound = 2 * result["rate_constant"] / (k + 2)
    left.plot(k, bound, color=FAINT, linewidth=1.2, linestyle="--", label="proved bound 2C / (k + 2)")
    left.plot([], [], color=INK, linewidth=0.8, linestyle=":", label="gap seen at run time")
    left.set(xscale="log", yscale="log", xlabel="step k", ylabel="loss above the optimum's")
    left.legend(frameon=False, fontsize=8.5)
    _draw_networks(right, result)
    save_png(figure, path)


def _draw_networks(ax: Any, result: dict[str, Any]) -> None:
    style(ax)
    best = result["exact"]["lower_bound"]
    rows = [("Adam, m = 100", v, VERMILLION) for v in sorted(result["adam"]["objectives"])]
    rows += [(f"FW, {rule}", walk["upper_bound"], color)
             for (rule, walk), color in zip(result["frank_wolfe"].items(), (BLUE, ORANGE), strict=True)]  # fmt: skip
    rows.append(("column generation", result["exact"]["upper_bound"], INK))
    for place, (_, value, color) in enumerate(rows):
        excess = max(value / best - 1, 1e-12)
        ax.plot(excess, place, "o", color=color, markersize=7)
        label(ax, excess, place - 0.22, f"{value:.5f}", color, ha="center", va="bottom")
    ax.set(xscale="log", xlabel="relative excess of the network")
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8.5)
    ax.margins(x=0.25, y=0.15)
    ax.invert_yaxis()


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["planted", *sys.argv[1:]]))
