"""Convolutional networks: cost exponential in the filter only; small ones trained to a global certificate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import adam_runs, describe, record, slope, timed_solve
from jaxcvx.arrangements.cells import max_num_cells
from jaxcvx.datasets import load_dataset
from jaxcvx.plots.figure import BLACK, BLUE, GREEN, ORANGE, VERMILLION, new_figure, save_png, style

CLAIM = (
    "For convolutional networks the number of cells, and with it the cost, is polynomial in images and positions, and "
    "exponential only in the rank of the patches, at most the filter's size."
)


def images(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    """Draw Gaussian images (count, size, size)."""
    return np.random.default_rng(seed).standard_normal((count, size, size))


def two_digits(count: int, first: int = 3, second: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return the first ``count`` images of two digits, in [0, 1], and targets +-1."""
    data = load_dataset("digits")
    chosen = np.flatnonzero((data.y == first) | (data.y == second))[:count]
    return data.X[chosen].reshape(-1, 8, 8) / 16, np.where(data.y[chosen] == second, 1.0, -1.0)


def run(quick: bool = False) -> dict[str, Any]:
    """Count cells, then train small networks to their global optimum; ``quick``: few images."""
    settings = {
        "filter": [3, 3],
        "max_cells": 3_000 if quick else 50_000,
        "images": [1, 2, 4] if quick else [1, 2, 4, 8, 16, 32, 64],
        "sizes": [3, 5, 6] if quick else [3, 4, 5, 6, 8, 10, 12, 16],
        "ranks": [2, 3] if quick else [2, 3, 4],
        "digits": {"classes": [3, 8], "images": 10 if quick else 50, "beta": 0.1},
        "networks": [{"rank": 2, "stride": 3}] if quick else [{"rank": 2, "stride": 1}, {"rank": 3, "stride": 3}],
        "adam": {"widths": [10] if quick else [2, 10, 100], "runs": 5, "steps": 500 if quick else 3000},
        "tol": 1e-6,
    }
    counts = [one for rank in settings["ranks"] for one in _counts(rank, settings)]
    nets = [_train(one["rank"], one["stride"], settings) for one in settings["networks"]]
    exponents = {}
    for rank in settings["ranks"]:
        largest = sorted({c["patches"]: c["cells"] for c in counts if c["rank"] == rank}.items())
        exponents[str(rank)] = slope(*zip(*largest, strict=True))
    return record("convolution", CLAIM, quick, settings, counts=counts, exponents=exponents, networks=nets)


def _counts(rank: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Count cells by enumeration if there are few: for more images of size 8, and for 2 larger images."""
    grid = [("images", n, 8) for n in settings["images"]] + [("size", 2, size) for size in settings["sizes"]]
    found = []
    for vary, n, size in grid:
        X = images(n, size)
        features = jaxcvx.restrict_filters(jaxcvx.ConvPool(tuple(settings["filter"])), X, rank)
        patches = n * (size - 2) ** 2
        formula = max_num_cells(patches, min(rank, patches))
        if formula > settings["max_cells"]:
            continue
        cells = len(jaxcvx.enumerate_arrangements(X, features=features))
        dense = max_num_cells(n, min(n, size * size))
        found.append(
            {"vary": vary, "rank": rank, "images": n, "size": size, "patches": patches, "cells": cells,
             "formula": formula, "dense_cells": dense}
        )  # fmt: skip
    return found


def _train(rank: int, stride: int, settings: dict[str, Any]) -> dict[str, Any]:
    digits, adam = settings["digits"], settings["adam"]
    X, y = two_digits(digits["images"], *digits["classes"])
    features = jaxcvx.restrict_filters(jaxcvx.ConvPool(tuple(settings["filter"]), stride=stride), X, rank)
    cells = jaxcvx.enumerate_arrangements(X, features=features)
    problem = jaxcvx.make_problem(X, y, digits["beta"], features=features, arrangements=cells)
    solution, seconds = timed_solve(problem, jaxcvx.ColumnGeneration(tol=settings["tol"]))
    accuracy = float((np.sign(np.asarray(solution.network(X))[:, 0]) == y).mean())
    runs = []
    for width in adam["widths"]:
        done = adam_runs(problem, width, runs=adam["runs"], steps=adam["steps"])
        runs.append({"width": width, "objectives": done.objectives, "seconds": done.seconds})
    return {
        "rank": rank, "stride": stride, "images": len(X), "patches": problem.num_rows, "cells": len(cells),
        **describe(solution), "seconds": seconds, "train_accuracy": accuracy, "adam": runs,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = [
        (str(c["rank"]), str(c["images"]), f"{c['size']}x{c['size']}", str(c["patches"]), str(c["cells"]))
        for c in result["counts"]
    ]
    print_table("Cells of 3x3 filters", ("rank", "images", "size", "patches", "cells"), rows)
    print("exponent in the number of patches, by rank:", result["exponents"])
    rows = []
    for net in result["networks"]:
        name = f"rank {net['rank']}, stride {net['stride']}"
        found = (f"{net['lower_bound']:.7f}", f"{net['upper_bound']:.7f}", f"{net['gap']:.1e}")
        rows.append((name, str(net["cells"]), *found, str(net["width"])))
        for runs in net["adam"]:
            rows.append((f"  Adam, m={runs['width']}", "", "", f"{min(runs['objectives']):.7f}", "", ""))
    header = ("", "cells", "lower bound", "network", "gap", "neurons")
    print_table(f"Two digits, {result['networks'][0]['images']} images", header, rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, left: cells against patches, by rank; right: Adam's excess over the certified optimum."""
    figure = new_figure(10, 4.0, "Convolutional networks with 3 x 3 filters, global average pooling")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    style(left)
    for rank, color in zip(result["settings"]["ranks"], (BLUE, ORANGE, GREEN), strict=False):
        own = [c for c in result["counts"] if c["rank"] == rank]
        curve = sorted({c["patches"]: c["formula"] for c in own}.items())
        name = f"rank {rank}: slope {result['exponents'][str(rank)]:.2f}"
        left.plot(*zip(*curve, strict=True), color=color, linewidth=1.2, label=name)
        for vary, marker in (("images", "o"), ("size", "s")):
            part = [c for c in own if c["vary"] == vary]
            style_of = {
                "color": color,
                "markersize": 6,
                "markerfacecolor": "white" if vary == "size" else color,
            }
            left.plot([c["patches"] for c in part], [c["cells"] for c in part], marker, **style_of)
    left.plot([], [], "ko", markersize=6, label="more images")
    left.plot([], [], "ks", markersize=6, markerfacecolor="white", label="larger images")
    left.set(xscale="log", yscale="log", xlabel="patches: images x positions", ylabel="cells, enumerated")
    left.legend(frameon=False, fontsize=8.5, loc="lower right")
    _draw_networks(right, result)
    save_png(figure, path)


def _draw_networks(ax: Any, result: dict[str, Any]) -> None:
    style(ax)
    names = []
    for net in result["networks"]:
        title = f"rank {net['rank']}, stride {net['stride']}\n{net['cells']} cells"
        rows = [(f"Adam, m = {a['width']}", a["objectives"], VERMILLION) for a in net["adam"]]
        for name, values, color in [*rows, (f"exact: {title}", [net["upper_bound"]], BLACK)]:
            excess = [max(v / net["lower_bound"] - 1, 1e-13) for v in values]
            ax.plot(
                excess,
                [len(names)] * len(excess),
                "o",
                color=color,
                alpha=0.6,
                markersize=6.5,
                markeredgewidth=0,
            )
            names.append(name)
    ax.set(xscale="log", xlabel="relative excess over the proved lower bound")
    ax.set_yticks(range(len(names)), names, fontsize=8.5)
    ax.margins(y=0.08)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["convolution", *sys.argv[1:]]))
