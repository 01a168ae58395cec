"""Pictures of convex geometry: files are written, and hulls are correct."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from jaxcvx.errors import InvalidInputError
from jaxcvx.plots import plot_fits, plot_gap_against_width, plot_rectified_ellipsoid
from jaxcvx.plots.geometry import hull_of


def test_pictures_are_written(tmp_path):
    grid = np.linspace(0, 1, 11)
    plot_fits(tmp_path / "a.png", x=[0, 1], y=[1, 2], grid=grid, curves={"f": grid, "g": grid**2}, kinks=[0.5])
    plot_rectified_ellipsoid(tmp_path / "b.png", X=[[1.0, 0.0], [-0.7, 0.7]])
    plot_rectified_ellipsoid(tmp_path / "c.png", X=[[1.0], [2.0]])
    plot_gap_against_width(tmp_path / "d.png", widths=[1, 2], gaps={"line": [0.1, 0.0]})
    for name in "abcd":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInputError, match="^curves"):
        plot_fits(tmp_path / "e.png", x=[0], y=[0], grid=grid, curves={"f": grid[:3]})
    with pytest.raises(InvalidInputError, match="^X: got shape"):
        plot_rectified_ellipsoid(tmp_path / "e.png", X=np.eye(3))


def test_hull():
    points = np.random.default_rng(0).standard_normal((60, 2))
    corners = hull_of(points)
    expected = points[ConvexHull(points).vertices]
    assert {tuple(p) for p in corners} == {tuple(p) for p in expected}
