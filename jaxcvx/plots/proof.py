"""The picture of a proof: the network's objective and the proved lower bound over the seconds of the search."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcvx.errors import invalid, require_extra
from jaxcvx.plots.figure import BLUE, FAINT, INK, VERMILLION, label, new_figure, save_png, style

_ROOM = 0.13  # of the height above and below the lines
_AFTER = 1.25  # times a single moment is where its axis ends: its bounds hold afterwards
_MARGIN, _WIDTH, _HEIGHT = 0.02, 0.53, 0.08  # of a text in the axes


def proof(trace: Sequence[Any], file: str | os.PathLike[str] | None = None, *, title: str = "") -> Any:
    """Draw how the gap of a proof closes, and save it as a PNG if ``file`` is given.

    A bound holds from its second on. The line above the axes states the last gap, rounded up. The axis of seconds is
    logarithmic if the gap closes early, and begins at the first row of the trace.

    Args:
      trace: triples (seconds, objective of the network, lower bound that is proved for all networks) in the order of
        time. A callback of :func:`jaxcvx.improve` or :func:`jaxcvx.certify` can collect them. Bounds may be -inf at
        first.
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
    known, end = np.isfinite(lower), seconds[-1]
    if _early(seconds[known], (upper - lower)[known]):
        ticker: Any = require_extra("matplotlib.ticker", "plots")
        ax.set_xscale("log")
        wide = seconds[-1] > 300 * seconds[0]
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(ticker.NullFormatter())
    if seconds[0] == seconds[-1]:
        seconds, upper, lower, known = (np.append(a, a[-1]) for a in (seconds, upper, lower, known))
        seconds[-1] *= _AFTER
    ax.set_xlim(seconds[0], seconds[-1])
    low, high = _heights(upper, lower[known])
    ax.set_ylim(low - _ROOM * (high - low), high + _ROOM * (high - low))
    ax.set(xlabel="seconds", ylabel="training objective")
    ax.grid(axis="y", color="#EEEEEE", lw=0.8)
    ax.set_axisbelow(True)
    style(ax)
    ax.fill_between(seconds[known], lower[known], upper[known], color=FAINT, alpha=0.13, lw=0, step="post")
    for line, where, color in ((upper, np.isfinite(upper), BLUE), (lower, known, VERMILLION)):
        if where.any():
            ax.plot(seconds[where], line[where], color=color, lw=2, drawstyle="steps-post")
            ax.scatter(end, line[-1], s=26, color=color, zorder=3, clip_on=False)
    ax.set_title(_sentence(float(upper[-1]), float(lower[-1])), fontsize=10, color=INK, loc="left", pad=8)
    own = max(_on_line(ax, seconds, upper, share) for share in (_MARGIN, 0.3))
    place: dict[str, Any] = {"transform": ax.transAxes}
    label(ax, _MARGIN, own + _MARGIN, f"this network: {upper[-1]:.6g}", BLUE, va="bottom", ha="left", **place)
    if known.any():
        text = f"no network of any width is below this line, {lower[-1]:.6g} in the end"
        below = _on_line(ax, seconds[known], lower[known], 1 - _MARGIN - _WIDTH) - _MARGIN
        if below > _HEIGHT:  # nothing is drawn below a line that rises
            label(ax, 1 - _MARGIN, below, text, VERMILLION, va="top", ha="right", **place)
        else:
            above = _on_line(ax, seconds[known], lower[known], _MARGIN + _WIDTH) + _MARGIN
            label(ax, _MARGIN, above, text, VERMILLION, va="bottom", ha="left", **place)


def _early(seconds: np.ndarray, gap: np.ndarray) -> bool:
    """True if half of what closes at all closes in the first tenth of the time."""
    if not len(seconds) or seconds[-1] < 2 * seconds[0]:
        return False
    half = seconds[np.argmax(gap <= 0.5 * (gap[0] + gap[-1]))]
    return bool(half - seconds[0] < 0.1 * (seconds[-1] - seconds[0]))


def _heights(upper: np.ndarray, lower: np.ndarray) -> tuple[float, float]:
    """The heights to show. Bounds far below the last objective are left out, unless the last one is."""
    high = float(upper.max())
    if not len(lower):
        return min(float(upper.min()), high - 0.1 * max(abs(high), 1e-300)), high
    last = float(upper[-1])
    low = max(float(lower.min()), min(last - abs(last), last - 4 * (last - float(lower[-1]))))
    return (low, high) if high > low else (high - 0.1 * (abs(high) or 1.0), high)


def _on_line(ax: Any, seconds: np.ndarray, values: np.ndarray, share: float) -> float:
    """The height of the line at a share of the width; both in units of the axes."""
    inverse = ax.transAxes.inverted()
    x, y = inverse.transform(ax.transData.transform(np.stack([seconds, values], axis=1))).T
    k = int(np.searchsorted(x, share, side="right")) - 1
    return max(float(y[max(k, 0)]), 0.0)


def _sentence(upper: float, lower: float) -> str:
    """The last gap in words. It is rounded up, for it is a claim."""
    if not np.isfinite(lower):
        return "Nothing is proved about other networks."
    gap = 100 * max(upper - lower, 0.0) / max(abs(upper), np.finfo(float).tiny)
    if gap == 0:
        return "No two-layer ReLU network is better."
    unit = 10.0 ** (np.floor(np.log10(gap)) - 1)
    up = np.ceil(gap / unit - 1e-9) * unit  # 1e-9: the division has rounding errors
    shown = f"{up:.0f}" if up >= 10 else f"{up:.2g}"
    return f"No two-layer ReLU network is better by more than {shown} %."
