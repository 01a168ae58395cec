"""The picture of what a model has learned: its mean prediction as one feature changes, for the strongest features."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcvx.errors import invalid, require_extra
from jaxcvx.plots.figure import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    new_figure,
    save_png,
    shorten,
    style,
)

_COLORS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW, "#7F3C8D", "#6B4226")
_ROWS = 500  # rows over which predictions are averaged
_GRID = 40  # values of a feature
_COLUMNS = 3  # panels beside each other


def effects(
    predict: Callable[[Any], Any],
    X: Float[np.ndarray, "n d"],
    names: Sequence[str],
    file: str | os.PathLike[str] | None = None,
    *,
    order: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    num: int = 6,
    title: str = "",
    y_label: str = "",
) -> Any:
    """Draw the partial dependence on the strongest features, and save it as a PNG if ``file`` is given.

    A panel shows the mean prediction over the rows of X if one feature is set to a value in all of them. Features come
    in the order of the standard deviation of this mean. Features of two values are drawn as points. Marks above the
    axis are the deciles of the feature. The panels share the scale of their heights.

    Args:
      predict: a function from inputs (m, d) to m numbers, or to a column for each class (m, c).
      X: (n, d) inputs; at most 500 rows of them, evenly spaced, are used.
      names: d names of the features.
      file: the file to write, or None.
      order: indices of features, the strongest one first, the others are not evaluated; None orders all features.
      classes: c names, if ``predict`` has a column for each class; of two classes the second one is drawn, of more
        than ten the first ten.
      num: largest number of features.
      title: a line above the picture.
      y_label: what is predicted.

    Returns:
      The matplotlib Figure.

    Raises:
      InvalidInputError: shapes do not fit, X is not finite, or ``order`` names a feature that does not exist.
      FileFormatError: the file cannot be written.
      MissingExtraError: matplotlib or scikit-learn is not installed.

    Source: J. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics 29 (2001).

    Example:
      >>> import numpy as np
      >>> from jaxcvx import plots
      >>> X = np.random.default_rng(0).standard_normal((50, 2))
      >>> figure = plots.effects(lambda X: np.abs(X[:, 0]), X, ["size", "noise"])
      >>> [axes.get_title(loc="left") for axes in figure.axes]
      ['size', 'noise']
    """
    X = _inputs(X, names)
    if num < 1:
        raise invalid("num", num, "a positive integer")
    outputs = np.asarray(predict(X), np.float64).reshape(len(X), -1)
    if classes is not None and outputs.shape[1] not in (1, len(classes)):
        raise invalid("classes", f"{len(classes)} names for {outputs.shape[1]} outputs", "a name for each output")
    shown = [outputs.shape[1] - 1] if outputs.shape[1] <= 2 else list(range(min(10, outputs.shape[1])))
    if order is None:
        curves = {k: _curve(predict, X, k, shown) for k in range(X.shape[1])}
        order = sorted(curves, key=lambda k: -np.abs(curves[k][1].std(axis=0)).max())[:num]
    else:
        order = _order(order, X.shape[1])[:num]
        curves = {k: _curve(predict, X, k, shown) for k in order}
    columns = 2 if len(order) == 4 else min(_COLUMNS, len(order))
    rows = -(-len(order) // columns)
    figure = new_figure(1.2 + 3.3 * columns, 0.9 + 2.5 * rows, title)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
    if classes is None:
        labels = [""] if outputs.shape[1] == 1 else [f"output {k + 1}" for k in shown]
    else:
        labels = [str(classes[-1] if len(shown) == 1 else classes[k]) for k in shown]
    for ax, k in zip(axes, order, strict=False):
        _draw(ax, X[:, k], *curves[k])
        ax.set_title(shorten(names[k], 34), fontsize=10, color=INK, loc="left", parse_math=False)
    for ax in axes[len(order) :]:
        figure.delaxes(ax)
    for ax in axes[: len(order) : columns]:
        text = f"{y_label} of {labels[0]}" if labels[0] and len(shown) == 1 else y_label
        ax.set_ylabel(shorten(text, 30), parse_math=False)
    if len(shown) > 1:
        lines: Any = require_extra("matplotlib.lines", "plots")
        handles = [lines.Line2D([], [], color=color, lw=2) for color in _COLORS[: len(shown)]]
        texts = [shorten(text, 24).replace("$", r"\$") for text in labels]
        figure.legend(handles, texts, loc="outside lower center", ncols=min(5, len(shown)), frameon=False, fontsize=9)
    if file is not None:
        save_png(figure, file)
    return figure


def _inputs(X: Any, names: Sequence[str]) -> np.ndarray:
    """Evenly spaced rows of X in float64."""
    try:
        X = np.asarray(X, np.float64)
    except (TypeError, ValueError) as err:
        raise invalid("X", "entries that are not numbers", "numbers (n, d)") from err
    if X.ndim != 2 or not X.size or len(names) != X.shape[1]:
        raise invalid("names", f"{len(names)} names for X of shape {X.shape}", "a name for each column of X (n, d)")
    if not np.isfinite(X).all():
        raise invalid("X", "NaN or inf", "finite numbers")
    return X[np.linspace(0, len(X) - 1, min(len(X), _ROWS)).round().astype(int)]


def _order(order: Sequence[int], num_features: int) -> list[int]:
    chosen = [int(k) for k in order]
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0 or max(chosen) >= num_features:
        raise invalid("order", chosen, f"different indices of features, 0 to {num_features - 1}")
    return chosen


def _curve(predict: Callable[[Any], Any], X: np.ndarray, k: int, shown: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Values of feature k and the mean outputs (grid, shown) there."""
    base: Any = require_extra("sklearn.base", "cli")
    inspection: Any = require_extra("sklearn.inspection", "cli")

    def chosen(rows: Any) -> np.ndarray:
        return np.asarray(predict(rows), np.float64).reshape(len(rows), -1)[:, shown]

    class Model(base.RegressorMixin, base.BaseEstimator):
        """What scikit-learn asks of a fitted model."""

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, X: Any, y: Any = None) -> Any:
            return self

        def predict(self, X: Any) -> np.ndarray:
            return chosen(X)

    if np.ptp(X[:, k]) == 0:
        return X[:1, k], chosen(X).mean(axis=0)[None]
    found = inspection.partial_dependence(
        Model(), X, [k], kind="average", grid_resolution=_GRID, percentiles=(0.0, 1.0), method="brute"
    )
    return found["grid_values"][0], found["average"].T


def _draw(ax: Any, feature: np.ndarray, grid: np.ndarray, values: np.ndarray) -> None:
    few = len(grid) <= 2
    for column, color in zip(values.T, _COLORS, strict=False):
        ax.plot(grid, column, color=color, lw=2, ls="" if few else "-", marker="o" if few else "", ms=7)
    ax.grid(axis="y", color="#EEEEEE", lw=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.04, y=0.1)
    style(ax)
    if few:
        ax.set_xticks(grid)
        ax.set_xlim(grid[0] - 0.5 * (np.ptp(grid) or 1.0), grid[-1] + 0.5 * (np.ptp(grid) or 1.0))
        return
    deciles = np.unique(np.percentile(feature, np.arange(10, 100, 10)))
    ax.vlines(deciles, 0.0, 0.035, color=FAINT, lw=1, transform=ax.get_xaxis_transform())
    ticker: Any = require_extra("matplotlib.ticker", "plots")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
