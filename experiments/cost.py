"""Cost of the exact method: polynomial in the samples for data of fixed rank, exponential in the rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import cpu_seconds_of, record, slope, timed_solve
from jaxcvx.plots.figure import BLUE, ORANGE, VERMILLION, new_figure, save_png, style
from jaxcvx.pricing.faces import face_table

CLAIM = "The global optimum is found in time polynomial in the samples for data of fixed rank, exponential in the rank."


def run(quick: bool = False) -> dict[str, Any]:
    """Enumerate, list faces and solve, for growing n and growing rank; ``quick``: small sizes."""
    settings = {
        "samples": {"2": [4, 8]} if quick else {"2": [16, 64, 128, 256], "3": [8, 16, 32, 64]},
        "ranks": [2, 3] if quick else [2, 3, 4, 5, 6],
        "samples_of_ranks": 8 if quick else 10,
        "outputs": 3,
        "beta_over_beta_max": 0.1,
        "tol": 1e-6,
    }
    by_samples = {r: [_case(n, int(r), settings) for n in sizes] for r, sizes in settings["samples"].items()}
    by_rank = [_case(settings["samples_of_ranks"], r, settings) for r in settings["ranks"]]
    exponents = {
        rank: {key: slope([c["n"] for c in cases], [c[key] for c in cases]) for key in ("cells", "faces", "seconds")}
        for rank, cases in by_samples.items()
    }
    return record("cost", CLAIM, quick, settings, by_samples=by_samples, by_rank=by_rank, exponents=exponents)


def _case(n: int, rank: int, settings: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng([n, rank])
    X, Y = rng.standard_normal((n, rank)), rng.standard_normal((n, settings["outputs"]))
    enumerating, cells = cpu_seconds_of(lambda: jaxcvx.enumerate_arrangements(X))
    listing, table = cpu_seconds_of(lambda: face_table(X, cells.masks, cells.gates))
    problem = jaxcvx.make_problem(X, Y, 1.0, arrangements=cells)
    problem = problem.replace(beta=settings["beta_over_beta_max"] * problem.beta_max())
    # solving lists the faces once more
    solution, seconds = timed_solve(problem, jaxcvx.ColumnGeneration(tol=settings["tol"], pricing="exact"), repeat=True)
    return {
        "n": n, "rank": rank, "cells": len(cells), "faces": table.num_faces, "gap": float(solution.gap),
        "rounds": int(solution.num_steps), "enumerating": enumerating, "listing": listing,
        "solving": seconds - listing, "seconds": enumerating + seconds,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    for title, cases in (
        *((f"Rank {r}", c) for r, c in result["by_samples"].items()),
        ("By rank", result["by_rank"]),
    ):
        rows = [
            (str(c["n"]), str(c["rank"]), str(c["cells"]), str(c["faces"]), f"{c['enumerating']:.2f}",
             f"{c['listing']:.2f}", f"{c['solving']:.2f}", f"{c['gap']:.1e}")
            for c in cases
        ]  # fmt: skip
        header = ("n", "rank", "cells", "faces", "enumerating s", "faces s", "solving s", "gap")
        print_table(title, header, rows)
    print("exponents in n:", result["exponents"])


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw faces and time against the samples, by rank; then against the rank."""
    figure = new_figure(11, 3.8, "Cost of the exact method (cells, their faces, column generation)")
    samples, seconds, ranks = figure.subplots(1, 3)
    for key, ax, what in (("faces", samples, "faces of all cells"), ("seconds", seconds, "CPU seconds")):
        style(ax)
        for (rank, cases), color in zip(result["by_samples"].items(), (BLUE, ORANGE), strict=False):
            x, y = [c["n"] for c in cases], [c[key] for c in cases]
            name = f"rank {rank}: slope {result['exponents'][rank][key]:.2f}"
            ax.plot(x, y, "o-", color=color, linewidth=1.2, markersize=6, label=name)
        ax.set(xscale="log", yscale="log", xlabel="samples n", ylabel=what)
        ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    style(ranks)
    cases = result["by_rank"]
    x = [c["rank"] for c in cases]
    for key, color in (("cells", BLUE), ("faces", VERMILLION)):
        ranks.plot(x, [c[key] for c in cases], "o-", color=color, linewidth=1.2, markersize=6, label=key)
    ranks.set(yscale="log", xlabel="rank r", ylabel="number", xticks=x)
    ranks.set_title(f"n = {result['settings']['samples_of_ranks']}", fontsize=10, loc="left")
    ranks.legend(frameon=False, fontsize=8.5)
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["cost", *sys.argv[1:]]))
