"""The picture of a path of betas: objective and bounds, number of neurons, training and validation scores."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from jaxcvx.analysis.cross_validation import CrossValidation
from jaxcvx.errors import invalid, require_extra, wrong_type
from jaxcvx.plots.figure import BLUE, FAINT, GREEN, INK, ORANGE, VERMILLION, label, new_figure, save_png, style
from jaxcvx.solvers.core.solution import Solution

_SCORES = {
    "r2": "R²",
    "accuracy": "accuracy",
    "neg_mean_squared_error": "− mean squared error",
    "neg_log_loss": "− log loss",
}
_WORST = 3.0  # scores are shown down to this many times the upper half of their range below the best


def path(result: CrossValidation | Solution, file: str | os.PathLike[str] | None = None, *, title: str = "") -> Any:
    """Draw a path of betas, and save it as a PNG if ``file`` is given.

    The first panel shows the objective with its bounds: the proved one where there is one, and the heuristic estimate.
    The second shows the number of neurons. The third shows the training and the validation score, with one standard
    error to both sides, and the two chosen betas: the best one, and the largest within one standard error. Without
    cross-validation there are two panels.

    Args:
      result: from :func:`jaxcvx.cross_validate`, or from :func:`jaxcvx.regularization_path`.
      file: the file to write, or None.
      title: a line above the panels.

    Returns:
      The matplotlib Figure.

    Raises:
      InvalidTypeError: ``result`` is something else.
      InvalidInputError: the solution has no betas.
      FileFormatError: the file cannot be written.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> import jaxcvx
      >>> from jaxcvx import plots
      >>> X, Y = [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 0.0, 1.0]
      >>> problem = jaxcvx.make_problem(X, Y, beta=0.1)
      >>> solution = jaxcvx.regularization_path(problem, 4, jaxcvx.ColumnGeneration(width=8, move_steps=10))
      >>> figure = plots.path(solution)
      >>> len(figure.axes)
      2
    """
    scores = result if isinstance(result, CrossValidation) else None
    solution = result.path if isinstance(result, CrossValidation) else result
    if not isinstance(solution, Solution):
        raise wrong_type("result", result, "a CrossValidation, or the solution of regularization_path")
    if solution.betas is None or np.ndim(solution.upper_bound) != 1:
        raise invalid("result", "a solution at one beta", "the batched solution of regularization_path")
    betas = np.asarray(solution.betas, np.float64)
    figure = new_figure(8.0 if scores is None else 12.0, 3.8, title)
    axes = figure.subplots(1, 2 if scores is None else 3)
    for ax in axes:
        _beta_axis(ax, betas)
        style(ax)
    _draw_objective(axes[0], betas, solution)
    _draw_neurons(axes[1], betas, solution)
    if scores is not None:
        _draw_scores(axes[2], betas, scores)
        _mark_choices(axes, betas, scores)
    if file is not None:
        save_png(figure, file)
    return figure


def _heading(ax: Any, text: str) -> None:
    ax.set_title(text, fontsize=10, color=INK, loc="left")


def _beta_axis(ax: Any, betas: np.ndarray) -> None:
    """A log axis for positive betas, else a linear one."""
    ax.set_xlabel("beta")
    ax.grid(axis="y", color="#EEEEEE", lw=0.8)
    ax.set_axisbelow(True)
    if (betas > 0).all():
        ax.set_xscale("log")
        if betas.max() > betas.min():
            room = (betas.max() / betas.min()) ** 0.04
            ax.set_xlim(betas.min() / room, betas.max() * room)
        ticker: Any = require_extra("matplotlib.ticker", "plots")
        wide = betas.max() > 300 * betas.min()
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(ticker.NullFormatter())


def _numbers(values: Any) -> np.ndarray:
    """In float64; NaN, which is not drawn, for what is not finite."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _draw_objective(ax: Any, betas: np.ndarray, solution: Solution) -> None:
    upper = _numbers(solution.upper_bound)
    proved, estimate = _numbers(solution.lower_bound), _numbers(solution.heuristic_bound)
    ax.plot(betas, upper, color=BLUE, lw=2, marker="o", ms=3, label="objective")
    if np.isfinite(estimate).any():
        ax.plot(betas, estimate, color=ORANGE, lw=1.5, ls="--", label="heuristic bound")
        ax.fill_between(betas, estimate, upper, color=ORANGE, alpha=0.15, lw=0)
    if np.isfinite(proved).any():
        ax.plot(betas, proved, color=VERMILLION, lw=2, label="proved bound")
        ax.fill_between(betas, proved, upper, color=FAINT, alpha=0.15, lw=0)
    shown = [values for values in (upper, proved, estimate) if np.isfinite(values).any()]
    heading = "Objective"
    if len(shown) > 1:
        heading = "Objective and proved bound" if np.isfinite(proved).any() else "Objective and estimated bound"
    if shown and np.nanmin(np.concatenate(shown)) > 0 and np.nanmax(upper) > 20 * np.nanmin(upper):
        ax.set_yscale("log")
    elif shown and np.nanmin(np.concatenate(shown)) >= 0:
        ax.set_ylim(bottom=0)
    _heading(ax, heading)
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left")


def _draw_neurons(ax: Any, betas: np.ndarray, solution: Solution) -> None:
    _heading(ax, "Neurons")
    count = np.asarray(solution.num_neurons)
    ax.plot(betas, count, color=GREEN, lw=2, marker="o", ms=3)
    ax.set_ylim(bottom=0, top=max(1.0, 1.08 * float(count.max())))
    ticker: Any = require_extra("matplotlib.ticker", "plots")
    ax.yaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=6))


def _draw_scores(ax: Any, betas: np.ndarray, result: CrossValidation) -> None:
    folds = len(result.scores)
    train = _numbers(result.train_scores)
    mean, error = _numbers(result.mean), _numbers(result.standard_error)
    train_mean = train.mean(axis=0)
    train_error = train.std(axis=0, ddof=1) / np.sqrt(folds) if folds > 1 else np.zeros_like(train_mean)
    ax.plot(betas, train_mean, color=FAINT, lw=1.5, label="training")
    ax.fill_between(betas, train_mean - train_error, train_mean + train_error, color=FAINT, alpha=0.25, lw=0)
    ax.errorbar(betas, mean, error, color=BLUE, lw=2, elinewidth=1, capsize=2, marker="o", ms=3, label="validation")
    ax.set_ylim(*_score_limits(np.concatenate([mean - error, mean + error, train_mean])))
    name = _SCORES.get(result.scoring, "score")
    _heading(ax, f"{name[0].upper()}{name[1:]} in {folds} folds (± one standard error)")
    ax.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")


def _score_limits(values: np.ndarray) -> tuple[float, float]:
    """Limits that show the good scores well: very bad ones are cut off."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    high, middle = float(values.max()), float(np.median(values))
    low = max(float(values.min()), high - _WORST * (high - middle)) if high > middle else float(values.min())
    room = 0.06 * (high - low) if high > low else 0.05 * max(abs(high), 1.0)
    return low - room, high + room


def _mark_choices(axes: Any, betas: np.ndarray, result: CrossValidation) -> None:
    """Vertical lines at the chosen betas in every panel, named in the last one."""
    best, sparse = int(result.best), int(result.one_standard_error)
    mean, last = _numbers(result.mean), axes[-1]
    texts = [(best, f"best {betas[best]:.3g}", "-", VERMILLION, "right")]
    if sparse != best:
        texts.append((sparse, f"one standard\nerror {betas[sparse]:.3g}", ":", "white", "left"))
    for row, (index, text, line, fill, side) in enumerate(texts):
        for ax in axes:
            ax.axvline(betas[index], color=VERMILLION, lw=1.2, ls=line, zorder=1)
        last.plot(betas[index], mean[index], color=VERMILLION, marker="o", ms=7, mfc=fill, ls="none", zorder=4)
        share = last.transAxes.inverted().transform(last.transData.transform((betas[index], mean[index])))[0]
        side = "left" if share < 0.35 else "right" if share > 0.65 else side
        place = {"transform": last.transAxes, "ha": side, "va": "center"}
        label(last, share + (0.015 if side == "left" else -0.015), 0.36 - 0.1 * row, text, VERMILLION, **place)
