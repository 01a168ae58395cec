"""Duality gap against width: on a line, on rank-one and on whitened data; and what spike-free data look like."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import adam_runs, describe, record
from jaxcvx.plots.figure import new_figure, save_png
from jaxcvx.plots.geometry import draw_gaps, draw_rectified_ellipsoid

CLAIM = (
    "The gap between the best network of width m and the dual closes at a small m, at m = 2 on whitened data; where "
    "data are spike-free the rectified ellipsoid is the ellipsoid's part of the orthant."
)
PICTURES = {
    "whitened (spike-free)": [[1.0, 0.0], [0.0, 1.0]],
    "obtuse (not spike-free)": [[1.0, 0.0], [-0.7, 0.7]],
    "acute (spike-free)": [[1.0, 0.2], [0.5, 0.9]],
}


def run(quick: bool = False) -> dict[str, Any]:
    """The three data sets; ``quick``: few widths and short runs."""
    settings = {
        "beta": 1e-3,
        "widths": [1, 2, 4] if quick else [1, 2, 3, 4, 6, 8, 12, 16, 24],
        "adam": {"runs": 5, "steps": 500 if quick else 10_000},
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
        "whitened, n=30, d=40": jaxcvx.make_problem(
            jaxcvx.fit_whitening(X)(X), rng.standard_normal(30), beta
        ),
    }


def _case(problem: Any, settings: dict[str, Any]) -> dict[str, Any]:
    optimum = jaxcvx.solve(problem, jaxcvx.CuttingPlane(tol=1e-9))
    bound = float(optimum.lower_bound)
    rows = []
    for width in settings["widths"]:
        runs = adam_runs(problem, width, runs=settings["adam"]["runs"], steps=settings["adam"]["steps"])
        best = min(runs.objectives)
        rows.append({"width": width, "objectives": runs.objectives, "gap": (best - bound) / best})
    return {"optimum": describe(optimum), "adam": rows}


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    for name, case in result["cases"].items():
        rows = [("cutting planes", str(case["optimum"]["width"]), f"{case['optimum']['gap']:.1e}")]
        rows += [("Adam, best of 5", str(a["width"]), f"{a['gap']:.1e}") for a in case["adam"]]
        title = f"{name}: optimum {case['optimum']['upper_bound']:.8f} ({case['optimum']['scope']})"
        print_table(title, ("", "neurons", "gap"), rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Above: gaps against width. Below: three rectified ellipsoids."""
    figure = new_figure(10.5, 7.4, "Duality gap against width, and rectified ellipsoids")
    above, below = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    widths = result["settings"]["widths"]
    gaps = {}
    for name, case in result["cases"].items():
        optimum = case["optimum"]
        gaps[f"{name} (optimum: {optimum['width']} neurons)"] = [a["gap"] for a in case["adam"]]
    draw_gaps(above.subplots(), widths, gaps)
    axes = below.subplots(1, len(PICTURES))
    for ax, (name, X) in zip(axes, PICTURES.items(), strict=True):
        draw_rectified_ellipsoid(ax, X, name)
    axes[0].legend(frameon=False, fontsize=7.5)
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["width", *sys.argv[1:]]))
