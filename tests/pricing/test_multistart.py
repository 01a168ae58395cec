"""Multi-start pricing against exact pricing, a closed form on a kink, and scipy on the inner problem."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

import jaxcvx
from jaxcvx.pricing.faces import face_table, price_exact
from jaxcvx.pricing.multistart import curvature_of, least_squares_in_box, price_multistart, pricing_starts
from tests.helpers import gaussian_data


def values(X, R, U):
    return np.linalg.norm(np.maximum(np.asarray(U) @ X.T, 0) @ R, axis=1)


@pytest.mark.parametrize("c", [1, 3])
def test_finds_the_exact_maximum(c):
    X, _ = gaussian_data(0, 20, 3)
    cells = jaxcvx.enumerate_arrangements(X)
    table, Z = face_table(X, cells.masks, cells.gates), jnp.asarray(X)
    found = 0
    for seed in range(10):
        R = jnp.asarray(np.random.default_rng(seed).standard_normal((20, c)))
        exact = price_exact(table, Z, cells.masks, R)
        result = price_multistart(Z, R, pricing_starts(jax.random.key(seed), Z, R, 40), num=4)
        assert float(result.values[0]) <= float(exact.upper)
        found += float(result.values[0]) >= float(exact.values[0]) * (1 - 1e-7)
    assert found >= 9


def test_maximum_on_a_kink():
    # (u_1)_+ - 10 (x^T u)_+ with x at angle a: the best direction is orthogonal to x, with value sin(a); next
    # to it the gradient points across the kink. The other sign is smooth where it is largest: |10 x - e_1|.
    a = 0.7
    X, r = np.array([[1.0, 0.0], [np.cos(a), np.sin(a)]]), np.array([[1.0], [-10.0]])
    starts = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)))
    result = price_multistart(jnp.asarray(X), jnp.asarray(r), starts, num=12)
    np.testing.assert_allclose(result.values[0], np.linalg.norm(10 * X[1] - X[0]), rtol=1e-9)
    positive = np.sum(np.maximum(np.asarray(result.directions) @ X.T, 0) @ r, axis=1)
    np.testing.assert_allclose(positive.max(), np.sin(a), rtol=1e-6)


@pytest.mark.parametrize("c", [1, 2])
def test_never_worse_than_the_starts_and_values_are_true(c):
    X, R = gaussian_data(3, 60, 6, c)
    starts = pricing_starts(jax.random.key(1), jnp.asarray(X), jnp.asarray(R), 40)
    result = price_multistart(jnp.asarray(X), jnp.asarray(R), starts, num=8, rounds=2, inner_steps=12)
    assert float(result.values[0]) >= values(X, R, starts).max()
    np.testing.assert_allclose(np.linalg.norm(result.directions, axis=1), 1, rtol=1e-12)
    found = np.asarray(result.values) > 0
    np.testing.assert_allclose(result.values[found], values(X, R, result.directions)[found], rtol=1e-12)
    assert np.isinf(result.upper) and (np.diff(result.values) <= 0).all()


def test_inner_problem():
    X, _ = gaussian_data(1, 30, 4)
    rng = np.random.default_rng(0)
    g, cap = rng.standard_normal((3, 4)) * 5, np.maximum(rng.standard_normal((3, 30)), 0)
    lam = least_squares_in_box(
        jnp.asarray(X),
        jnp.asarray(g),
        0.0,
        jnp.asarray(cap),
        jnp.zeros((3, 30)),
        3000,
        np.linalg.norm(X, 2) ** 2,
    )
    for k in range(3):
        box = cap[k] > 0
        best = lsq_linear(X[box].T, g[k], (np.zeros(box.sum()), cap[k, box]), tol=1e-14)
        mine = 0.5 * np.sum((np.asarray(lam[k]) @ X - g[k]) ** 2)
        np.testing.assert_allclose(mine, best.cost, rtol=1e-6, atol=1e-12)
    assert (lam >= 0).all() and (lam <= cap).all()


def test_many_maxima_are_reported_once():
    # Orthogonal rows: for +r the maximum over u >= 0 is |r|; each is found from many starts.
    X, r = np.eye(3), np.array([[1.0], [2.0], [-2.0]])
    starts = jnp.asarray(np.random.default_rng(0).standard_normal((50, 3)))
    result = price_multistart(jnp.asarray(X), jnp.asarray(r), starts, num=5)
    np.testing.assert_allclose(result.values[:2], [np.sqrt(5), 2], rtol=1e-8)
    U = np.asarray(result.directions)[np.asarray(result.values) > 0]
    assert (np.linalg.norm(U[:, None] - U[None], axis=2) + np.eye(len(U)) > 1e-4).all()


def test_zero_starts_rows_and_residuals():
    X, R = gaussian_data(0, 8, 3)
    X[0] = 0
    Z, starts = jnp.asarray(X), jnp.zeros((4, 3)).at[1].set(1.0)
    result = price_multistart(Z, jnp.asarray(R), starts, num=3)
    assert float(result.values[0]) > 0 and np.isfinite(result.directions).all()
    for nothing in (0 * R, R):
        rows = Z if nothing is not R else 0 * Z
        result = price_multistart(rows, jnp.asarray(nothing), starts, num=3)
        assert not result.values.any() and np.isfinite(result.directions).all()


@pytest.mark.parametrize("hidden", [None, 7])
def test_starts(hidden):
    X, R = gaussian_data(0, 20, 4, 2)
    neurons = None if hidden is None else jnp.asarray(gaussian_data(5, hidden, 4)[0])
    first, again, other = (pricing_starts(jax.random.key(k), X, R, 50, neurons) for k in (0, 0, 1))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (50, 4) and (np.asarray(first) != np.asarray(other)).any()
    if neurons is not None:
        unit = neurons / jnp.linalg.norm(neurons, axis=1, keepdims=True)
        np.testing.assert_allclose(first[8:15], unit, rtol=1e-12)
    assert pricing_starts(jax.random.key(0), X, R, 3, neurons).shape == (3, 4)


@pytest.mark.float32
def test_float32_and_scale():
    X, R = (a.astype(np.float32) for a in gaussian_data(2, 30, 5))
    starts = pricing_starts(jax.random.key(0), X, R, 30)
    first = price_multistart(X, R, starts, num=2)
    scaled = price_multistart(np.float32(1e4) * X, np.float32(1e-7) * R, starts, num=2)
    assert first.values.dtype == jnp.float32
    np.testing.assert_allclose(scaled.values[0], 1e-3 * first.values[0], rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 3), (3, 40)])
def test_the_curvature_bounds_the_squared_norm_without_a_matrix_of_all_rows(shape):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    size = float(jnp.linalg.norm(rows, ord=2)) ** 2
    assert size <= curvature_of(rows) <= 1.02 * size
    many = jax.ShapeDtypeStruct((100_000, 5), rows.dtype)
    assert jax.jit(curvature_of).lower(many).compile().memory_analysis().temp_size_in_bytes < 2**26
