"""Pictures of the records: ``python -m benchmarks.plots [--results DIR] [--out DIR]``; needs matplotlib."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcvx.plots.figure import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, new_figure, save_png, style

OURS, OTHERS = BLUE, (VERMILLION, ORANGE, GREEN, SKY, PURPLE)


def draw_peers(record: dict[str, Any], axes: Any) -> None:
    """Seconds to the same accuracy, a group of bars for each case."""
    names = ["jaxcvx", *dict.fromkeys(name for case in record["cases"] for name in case["peers"])]
    colours = dict(zip(names, (OURS, *OTHERS), strict=True))
    ticks, left = [], 0.0
    for case in record["cases"]:
        times = {"jaxcvx": case["jaxcvx"]["median"]}
        times |= {name: peer["median"] for name, peer in case["peers"].items() if peer["reached"]}
        places = left + np.arange(len(times))
        for place, (name, seconds) in zip(places, times.items(), strict=True):
            axes.bar(place, seconds, 0.9, color=colours[name])
        label = case["case"].replace(" (", "\n(").replace("), ", ")\nbeta ").replace("gated breast", "gated\nbreast")
        label = label.replace("cone breast", "cone\nbreast").replace(", c = 10, P = 500", ",\nc = 10")
        ticks.append((places.mean(), label.replace("cancer, 0", "cancer\nbeta 0").replace(", P = 100", "")))
        left = places[-1] + max(2.0, 6.0 - len(times))
    for name, colour in colours.items():
        axes.bar(0, 0, color=colour, label=name)
    axes.set(yscale="log", ylabel="seconds", title="Time to the same accuracy, two CPU cores, float64")
    axes.set_xticks([place for place, _ in ticks], [label for _, label in ticks], fontsize=7)
    axes.legend(ncols=len(names), frameon=False, fontsize=8, loc="upper left")


def draw_training(record: dict[str, Any], axes: Any) -> None:
    """Draw the excess of the other methods over our training objective at equal wall time."""
    rows, methods = record["problems"], {"adam": "best Adam", "pyscnn": "pyscnn", "cone": "cone, random cells"}
    for k, ((method, label), colour) in enumerate(zip(methods.items(), OTHERS, strict=False)):
        values = [100 * row[method]["above"] if method in row else np.nan for row in rows]
        axes.barh(np.arange(len(rows)) + 0.27 * (k - 1), values, 0.26, color=colour, label=label)
    axes.set_yticks(np.arange(len(rows)), [row["problem"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.1)
    axes.axvline(0, color=OURS, lw=2)
    axes.set(xlabel="training objective above ColumnGeneration's, %")
    axes.set_title("Training at equal wall time", loc="left")
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0))


def draw_scaling(record: dict[str, Any], axes: Any) -> None:
    """Seconds and bytes against each size."""
    seconds, memory = axes
    for (name, curve), colour in zip(record["curves"].items(), (OURS, *OTHERS), strict=False):
        seconds.loglog(
            curve["sizes"], curve["seconds"], "o-", color=colour, label=f"{name}: slope {curve['time_slope']:.2f}"
        )
        memory.loglog(
            curve["sizes"],
            np.asarray(curve["bytes"]) / 2**20,
            "o-",
            color=colour,
            label=f"{name}: slope {curve['memory_slope']:.2f}",
        )
    base = ", ".join(f"{name} = {value}" for name, value in record["base"].items())
    seconds.set(xlabel="size", ylabel="seconds", title=f"{record['steps']} accelerated steps, from {base}")
    memory.set(xlabel="size", ylabel="MiB", title="Memory of the program")
    for panel in axes:
        panel.legend(frameon=False, fontsize=8)


FIGURES: dict[str, tuple[Callable[[dict[str, Any], Any], None], int, tuple[float, float]]] = {
    "peers": (draw_peers, 1, (11, 4)),
    "training": (draw_training, 1, (8, 5.5)),
    "scaling": (draw_scaling, 2, (11, 4)),
}


def main(arguments: list[str] | None = None) -> None:
    """Draw every record in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args(arguments)
    for name, (draw, panels, size) in FIGURES.items():
        path = options.results / f"{name}.json"
        if not path.exists():
            continue
        figure = new_figure(*size)
        axes = figure.subplots(1, panels)
        for panel in np.atleast_1d(axes):
            style(panel)
        draw(json.loads(path.read_text()), axes)
        target = options.out / f"benchmark-{name}.png"
        save_png(figure, target)
        print(f"wrote {target}")


if __name__ == "__main__":
    main()
