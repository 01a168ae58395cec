"""Pictures of convex geometry show their data, and their hulls are right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from jaxcvx.errors import InvalidInputError
from jaxcvx.plots import plot_fits, plot_gap_against_width, plot_rectified_ellipsoid
from jaxcvx.plots.figure import BLACK, BLUE, GREEN, VERMILLION, new_figure
from jaxcvx.plots.geometry import draw_fits, draw_rectified_ellipsoid, hull_of
from tests.helpers import has_color, read_picture


def test_fits_show_every_curve_the_samples_and_the_kinks(tmp_path):
    grid = np.linspace(0, 1, 11)
    plot_fits(tmp_path / "a.png", x=[0, 1], y=[1, 2], grid=grid, curves={"f": grid, "g": grid**2}, kinks=[0.5])
    image = read_picture(tmp_path / "a.png")
    assert all(has_color(image, color) for color in (BLUE, VERMILLION, BLACK)) and not has_color(image, GREEN)
    ax = new_figure(6, 4).subplots()
    draw_fits(ax, [0, 1], [1, 2], grid, {"f": grid, "g": grid**2}, [0.5])
    kink, first, second, samples = ax.lines
    np.testing.assert_array_equal(kink.get_xdata(), [0.5, 0.5])
    np.testing.assert_array_equal(first.get_ydata(), grid)
    np.testing.assert_array_equal(second.get_xydata(), np.stack([grid, grid**2], axis=1))
    np.testing.assert_array_equal(samples.get_xydata(), [[0, 1], [1, 2]])


@pytest.mark.parametrize("X", [[[1.0, 0.0], [-0.7, 0.7]], [[1.0], [2.0]]], ids=["plane", "line"])
def test_rectified_ellipsoid_is_the_positive_part_of_the_ellipsoid(tmp_path, X):
    plot_rectified_ellipsoid(tmp_path / "b.png", X=X)
    image = read_picture(tmp_path / "b.png")
    assert has_color(image, BLUE) and has_color(image, VERMILLION)
    ax = new_figure(4, 4).subplots()
    draw_rectified_ellipsoid(ax, X)
    ellipse, rectified = (line.get_xydata() for line in ax.lines[:2])
    np.testing.assert_array_equal(rectified, np.maximum(ellipse, 0))
    largest = np.linalg.svd(X)[1][0]
    np.testing.assert_allclose(np.linalg.norm(ellipse, axis=1).max(), largest, rtol=1e-5)


def test_gap_against_width_shows_its_line(tmp_path):
    plot_gap_against_width(tmp_path / "d.png", widths=[1, 2, 3], gaps={"line": [0.1, 0.01, 0.0]})
    assert has_color(read_picture(tmp_path / "d.png"), BLUE)


def test_wrong_shapes_are_refused_by_name(tmp_path):
    with pytest.raises(InvalidInputError, match="^curves"):
        plot_fits(tmp_path / "e.png", x=[0], y=[0], grid=np.linspace(0, 1, 11), curves={"f": np.zeros(3)})
    with pytest.raises(InvalidInputError, match="^X: got shape"):
        plot_rectified_ellipsoid(tmp_path / "e.png", X=np.eye(3))
    assert not list(tmp_path.iterdir())


def test_hull():
    points = np.random.default_rng(0).standard_normal((60, 2))
    corners = hull_of(points)
    expected = points[ConvexHull(points).vertices]
    assert {tuple(p) for p in corners} == {tuple(p) for p in expected}
