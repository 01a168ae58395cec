"""Bounds over boxes: no point of a box exceeds them, they are tight for small boxes, and they allow for float32."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from jaxcvx.pricing.vertex_bound import Bounded, bound_boxes, corner_signs, rows_without


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_corners_are_all_signs_and_rows_lose_one_coordinate():
    signs = corner_signs(3)
    assert {tuple(row) for row in signs} == set(itertools.product([-1.0, 1.0], repeat=3))
    assert all((signs[k] > 0).tolist() == [bool(k >> j & 1) for j in range(3)] for k in range(8))
    rows = np.arange(6.0).reshape(2, 3)
    table = rows_without(rows)
    assert table.shape == (3, 3, 2) and table.dtype == np.float32 and not table[:, -1].any()
    np.testing.assert_array_equal(table[1, :2], rows[:, [0, 2]])


def boxes_at_random(rng, d, B, smallest=1e-4):
    width = np.exp(rng.uniform(np.log(smallest), 0, (B, 1))) * rng.uniform(0.2, 1, (B, d)) / 2
    centre = rng.uniform(-1, 1, (B, d)) * (1 - width)
    face = rng.integers(d, size=B)
    centre[np.arange(B), face], width[np.arange(B), face] = rng.choice([-1.0, 1.0], B), 0
    return centre, width


@pytest.mark.parametrize("d", [2, 5, 8])
def test_no_point_of_a_box_exceeds_its_bound(d):
    rng = np.random.default_rng(d)
    n, B = 60, 64
    rows, weights = rng.standard_normal((n, d)), rng.standard_normal((2, n))
    centre, width = boxes_at_random(rng, d, B)
    side = rng.integers(2, size=B)
    tau = 0.3 * np.abs(weights).sum()
    args = (rows, rows_without(rows), weights, np.float64(tau), side, centre, width, np.zeros(2), np.int64(60))
    found = bound_boxes(*args, capacity=64)
    corner = rng.choice([-1.0, 1.0], (200, 1, d)) * width + centre
    inside = rng.uniform(-1, 1, (200, 1, d)) * width + centre
    U = np.concatenate([corner, inside, found.point[None]])
    h = np.sum(np.maximum(U @ rows.T, 0) * weights[side], axis=2)
    excess = h - tau * np.linalg.norm(U, axis=2)
    assert (excess <= np.asarray(found.excess) + 1e-12 * tau).all()
    np.testing.assert_array_less(np.max(h[-1] / np.linalg.norm(found.point, axis=1) - found.value), 1e-9)
    tight = np.asarray(found.excess) - excess.max(axis=0)
    small = width.max(axis=1) < 3e-3
    assert small.any() and np.median(tight[small]) < 1e-3 * tau


def bounded(rows, weights, tau, centre, width, capacity=64) -> Bounded:
    side = np.zeros(len(centre), int)
    args = (rows, rows_without(rows), weights, np.float64(tau), side, centre, width, np.zeros(1))
    return bound_boxes(*args, np.int64(len(rows)), capacity=capacity)


def test_sums_take_the_rows_that_are_asked_for():
    """Whatever the capacity: the bounds are the same if no live row is left out."""
    rng = np.random.default_rng(4)
    rows, weights = rng.standard_normal((60, 4)), rng.standard_normal((1, 60))
    centre, width = boxes_at_random(rng, 4, 16, 0.05)
    wide = bounded(rows, weights, 1.0, centre, width, capacity=128)
    args = (rows, rows_without(rows), weights, np.float64(1.0), np.zeros(16, int), centre, width, np.zeros(1))
    narrow = bound_boxes(*args, np.max(np.asarray(wide.live)), capacity=64)
    np.testing.assert_allclose(narrow.excess, wide.excess, atol=1e-4)
    np.testing.assert_array_equal(narrow.live, wide.live)


def test_a_convex_function_is_bounded_by_its_largest_vertex_and_its_norm_by_a_plane():
    """Without negative weights the bound is exact but for the plane below tau |u|."""
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((20, 3)), np.abs(rng.standard_normal((1, 20)))
    centre, width = np.array([[1.0, 0.25, -0.5]]), np.array([[0.0, 0.25, 0.5]])
    vertices = centre + np.stack([np.append(0, s) for s in itertools.product([-1, 1], repeat=2)]) * width
    values = np.maximum(vertices @ rows.T, 0) @ weights[0]
    found = bounded(rows, weights, 0.0, centre, width)
    np.testing.assert_allclose(found.excess[0], values.max(), rtol=1e-4)
    assert found.excess[0] >= values.max()
    tau = 5.0
    exact = (values - tau * np.linalg.norm(vertices, axis=1)).max()
    assert exact <= bounded(rows, weights, tau, centre, width).excess[0] <= exact + tau * np.sum(width**2)


def test_only_rows_that_change_sign_in_the_box_are_live():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.5]])
    weights = np.array([[1.0, 1.0, 1.0, 1.0]])
    found = bounded(rows, weights, 1.0, np.array([[1.0, 0.5]]), np.array([[0.0, 1.0]]))
    assert found.live[0] == 1  # u = (1, t) with t from -0.5 to 1.5: only t itself changes its sign
    assert bounded(rows, weights, 1.0, np.array([[1.0, -0.5]]), np.array([[0.0, 1.0]])).live[0] == 2  # 1 + t as well


def test_the_allowance_covers_the_rounding_of_float32():
    """With positive weights alone, and tau 0, the bound is the largest vertex value and the rounding of float32."""
    rng = np.random.default_rng(1)
    rows, weights = rng.standard_normal((200, 4)), rng.random((1, 200))
    centre, width = boxes_at_random(rng, 4, 64, smallest=1e-2)
    found = bounded(rows, weights, 0.0, centre, width, capacity=256)
    corners = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    vertices = centre[:, None] + corners * width[:, None]
    exact = (np.maximum(vertices @ rows.T, 0) @ weights[0]).max(axis=1)
    assert (found.excess >= exact).all() and (found.excess <= exact * (1 + 1e-4)).all()
