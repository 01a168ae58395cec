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


def draw_path(record: dict[str, Any], axes: Any) -> None:
    """Excess of the path's objectives over the best of Adam's, and times over one Adam run, for each table."""
    excess, times = axes
    rows = record["tables"]
    places = np.arange(len(rows))
    for k, colour in enumerate((SKY, GREEN, ORANGE, VERMILLION)):
        betas = [row["betas"][k] for row in rows]
        height = places + 0.18 * (k - 1.5)
        last = [100 * beta["excess"].get("after", beta["excess"]["before"]) for beta in betas]
        before = [100 * beta["excess"]["before"] for beta in betas]
        excess.hlines(height, before, last, color=colour, lw=1, alpha=0.6)
        excess.plot(before, height, "o", mfc="none", mec=colour, ms=5)
        excess.plot(last, height, "o", color=colour, ms=5, label=f"{betas[0]['fraction']:g}" if betas else None)
    excess.set_xscale("symlog", linthresh=1e-3)
    excess.axvline(0, color=OURS, lw=1)
    excess.set(xlabel="objective over the best of five Adam runs, % (hollow: before the finish)")
    excess.set_title("Objectives, by beta / beta_max", loc="left", pad=22)
    for k, (name, colour) in enumerate(zip(("one beta", "path", "cv"), (SKY, OURS, PURPLE), strict=True)):
        label = {"one beta": "one beta", "path": "20 betas", "cv": "cross-validation"}[name]
        times.barh(places + 0.27 * (k - 1), [row["ratios"][name] for row in rows], 0.26, color=colour, label=label)
    times.axvline(1, color=VERMILLION, lw=1)
    times.set(xscale="log", xlabel="seconds over those of one Adam run (red line)")
    times.set_xlim(left=0.1)
    times.set_title("Times, warm", loc="left", pad=22)
    for panel in axes:
        panel.set_yticks(places, [row["table"] for row in rows], fontsize=8)
        panel.invert_yaxis()
        panel.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0))


FIGURES: dict[str, tuple[Callable[[dict[str, Any], Any], None], int, tuple[float, float]]] = {
    "path": (draw_path, 2, (12, 6.5)),
    "peers": (draw_peers, 1, (11, 4)),
    "training": (draw_training, 1, (8, 5.5)),
    "scaling": (draw_scaling, 2, (11, 4)),
}


def draw_record(name: str, record: dict[str, Any], target: Path) -> None:
    """Write the picture of one record as a PNG."""
    draw, panels, size = FIGURES[name]
    figure = new_figure(*size)
    axes = figure.subplots(1, panels)
    for panel in np.atleast_1d(axes):
        style(panel)
    draw(record, axes)
    save_png(figure, target)
    print(f"wrote {target}")


def main(arguments: list[str] | None = None) -> None:
    """Draw every record in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args(arguments)
    for name in FIGURES:
        path = options.results / f"{name}.json"
        if path.exists():
            draw_record(name, json.loads(path.read_text()), options.out / f"benchmark-{name}.png")


if __name__ == "__main__":
    main()
