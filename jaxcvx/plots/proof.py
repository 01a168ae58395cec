"""The picture of a proof: the network's objective and the proved lower bound over the seconds of the search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcvx.errors import invalid
from jaxcvx.plots.figure import BLUE, FAINT, INK, VERMILLION, label, new_figure, save_png, style

_ROOM = 0.12  # of the height above and below the lines


def proof(trace: Sequence[Any], file: str | os.PathLike[str] | None = None, *, title: str = "") -> Any:
    """Draw how the gap of a proof closes, and save it as a PNG if ``file`` is given.

    Args:
      trace: triples (seconds, objective of the network, proved lower bound) in the order of time. A callback of
        :func:`jaxcvx.improve` or :func:`jaxcvx.certify` can collect them. Bounds may be -inf at first.
      file: the file to write, or None.
      title: a line above the picture.

    Returns:
      The matplotlib Figure.

    Raises:
      InvalidInputError: the trace is empty, not of triples, has no finite objective, or its times fall.
      FileFormatError: the file cannot be written.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> from jaxcvx import plots
      >>> figure = plots.proof([(0.1, 10.0, 6.0), (1.0, 10.0, 9.0), (4.0, 9.9, 9.8)])
      >>> len(figure.axes)
      1
    """
    try:
        rows = np.asarray(trace, np.float64)
    except (TypeError, ValueError) as err:
        raise invalid("trace", "rows of different kinds", "triples (seconds, objective, lower bound)") from err
    if rows.ndim != 2 or rows.shape[1:] != (3,) or not len(rows):
        raise invalid(
            "trace", f"an array of shape {rows.shape}", "one triple (seconds, objective, lower bound) or more"
        )
    rows = rows[np.isfinite(rows[:, 1])]
    if not len(rows):
        raise invalid("trace", "no finite objective", "the objective of a network")
    if not np.isfinite(rows[:, 0]).all() or (np.diff(rows[:, 0]) < 0).any():
        raise invalid("trace", "times that fall or are not finite", "seconds in order")
    seconds, upper = np.maximum(rows[:, 0], 1e-3), np.minimum.accumulate(rows[:, 1])
    lower = np.maximum.accumulate(np.where(np.isfinite(rows[:, 2]), rows[:, 2], -np.inf))
    figure = new_figure(8.0, 4.2, title)
    ax = figure.subplots()
    _draw(ax, seconds, upper, lower)
    if file is not None:
        save_png(figure, file)
    return figure


def _draw(ax: Any, seconds: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> None:
    if len(seconds) == 1:  # a line needs two ends
        seconds, upper, lower = (np.repeat(a, 2) for a in (seconds, upper, lower))
        seconds = seconds * np.array([0.5, 1.0])
    known = np.isfinite(lower)
    ax.plot(seconds, upper, color=BLUE, lw=2, drawstyle="steps-post")
    low = float(upper.min())
    if known.any():
        ax.plot(seconds[known], lower[known], color=VERMILLION, lw=2, drawstyle="steps-post")
        ax.fill_between(seconds[known], lower[known], upper[known], color=FAINT, alpha=0.13, lw=0, step="post")
        low = float(lower[known].min())
    high = float(upper.max())
    height = (high - low) or max(abs(high), 1.0)
    ax.set_ylim(low - _ROOM * height, high + 2.2 * _ROOM * height)
    ax.set_xlim(0.0, seconds[-1])
    ax.set(xlabel="seconds", ylabel="training objective")
    ax.grid(axis="y", color="#EEEEEE", lw=0.8)
    ax.set_axisbelow(True)
    style(ax)
    place = {"transform": ax.get_yaxis_transform(), "ha": "left"}
    label(ax, 0.02, high + 0.4 * _ROOM * height, "this network", BLUE, va="bottom", **place)
    if not known.any():
        ax.text(0.98, 0.06, "nothing is proved", transform=ax.transAxes, ha="right", color=INK, fontsize=10)
        return
    middle = float(np.interp(0.5 * seconds[-1], seconds[known], lower[known])) - 0.45 * _ROOM * height
    label(ax, 0.5, middle, "no network of any width is below", VERMILLION, va="top", **(place | {"ha": "center"}))
    gap = (upper[-1] - lower[-1]) / max(abs(upper[-1]), np.finfo(float).tiny)
    text = f"gap {100 * gap:.2g} %" if gap >= 1e-5 else f"gap {100 * gap:.0e} %"
    ax.annotate(
        text,
        (seconds[-1], 0.5 * (upper[-1] + lower[-1])),
        (-14, 30),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=INK,
        fontsize=11,
        arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.8},
    )
