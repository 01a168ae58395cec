"""Figures by matplotlib's object interface (no pyplot, no global state). A file is written completely or not at all."""

from __future__ import annotations

import os
from typing import Any

from jaxcvx.atomic_file import replacing
from jaxcvx.errors import InvalidTypeError, require_extra

# Okabe and Ito's palette, which colour-blind readers can distinguish.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, BLACK = "#E69F00", "#56B4E9", "#F0E442", "#000000"
INK, FAINT = "#333333", "#888888"
DPI = 150


def new_figure(width: float, height: float, title: str = "") -> Any:
    """Create an empty matplotlib Figure on an Agg canvas. Sizes are in inches."""
    figure_module: Any = require_extra("matplotlib.figure", "plots")
    agg: Any = require_extra("matplotlib.backends.backend_agg", "plots")
    figure = figure_module.Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    agg.FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08)
    if title:
        figure.suptitle(shorten(title, int(11 * width)), fontsize=12, color=INK, parse_math=False)
    return figure


def shorten(text: str, limit: int) -> str:
    """Cut ``text`` to at most ``limit`` characters, on one line."""
    text = " ".join(str(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def style(ax: Any) -> None:
    """Show only the left and the bottom axis, in grey."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9)
    ax.xaxis.label.set(color=INK, size=10)
    ax.yaxis.label.set(color=INK, size=10)


def label(ax: Any, x: float, y: float, text: str, color: str, **kwargs: Any) -> Any:
    """Write text with a white outline. It stays readable over a line."""
    effects: Any = require_extra("matplotlib.patheffects", "plots")
    halo = [effects.withStroke(linewidth=3, foreground="white")]
    return ax.text(x, y, text, color=color, fontsize=9.5, path_effects=halo, parse_math=False, **kwargs)


def save_png(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG. A temporary file beside ``path`` is written first and then renamed to ``path``.

    Raises:
      InvalidTypeError: ``path`` is not a path.
      FileFormatError: the file cannot be written.
    """
    try:
        target = os.path.realpath(os.fsdecode(path))
    except (TypeError, ValueError) as err:
        raise InvalidTypeError(f"path: got {path!r}, expected the name of a file to write.") from err
    with replacing(target) as stream:
        figure.savefig(stream, format="png", dpi=DPI)
