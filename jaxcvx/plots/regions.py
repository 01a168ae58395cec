"""Picture of a classifier in the plane: its decisions, and the lines on which neurons switch on and off."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxcvx.errors import invalid, require_extra
from jaxcvx.numerics.safe import divisor
from jaxcvx.plots.figure import (
    BLACK,
    BLUE,
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

_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, BLACK)
_MARKERS = "o^sDvPX*<>"
_GRID = 480
_ROWS_PER_CALL = 24


def plot_regions(
    path: str | os.PathLike[str],
    *,
    predict: Callable[[Float[np.ndarray, "k 2"]], Any],
    hidden_lines: Any,
    X: Float[np.ndarray, "n 2"],
    labels: Int[np.ndarray, " n"],
    classes: Sequence[str],
    title: str = "",
    axis_labels: tuple[str, str] = ("x₁", "x₂"),
) -> None:
    """Save a picture of a classifier of points in the plane as a PNG.

    The background colour is the predicted class, and the markers are the data. One hidden neuron switches on each line
    ``{x : w.x + b = 0}``. The line of a stronger neuron is darker.

    Args:
      path: the file to write.
      predict: function from points (k, 2) to k integer codes, the indices into ``classes``.
      hidden_lines: (m, 3) rows ``(w1, w2, b)``, or (m, 4) rows with the neuron's strength (any scale, >= 0) last.
        m may be 0. Rows with w = 0 have no line.
      X: (n, 2) data.
      labels: (n,) codes, the indices into ``classes``.
      classes: names of the classes.
      title: a line above the picture.
      axis_labels: names of the two features.

    Raises:
      InvalidInputError: shapes do not fit, or codes are out of range.
      FileFormatError: the file cannot be written.
      MissingExtraError: matplotlib is not installed.

    Example:
      >>> import os, tempfile
      >>> import numpy as np
      >>> from jaxcvx.plots import plot_regions
      >>> X, labels = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0, 1])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plot_regions(
      ...         os.path.join(folder, "regions.png"),
      ...         predict=lambda points: (points.sum(axis=1) > 1).astype(int),
      ...         hidden_lines=[[1.0, 1.0, -1.0]],
      ...         X=X,
      ...         labels=labels,
      ...         classes=["no", "yes"],
      ...     )
      ...     os.listdir(folder)
      ['regions.png']
    """
    X, labels, names = _points(X, labels, classes)
    margin = 0.07 * divisor(np.ptp(X, axis=0))
    low, high = X.min(axis=0) - margin, X.max(axis=0) + margin
    segments, strength = clip_lines(_lines(hidden_lines), low, high)
    codes = _codes_on_grid(predict, low, high, len(names))

    figure = new_figure(8.0, 6.0)
    ax = figure.subplots()
    ax.set_title(shorten(title, 56), fontsize=12, color=INK, parse_math=False)
    colors: Any = require_extra("matplotlib.colors", "plots")
    palette = np.array([colors.to_rgb(_COLORS[k % len(_COLORS)]) for k in range(len(names))])
    soft = 1 - 0.3 * (1 - palette)
    frame = (low[0], high[0], low[1], high[1])
    ax.imshow(soft[codes], origin="lower", extent=frame, aspect="auto", interpolation="nearest")
    _draw_lines(ax, segments, strength)
    handles = []
    for k, color in enumerate(palette):
        own = labels == k
        marker = {"marker": _MARKERS[k % len(_MARKERS)], "color": color, "s": 34}
        handles.append(ax.scatter(X[own, 0], X[own, 1], **marker, edgecolors="white", linewidths=0.7, zorder=3))
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_xlabel(shorten(axis_labels[0], 60), parse_math=False)
    ax.set_ylabel(shorten(axis_labels[1], 40), parse_math=False)
    style(ax)
    if len(segments):
        names = [*names, f"neurons ({len(segments)})"]
        lines: Any = require_extra("matplotlib.lines", "plots")
        handles.append(lines.Line2D([], [], color=INK, lw=1.2))
    legend = figure.legend(handles, [str(k) for k in range(len(handles))], loc="outside right upper", frameon=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=shorten(name, 24), fontsize=9.5, color=INK, parse_math=False)
    save_png(figure, path)


def _points(X: Any, labels: Any, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    X, labels, names = np.asarray(X, np.float64), np.asarray(labels), [str(name) for name in classes]
    if X.ndim != 2 or X.shape[1] != 2 or X.shape[0] == 0:
        raise invalid("X", f"shape {X.shape}", "(n, 2) with n >= 1")
    if not np.isfinite(X).all():
        raise invalid("X", "NaN or inf", "finite numbers")
    if labels.shape != X.shape[:1]:
        raise invalid("labels", f"shape {labels.shape}", f"{X.shape[:1]}, one per row of X")
    return X, _check_codes("labels", labels, len(names)), names


def _check_codes(argument: str, codes: np.ndarray, num_classes: int) -> np.ndarray:
    if not np.issubdtype(codes.dtype, np.integer):
        raise invalid(argument, f"dtype {codes.dtype}", "integer codes into classes")
    if codes.min() < 0 or codes.max() >= num_classes:
        raise invalid(argument, f"codes {codes.min()}..{codes.max()}", f"codes 0..{num_classes - 1}")
    return codes


def _lines(hidden_lines: Any) -> np.ndarray:
    """Return rows (w1, w2, b, strength / largest strength)."""
    rows = np.asarray(hidden_lines, np.float64)
    if rows.size == 0:
        return np.zeros((0, 4))
    if rows.ndim != 2 or rows.shape[1] not in (3, 4):
        raise invalid("hidden_lines", f"shape {rows.shape}", "(m, 3) rows (w1, w2, b) or (m, 4) with a strength")
    if not np.isfinite(rows).all():
        raise invalid("hidden_lines", "NaN or inf", "finite numbers")
    if rows.shape[1] == 3:
        return np.column_stack([rows, np.ones(len(rows))])
    if rows[:, 3].min() < 0:
        raise invalid("hidden_lines", f"strength {rows[:, 3].min()}", "strengths >= 0")
    return np.column_stack([rows[:, :3], rows[:, 3] / divisor(rows[:, 3].max())])


def clip_lines(
    rows: Float[np.ndarray, "m 4"], low: Float[np.ndarray, " 2"], high: Float[np.ndarray, " 2"]
) -> tuple[Float[np.ndarray, "k 2 2"], Float[np.ndarray, " k"]]:
    """Return the segments of the lines ``w.x + b = 0`` inside a box, and their strengths. Other lines are left out."""
    size = np.linalg.norm(rows[:, :2], axis=1)
    rows = rows[size > 0]
    unit = rows[:, :3] / size[size > 0, None]
    centre, scale = (low + high) / 2, high - low
    # In coordinates of the box a point of a line is foot + t * along, and the box is |coordinate| <= 1/2.
    foot = -(unit[:, 2] + unit[:, :2] @ centre)[:, None] * unit[:, :2] / scale
    along = np.stack([-unit[:, 1], unit[:, 0]], axis=1) / scale
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(-0.5 - foot) / along, (0.5 - foot) / along])
    parallel = along == 0
    outside = (parallel & (np.abs(foot) > 0.5)).any(axis=1)
    enter = np.where(parallel, -np.inf, ends.min(axis=0)).max(axis=1)
    leave = np.where(parallel, np.inf, ends.max(axis=0)).min(axis=1)
    keep = (enter < leave) & ~outside
    times = np.stack([enter, leave], axis=1)[keep, :, None]
    return centre + (foot[keep, None] + times * along[keep, None]) * scale, rows[keep, 3]


def _draw_lines(ax: Any, segments: np.ndarray, strength: np.ndarray) -> None:
    collections: Any = require_extra("matplotlib.collections", "plots")
    colors: Any = require_extra("matplotlib.colors", "plots")
    rgba = np.tile(colors.to_rgba(INK), (len(segments), 1))
    rgba[:, 3] = 0.06 + 0.54 * strength
    ax.add_collection(
        collections.LineCollection(list(segments), colors=rgba, linewidths=0.4 + 1.0 * strength, zorder=2),
        autolim=False,
    )


def _codes_on_grid(predict: Callable[..., Any], low: np.ndarray, high: np.ndarray, num_classes: int) -> np.ndarray:
    """Predict the codes at the centres of the background's pixels, in blocks of equal size."""
    centres = (np.arange(_GRID) + 0.5) / _GRID
    x, y = (low[j] + centres * (high[j] - low[j]) for j in range(2))
    codes = []
    for start in range(0, _GRID, _ROWS_PER_CALL):
        block = np.stack(np.meshgrid(x, y[start : start + _ROWS_PER_CALL]), axis=-1).reshape(-1, 2)
        answer = np.asarray(predict(block))
        if answer.shape != block.shape[:1]:
            raise invalid("predict", f"an answer of shape {answer.shape}", f"{block.shape[:1]}, a code per point")
        codes.append(_check_codes("predict", answer, num_classes))
    return np.concatenate(codes).reshape(_GRID, _GRID)
