"""Pictures of the convex geometry of networks: fits on a line, rectified ellipsoids, duality gaps against width."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcvx.errors import invalid
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
    new_figure,
    save_png,
    style,
)

_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


def draw_fits(
    ax: Any,
    x: Any,
    y: Any,
    grid: Any,
    curves: Mapping[str, Any],
    kinks: Sequence[float] = (),
    title: str = "",
) -> None:
    """Draw the picture of :func:`plot_fits` on given axes."""
    style(ax)
    for kink in kinks:
        ax.axvline(kink, color=FAINT, linewidth=0.7, alpha=0.5, zorder=0)
    for place, (name, values) in enumerate(curves.items()):
        color, dash = _COLORS[place % len(_COLORS)], _DASHES[place % len(_DASHES)]
        ax.plot(grid, values, color=color, linestyle=dash, linewidth=2.2 if place == 0 else 1.5, label=name)
    ax.plot(x, y, "o", color=BLACK, markersize=5, zorder=5)
    ax.set_xlabel("x")
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.legend(frameon=False, fontsize=8.5)


def plot_fits(
    path: str | os.PathLike[str],
    *,
    x: Any,
    y: Any,
    grid: Any,
    curves: Mapping[str, Any],
    kinks: Sequence[float] = (),
    title: str = "",
) -> None:
    """Save a picture of functions fitted to samples of one feature.

    Args:
      path: the PNG to write.
      x, y: (n,) samples, drawn as dots.
      grid: (k,) places at which the functions are known.
      curves: name and (k,) values of each function. The first one is drawn thicker.
      kinks: places of a network's kinks, ``-b_j / u_j``, drawn as thin vertical lines.
      title: a line above the picture.

    Raises:
      InvalidInputError: the shapes of a curve and of the grid differ.

    Example:
      >>> import os, tempfile
      >>> from jaxcvx.plots import plot_fits
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "fits.png")
      ...     plot_fits(path, x=[0, 1], y=[0, 1], grid=[0, 0.5, 1], curves={"network": [0, 0.2, 1]}, kinks=[0.5])
      ...     os.listdir(folder)
      ['fits.png']
    """
    grid = np.asarray(grid, float)
    for name, values in curves.items():
        if np.shape(values) != grid.shape:
            raise invalid(f"curves[{name!r}]", f"shape {np.shape(values)}", f"{grid.shape}, that of grid")
    figure = new_figure(6.4, 4.2)
    draw_fits(figure.subplots(), x, y, grid, curves, kinks, title)
    save_png(figure, path)


def draw_rectified_ellipsoid(ax: Any, X: Any, title: str = "") -> None:
    """Draw the picture of :func:`plot_rectified_ellipsoid` on given axes."""
    X = np.asarray(X, float)
    if X.ndim != 2 or X.shape[0] != 2:
        raise invalid("X", f"shape {X.shape}", "two samples (2, d), for a picture in the plane")
    left, size, _ = np.linalg.svd(X)
    size = np.pad(size, (0, 2 - len(size)))
    angle = np.linspace(0, 2 * np.pi, 2001)
    ellipse = left @ (size[:, None] * np.stack([np.cos(angle), np.sin(angle)]))
    rectified = np.maximum(ellipse, 0)
    corners = hull_of(np.concatenate([rectified.T, np.zeros((1, 2))]))
    style(ax)
    ax.fill(*corners.T, color=SKY, alpha=0.35, linewidth=0, label="convex hull")
    ax.plot(*ellipse, color=FAINT, linewidth=1.2, label="ellipsoid {Xu : |u| ≤ 1}")
    ax.plot(*rectified, color=BLUE, linewidth=2.4, label="rectified {(Xu)₊}")
    edges = np.linalg.norm(np.diff(corners, axis=0, append=corners[:1]), axis=1)
    vertex = corners[np.maximum(edges, np.roll(edges, 1)) > 0.05 * np.abs(ellipse).max()]
    ax.plot(*vertex.T, "o", color=VERMILLION, markersize=6, label="ends of flat faces")
    ax.set(aspect="equal", xlabel="sample 1", ylabel="sample 2")
    ax.set_title(title, fontsize=10, color=INK, loc="left")


def plot_rectified_ellipsoid(path: str | os.PathLike[str], *, X: Any, title: str = "") -> None:
    """Save a picture of the activations {(X u)_+ : ||u|| <= 1} of two samples, with their convex hull.

    For spike-free data the activations are the part of the ellipse in the positive quadrant. Other data have spikes
    along the axes.

    Args:
      path: the PNG to write.
      X: (2, d) two samples.
      title: a line above the picture.

    Example:
      >>> import os, tempfile
      >>> from jaxcvx.plots import plot_rectified_ellipsoid
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plot_rectified_ellipsoid(os.path.join(folder, "ellipsoid.png"), X=[[1.0, 0.0], [-0.5, 1.0]])
      ...     os.listdir(folder)
      ['ellipsoid.png']
    """
    figure = new_figure(4.6, 4.6)
    ax = figure.subplots()
    draw_rectified_ellipsoid(ax, X, title)
    ax.legend(frameon=False, fontsize=8)
    save_png(figure, path)


def hull_of(points: np.ndarray) -> np.ndarray:
    """Compute the corners (k, 2) of the convex hull of points in the plane, counter-clockwise.

    Source: A. M. Andrew, "Another efficient algorithm for convex hulls in two dimensions" (1979).
    """
    ordered = np.unique(points, axis=0)
    chains = []
    for walk in (ordered, ordered[::-1]):
        chain: list[np.ndarray] = []
        for point in walk:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1])
    return np.array(chains[0] + chains[1])


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def draw_gaps(
    ax: Any,
    widths: Sequence[int],
    gaps: Mapping[str, Any],
    floor: float = 1e-12,
    optimum: int | None = None,
) -> None:
    """Draw the picture of :func:`plot_gap_against_width` on given axes, with a line at the width ``optimum``."""
    style(ax)
    if optimum is not None:
        ax.axvline(optimum, color=INK, linewidth=0.9, linestyle=":", label=f"width of the optimum: {optimum}")
    for place, (name, values) in enumerate(gaps.items()):
        shown = np.maximum(np.asarray(values, float), floor)
        ax.plot(widths, shown, "o-", color=_COLORS[place % len(_COLORS)], linewidth=1.6, markersize=5, label=name)
    ax.set(yscale="log", xlabel="hidden neurons m", ylabel="relative duality gap")
    ax.legend(frameon=False, fontsize=8.5)


def plot_gap_against_width(
    path: str | os.PathLike[str], *, widths: Sequence[int], gaps: Mapping[str, Any], title: str = ""
) -> None:
    """Save a picture of the relative gap between the best network of each width and the dual optimum.

    Args:
      path: the PNG to write.
      widths: (k,) numbers of neurons.
      gaps: name and (k,) relative gaps of each curve. Gaps below 1e-12 are drawn at 1e-12.
      title: a line above the picture.

    Example:
      >>> import os, tempfile
      >>> from jaxcvx.plots import plot_gap_against_width
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "gaps.png")
      ...     plot_gap_against_width(path, widths=[1, 2, 4], gaps={"Adam": [0.5, 0.1, 1e-3]})
      ...     os.listdir(folder)
      ['gaps.png']
    """
    figure = new_figure(6.0, 4.0, title)
    draw_gaps(figure.subplots(), widths, gaps)
    save_png(figure, path)
