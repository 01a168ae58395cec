"""Duality gap against width on a line, on rank-one and on whitened data; pictures of spike-free data."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import adam_runs, describe, record, track
from jaxcvx.networks.network import Network, hidden_norms
from jaxcvx.plots.figure import INK, new_figure, save_png
from jaxcvx.plots.geometry import draw_gaps, draw_rectified_ellipsoid

CLAIM = (
    "The gap between the best network of width m and the dual closes at the width of the convex optimum, which is "
    "small: m = 2 on whitened data. Where data are spike-free the rectified ellipsoid is the ellipsoid's part of "
    "the orthant."
)
PICTURES = {
    "whitened (spike-free)": [[1.0, 0.0], [0.0, 1.0]],
    "obtuse (not spike-free)": [[1.0, 0.0], [-0.7, 0.7]],
    "acute (spike-free)": [[1.0, 0.2], [0.5, 0.9]],
}


def run(quick: bool = False) -> dict[str, Any]:
    """Run the three data sets; ``quick``: few widths and short runs."""
    settings = {
        "beta": 1e-3,
        "widths": [1, 2, 4] if quick else [1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 24],
        "adam": {"runs": 5 if quick else 20, "steps": 500 if quick else 20_000},
        "descent_steps": 500 if quick else 20_000,
    }
    cases = {name: _case(problem, settings) for name, problem in _problems(settings["beta"]).items()}
    free = {name: bool(jaxcvx.is_spike_free(X)) for name, X in PICTURES.items()}
    return record("width", CLAIM, quick, settings, cases=cases, spike_free=free)


def _problems(beta: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    line = np.sort(rng.standard_normal((15, 1)), axis=0)
    rank_one = rng.standard_normal((15, 1)) @ rng.standard_normal((1, 10))
    X = rng.standard_normal((30, 40))
    free = jaxcvx.FreeBias()
    return {
        "line, n=15": jaxcvx.make_problem(line, rng.standard_normal(15), beta, features=free),
        "rank one, n=15, d=10": jaxcvx.make_problem(rank_one, rng.standard_normal(15), beta, features=free),
        "whitened, n=30, d=40": jaxcvx.make_problem(jaxcvx.fit_whitening(X)(X), rng.standard_normal(30), beta),
    }


def _case(problem: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """For each width, compute the best of random starts, and the result from the optimum's strongest neurons."""
    optimum = jaxcvx.solve(problem, jaxcvx.CuttingPlane(tol=1e-9))
    bound = float(optimum.lower_bound)
    rows = []
    for width in track(settings["widths"], "widths"):
        runs = adam_runs(problem, width, runs=settings["adam"]["runs"], steps=settings["adam"]["steps"])
        kept = float(_trained_on(problem, optimum.network, width, settings["descent_steps"]))
        gaps = {"random": min(runs.objectives), "pruned": kept}
        rows.append(
            {"width": width, "objectives": runs.objectives, "pruned": kept}
            | {f"{name}_gap": (value - bound) / value for name, value in gaps.items()}
        )
    return {"optimum": describe(optimum), "widths": rows}


def _trained_on(problem: Any, network: Network, width: int, steps: int) -> Any:
    """Objective after descent from the ``width`` neurons with the largest weights (all of them if there are fewer)."""
    weight = np.asarray(hidden_norms(network)) * np.linalg.norm(network.output, axis=1)
    strongest = np.argsort(-weight)[:width]
    start = dataclasses.replace(network, hidden=network.hidden[strongest], output=network.output[strongest])
    solver = jaxcvx.GradientDescent(width=width, max_steps=steps, schedule="cosine", learning_rate=1e-3)
    return jaxcvx.solve(problem, solver, init=start).upper_bound


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    for name, case in result["cases"].items():
        optimum = case["optimum"]
        rows = [(str(a["width"]), f"{a['random_gap']:.1e}", f"{a['pruned_gap']:.1e}") for a in case["widths"]]
        found = f"{optimum['width']} neurons, gap {optimum['gap']:.1e} ({optimum['scope']})"
        title = f"{name}: optimum {optimum['upper_bound']:.8f}, {found}"
        adam = f"gap of the best of {result['settings']['adam']['runs']} Adam runs"
        print_table(title, ("width", adam, "of the optimum's strongest, trained on"), rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, above: gaps against width; below: three rectified ellipsoids."""
    figure = new_figure(11.5, 7.6, "Duality gap against width, and rectified ellipsoids")
    above, below = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    widths = result["settings"]["widths"]
    for ax, (name, case) in zip(above.subplots(1, len(result["cases"])), result["cases"].items(), strict=True):
        optimum = case["optimum"]
        gaps = {
            "best of random starts": [a["random_gap"] for a in case["widths"]],
            "from the optimum's strongest": [a["pruned_gap"] for a in case["widths"]],
        }
        draw_gaps(ax, widths, gaps, optimum=optimum["width"])
        ax.legend(frameon=False, fontsize=7.5, loc="upper right" if optimum["width"] < 5 else "lower left")
        ax.set_title(name, fontsize=10, color=INK, loc="left")
    axes = below.subplots(1, len(PICTURES))
    for ax, (name, X) in zip(axes, PICTURES.items(), strict=True):
        draw_rectified_ellipsoid(ax, X, name)
    axes[0].legend(frameon=False, fontsize=7.5)
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["width", *sys.argv[1:]]))
