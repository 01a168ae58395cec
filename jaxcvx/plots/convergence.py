"""Pictures of convergence: objective and dual bound of a solve, their gap, and a baseline beside both bounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcvx.errors import invalid, require_extra
from jaxcvx.plots.figure import BLUE, FAINT, GREEN, INK, VERMILLION, label, new_figure, save_png, style
from jaxcvx.solvers.core.solution import History

_ZOOM = 30.0  # a log axis shows values up to this factor above and below the final one


class _Trace(NamedTuple):
    """The checks of a solve with a finite objective."""

    step: np.ndarray
    objective: np.ndarray
    bound: np.ndarray
    gap: np.ndarray  # at each check; nan without a bound
    best_objective: np.ndarray  # smallest so far
    best_bound: np.ndarray  # largest so far; -inf without a bound
    best_gap: np.ndarray


def _trace(history: History) -> _Trace:
    count = int(history.count)
    columns = [np.asarray(column)[:count] for column in (history.step, history.objective, history.bound)]
    if len({len(column) for column in columns}) != 1:
        raise invalid("history", "columns of different lengths", "step, objective and bound of equal length")
    resolution = float(np.finfo(np.result_type(columns[1].dtype, np.float32)).eps)
    step, objective, bound = (column.astype(np.float64) for column in columns)
    known = np.isfinite(objective)
    if not known.any():
        raise invalid("history", "no finite objective", "the history of a solve that took steps")
    step, objective = step[known], objective[known]
    bound = np.where(np.isfinite(bound[known]), bound[known], -np.inf)
    best_objective, best_bound = np.minimum.accumulate(objective), np.maximum.accumulate(bound)
    gaps = _relative(objective, bound, resolution), _relative(best_objective, best_bound, resolution)
    return _Trace(step, objective, bound, gaps[0], best_objective, best_bound, gaps[1])


def _relative(objective: np.ndarray, bound: np.ndarray, resolution: float) -> np.ndarray:
    """Relative gap, at least ``resolution``, the precision of the numbers; nan without a bound."""
    scale = np.maximum(np.abs(objective), np.finfo(np.float64).tiny)
    gap = np.maximum((objective - bound) / scale, resolution)
    return np.where(np.isfinite(gap), gap, np.nan)


def plot_convergence(
    path: str | os.PathLike[str],
    *,
    history: History,
    title: str = "",
    upper_bound: float | None = None,
    lower_bound: float | None = None,
    baseline: Sequence[tuple[float, float]] | None = None,
) -> None:
    """Save a picture of a solve as a PNG.

    The left panel shows the best objective and the best dual bound of the program so far, against the step. The optimum
    lies in the shaded band between them. The next panel shows the relative gap between the two on a log axis; dots are
    the single checks (Newton phases overshoot). With ``baseline``, a third panel compares the run of another optimiser
    with the two bounds.

    Args:
      path: the file to write.
      history: ``solution.history``. Bounds of -inf are left out.
      title: a line above the panels.
      upper_bound: training objective of the returned network, for the third panel.
      lower_bound: proved lower bound on the training objective, for the third panel. -inf is left out.
      baseline: ``(seconds, training objective)`` pairs of an Adam run.

    Raises:
      InvalidInputError: the history is empty, or the baseline is malformed.
      FileFormatError: the file cannot be written.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> import os, tempfile
      >>> import jaxcvx
      >>> from jaxcvx.plots import plot_convergence
      >>> X = [[0.0], [1.0], [2.0]]
      >>> problem = jaxcvx.make_problem(X, [1.0, 0.0, 1.0], 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> solution = jaxcvx.solve(problem, jaxcvx.ProximalGradient())
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plot_convergence(os.path.join(folder, "solve.png"), history=solution.history)
      ...     os.listdir(folder)
      ['solve.png']
    """
    trace = _trace(history)
    runs = None if baseline is None else _baseline(baseline)
    figure = new_figure(8.0 if runs is None else 11.5, 3.8, title)
    axes = figure.subplots(1, 2 if runs is None else 3)
    for ax, draw in zip(axes[:2], (_draw_bounds, _draw_gap), strict=True):
        _step_axis(ax, trace)
        draw(ax, trace)
    if runs is not None:
        _draw_baseline(axes[2], runs, _finite(upper_bound), _finite(lower_bound))
    for ax in axes:
        style(ax)
    save_png(figure, path)


def _finite(value: Any) -> float | None:
    return None if value is None or not np.isfinite(float(value)) else float(value)


def _baseline(baseline: Sequence[tuple[float, float]]) -> np.ndarray:
    try:
        runs = np.asarray(baseline, np.float64)
    except (TypeError, ValueError):
        raise invalid("baseline", "something else", "a list of (seconds, objective) pairs") from None
    if runs.ndim != 2 or runs.shape[1] != 2 or not np.isfinite(runs[:, 1]).any():
        raise invalid("baseline", f"shape {runs.shape}", "a list of (seconds, objective) pairs, not all NaN")
    return runs[np.isfinite(runs).all(axis=1)]


def _heading(ax: Any, text: str) -> None:
    ax.set_title(text, fontsize=10, color=INK, loc="left")


def _step_axis(ax: Any, trace: _Trace) -> None:
    """Show steps from 0. The axis is logarithmic, and linear up to the first check, if :func:`_early` holds."""
    ax.set_xlabel("step")
    last = max(float(trace.step[-1]), 1.0)
    positive = trace.step[trace.step > 0]
    if _early(trace):
        ax.set_xscale("symlog", linthresh=float(positive[0]), linscale=0.5)
        _plain_ticks(ax.xaxis, (1.0,))
        ax.set_xlim(0, 1.1 * last)
        return
    ax.set_xlim(0, 1.01 * last)
    ax.xaxis.get_major_locator().set_params(integer=True, nbins=6)


def _early(trace: _Trace) -> bool:
    """True if the gap comes within a factor 2 of its final value in the first twentieth of a long run."""
    worst = trace.best_gap if np.isfinite(trace.best_gap[-1]) else trace.best_objective - trace.best_objective[-1]
    reached = trace.step[np.argmax(worst <= 2 * worst[-1])]
    return len(trace.step) > 20 and reached < 0.05 * trace.step[-1]


def _limits(values: np.ndarray, final: float, room_below: float) -> tuple[float, float, bool]:
    """Return axis limits that show ``final`` among ``values``, and True if the axis should be logarithmic.

    ``room_below`` is the share of the axis that stays free below the values.
    """
    values = values[np.isfinite(values)]
    high, low = float(values.max(initial=final)), float(values.min(initial=final))
    if final > 0 and (high > 4 * final or low < final / 4):
        high, low = np.log10(min(high, final * _ZOOM)), np.log10(max(low, final / _ZOOM))
        span = max(high - low, 0.1)
        return 10 ** (low - room_below * span), 10 ** (high + 0.08 * span), True
    span = high - low if high > low else max(abs(final), 1.0) * 0.1
    return low - room_below * span, high + 0.08 * span, False


def _draw_bounds(ax: Any, trace: _Trace) -> None:
    objective, bound = trace.best_objective, trace.best_bound
    low, high, log = _limits(np.concatenate([objective, bound]), objective[-1], 0.08)
    if log:
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis)
    ax.set_ylim(low, high)
    bounded = np.isfinite(bound)
    shown = np.where(bounded, np.maximum(bound, low * (1e-3 if log else 1.0) - (0 if log else high - low)), low)
    ax.plot(trace.step, objective, color=BLUE, lw=2)
    ax.set_ylabel("objective")
    if not bounded.any():
        _heading(ax, "Objective (best so far)")
        return
    _heading(ax, "Objective and dual bound (best so far)")
    ax.fill_between(trace.step, shown, objective, where=bounded, color=FAINT, alpha=0.18, lw=0)
    ax.plot(trace.step[bounded], shown[bounded], color=VERMILLION, lw=2)
    _on_line(ax, trace.step, objective, "objective", BLUE, above=True)
    _on_line(ax, trace.step[bounded], shown[bounded], "dual bound", VERMILLION, above=False)


def _on_line(ax: Any, x: np.ndarray, y: np.ndarray, text: str, color: str, above: bool) -> None:
    """Write ``text`` above a falling line (``above``) or below a rising one, at the leftmost place where it fits."""
    inverse = ax.transAxes.inverted()
    at_x, at_y = inverse.transform(ax.transData.transform(np.stack([x, y], axis=1))).T
    places = np.linspace(0.04, 0.6, 57)
    heights = np.interp(places, at_x, at_y) + (0.025 if above else -0.025)
    fits = ((heights < 0.92) if above else (heights > 0.08)) & (places >= at_x[0])
    align = {"transform": ax.transAxes, "va": "bottom" if above else "top"}
    if fits.any():
        k = int(np.argmax(fits))
        label(ax, places[k] + 0.015, heights[k], text, color, ha="left", **align)
        return
    if above and at_y[-1] >= 0.9:  # the line follows the upper edge of the panel: write below it
        label(ax, 0.03, float(at_y[0]) - 0.02, text, color, **(align | {"va": "top"}), ha="left")
        return
    # The line enters the panel late and steeply: write to the left of it.
    seen = np.interp(0.35, at_y, at_x) if not above else at_x[0]
    label(ax, min(float(seen) - 0.02, 0.96), 0.7 if above else 0.35, text, color, ha="right", **align)


def _draw_gap(ax: Any, trace: _Trace) -> None:
    known = np.isfinite(trace.best_gap)
    if not known.any():
        ax.set_axis_off()
        text = "no dual bound was computed"
        ax.text(0.5, 0.5, text, color=FAINT, fontsize=9.5, ha="center", transform=ax.transAxes)
        return
    _heading(ax, "Relative gap (dots: single checks)")
    ax.set_yscale("log")
    step, best = trace.step[known], trace.best_gap[known]
    low, high = np.log10(best.min()), np.log10(best.max())
    span = max(high - low, 1.0)
    ax.set_ylim(10 ** (low - 0.13 * span), 10 ** (high + 0.08 * span))
    ax.set_ylabel("(objective − bound) / objective")
    ax.grid(axis="y", color="#EEEEEE", lw=0.8)
    ax.set_axisbelow(True)
    ax.plot(trace.step, trace.gap, ls="none", marker="o", ms=3, color=GREEN, alpha=0.35, mew=0)
    ax.plot(step, best, color=GREEN, lw=2)
    share = 0.13 * span / (high - low + 0.21 * span)  # the last gap is the best, so it is at this height of the panel
    label(ax, 0.98, share - 0.02, f"{best[-1]:.1e}", GREEN, transform=ax.transAxes, ha="right", va="top")


def _plain_ticks(axis: Any, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Label a log axis with numbers such as 0.5 and 20 instead of powers of ten."""
    ticker: Any = require_extra("matplotlib.ticker", "plots")
    if axis.axis_name == "y":
        axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _draw_baseline(ax: Any, runs: np.ndarray, upper: float | None, lower: float | None) -> None:
    """Draw Adam's training objective against wall time.

    If it varies by more than a factor 20 above the lower bound, its excess over that bound is drawn on a log axis.
    """
    ax.set_xlabel("seconds")
    ax.set_xlim(0, 1.01 * max(float(runs[-1, 0]), 1e-9))
    ax.xaxis.get_major_locator().set_params(nbins=5)
    best = np.minimum.accumulate(runs[:, 1])
    # An excess below the resolution of the objective is drawn at that resolution.
    excess = None if lower is None else np.maximum(best - lower, 1e-15 * max(abs(lower), 1e-300))
    if excess is not None and lower is not None and excess.max() > 20 * excess.min():
        _heading(ax, f"Excess over the lower bound {lower:.6g}")
        ax.set_ylabel("training objective − lower bound")
        ax.set_yscale("log")
        ax.plot(runs[:, 0], excess, color=BLUE, lw=2)
        ours = None if upper is None else max(upper - lower, 1e-15 * max(abs(lower), 1e-300))
        values = np.append(excess, [] if ours is None else [ours])
        low, high = np.log10(values.min()), np.log10(values.max())
        span = max(high - low, 1.0)
        ax.set_ylim(10 ** (low - 0.15 * span), 10 ** (high + 0.15 * span))
        ax.grid(axis="y", color="#EEEEEE", lw=0.8)
    else:
        _heading(ax, "Adam and the returned network")
        ax.set_ylabel("training objective")
        ax.plot(runs[:, 0], best, color=BLUE, lw=2)
        ours = upper
        values = np.append(best, [v for v in (upper, lower) if v is not None])
        low, high, log = _limits(values, float(best[-1]), 0.2)
        if log:
            ax.set_yscale("log")
            _plain_ticks(ax.yaxis)
        ax.set_ylim(low, high)
        if lower is not None and lower > low:
            ax.axhline(lower, color=VERMILLION, lw=1.5, ls="--")
            _below(ax, lower, f"lower bound {lower:.4g}", VERMILLION, left=True)
    drawn = excess if excess is not None and ax.get_ylabel().endswith("bound") else best
    places = ax.transAxes.inverted().transform(ax.transData.transform(np.stack([runs[:, 0], drawn], axis=1)))
    middle = places[len(places) // 2]
    label(ax, middle[0], middle[1] + 0.03, "Adam", BLUE, transform=ax.transAxes, ha="left", va="bottom")
    if ours is not None and ours > 0:
        ax.axhline(ours, color=GREEN, lw=1.5)
        _below(ax, ours, "returned network", GREEN)


def _below(ax: Any, value: float, text: str, color: str, left: bool = False) -> None:
    """Write ``text`` under a horizontal line, at one of its ends."""
    height = ax.transAxes.inverted().transform(ax.transData.transform((0.0, value)))[1]
    at, side = (0.02, "left") if left else (0.98, "right")
    label(ax, at, float(height) - 0.02, text, color, transform=ax.transAxes, ha=side, va="top")
