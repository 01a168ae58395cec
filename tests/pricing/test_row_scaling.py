"""Scaled rows: no price changes by more than the allowance, whatever the rows; ascents never fall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.pricing.host import ascend
from jaxcvx.pricing.row_scaling import ASCENTS, Scaled, scaled_rows, starts
from tests.helpers import gaussian_data


def prices(Z, R, U) -> np.ndarray:
    return np.linalg.norm(np.maximum(U @ Z.T, 0) @ R, axis=1)


def check(Z, R, seed: int = 0) -> Scaled:
    """For random units u the price is at most the scaled one plus the allowance; scaled neurons exist unscaled."""
    found = scaled_rows(Z, R)
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((50, Z.shape[1]))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    scaled = prices(found.directions, found.weights, U @ found.basis) if len(found.weights) else np.zeros(50)
    assert (prices(Z, R, U) <= found.scale * (scaled + found.allowance) * (1 + 1e-13)).all()
    if len(found.weights):
        W = rng.standard_normal((50, found.basis.shape[1]))
        W /= np.linalg.norm(W, axis=1, keepdims=True)
        here, there = prices(found.directions, found.weights, W), prices(Z, R, W @ found.basis.T)
        np.testing.assert_allclose(found.scale * here, there, atol=found.scale * (found.allowance + 1e-12))
        np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1.0, rtol=1e-12)
    return found


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 6), st.integers(1, 3), st.integers(-8, 8))
def test_no_price_changes_by_more_than_the_allowance(seed, n, p, c, power):
    Z, R = gaussian_data(seed, n, p, c)
    found = check(10.0**power * Z, 10.0**-power * R, seed)
    assert found.allowance < 1e-10


def test_equal_rows_are_merged_and_rows_without_effect_left_out():
    Z, R = gaussian_data(0, 8, 3)
    Z[1], R[1] = Z[0], 2 * R[0]
    Z[2], R[2] = Z[3], -R[3]
    Z[4], R[5] = 0, 0
    found = check(Z, R)
    assert len(found.weights) == 3
    nothing = scaled_rows(np.stack([Z[0], Z[0]]), np.array([[1.0], [-1.0]]))
    assert not len(nothing.weights)
    for rows, residual in ((0 * Z, R), (Z, 0 * R)):
        empty = scaled_rows(rows, residual)
        assert not len(empty.weights) and empty.scale * empty.allowance == 0


def test_axes_and_outputs_without_rows_are_left_out():
    Z, R = gaussian_data(1, 12, 3, 2)
    flat = np.concatenate([Z, Z[:, :1] - Z[:, 1:2]], axis=1)
    assert check(flat, R).basis.shape == (4, 3)
    one = check(Z, R[:, :1] @ np.array([[0.6, -0.8]]))
    assert one.weights.shape == (12, 1)
    assert check(Z, R).weights.shape == (12, 2)


def test_what_is_left_out_is_in_the_allowance():
    """A thin axis and a thin output count with their size, here made large enough to see."""
    Z, R = gaussian_data(2, 10, 3, 2)
    Z[:, 2] *= 1e-13
    R[:, 1] = R[:, 0] + 1e-13 * R[:, 1]
    found = check(Z, R)
    assert found.basis.shape == (3, 2) and found.weights.shape[1] == 1
    assert found.scale * found.allowance > np.abs(R[:, 0]) @ np.abs(Z[:, 2])


@pytest.mark.parametrize("c", [1, 3])
def test_ascents_end_at_a_price_that_their_neuron_has(c):
    Z, R = gaussian_data(3, 30, 5, c)
    found = scaled_rows(Z, R)
    U = starts(found)
    np.testing.assert_allclose(np.linalg.norm(U, axis=1), 1.0, rtol=1e-12)
    first = prices(found.directions, found.weights, U).max()
    best, u = ascend(found.directions, found.weights, U, ASCENTS)
    assert best > first
    np.testing.assert_allclose(prices(found.directions, found.weights, u[None])[0], best, rtol=1e-12)
    np.testing.assert_allclose(best, 1.0, atol=0.02)  # the scale is that of ascents
