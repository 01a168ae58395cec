"""Group norms and nuclear norms, their proximal operators and the derivatives of these."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.proximal.norms import (
    group_norms,
    nuclear_norms,
    shrink_groups,
    shrink_singular_values,
)

shrink = jax.jit(shrink_groups)


def blocks(seed: int) -> np.ndarray:
    """Six blocks of 3 x 2, of sizes from far below to far above 1, one of them zero."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((6, 3, 2)) * 10.0 ** rng.uniform(-3, 2, (6, 1, 1))
    W[2] = 0
    return W


def test_group_norms_and_their_derivative():
    W = blocks(0)
    expected = np.linalg.norm(W.reshape(6, -1), axis=1)
    np.testing.assert_allclose(group_norms(W), expected, rtol=1e-14)
    gradient = jax.grad(lambda W: jnp.sum(group_norms(W)))(jnp.asarray(W))
    np.testing.assert_array_equal(gradient[2], 0)
    np.testing.assert_allclose(gradient[0], W[0] / expected[0], rtol=1e-13)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.floats(-3, 2))
def test_shrinking_is_the_prox(seed, log_threshold):
    W, threshold = blocks(seed), 10.0**log_threshold
    V = np.asarray(shrink(W, threshold))
    for w, v in zip(W, V, strict=True):  # W - V is in threshold * subgradient of the norm at V
        rest = w - v
        if np.any(v != 0):
            np.testing.assert_allclose(rest, threshold * v / np.linalg.norm(v), atol=1e-12 * (1 + threshold))
        else:
            assert np.linalg.norm(rest) <= threshold * (1 + 1e-12)


def test_shrinking_at_the_edges():
    W = jnp.asarray(blocks(1))
    np.testing.assert_array_equal(shrink(W, 0.0), W)
    np.testing.assert_array_equal(shrink(W, 1e9), 0)
    at_norm = jnp.full((1, 3, 1), 1.0)
    np.testing.assert_allclose(shrink(at_norm, np.sqrt(3.0)), 0, atol=1e-15)
    gradient = jax.grad(lambda t: jnp.sum(shrink_groups(W, t)))(0.5)
    assert np.isfinite(gradient)


@pytest.mark.float32
def test_float32_is_kept():
    W = jnp.asarray(blocks(0), jnp.float32)
    assert shrink(W, jnp.float32(0.1)).dtype == group_norms(W).dtype == jnp.float32


@pytest.mark.routine(2)
@pytest.mark.parametrize("shape", [(5, 3, 2), (5, 2, 3), (5, 3, 3), (5, 3, 1)], ids=str)
def test_singular_value_shrinking_is_the_prox(shape):
    """W - V is threshold times a subgradient of the nuclear norm: spectral norm <= threshold, inner product ||V||_*."""
    W = np.random.default_rng(0).standard_normal(shape)
    V = np.asarray(shrink_singular_values(W, 0.8))
    rest = W - V
    assert np.linalg.norm(rest, ord=2, axis=(1, 2)).max() <= 0.8 * (1 + 1e-12)
    nuclear = np.linalg.norm(V, ord="nuc", axis=(1, 2))
    np.testing.assert_allclose(np.sum(rest * V, axis=(1, 2)), 0.8 * nuclear, atol=1e-12)
    np.testing.assert_allclose(nuclear_norms(V), nuclear, atol=1e-12)
    if shape[2] == 1:
        np.testing.assert_allclose(V, shrink_groups(W, 0.8), atol=1e-12)


@pytest.mark.routine(2)
@pytest.mark.parametrize("shape", [(5, 3, 2), (5, 2, 3), (5, 3, 3)], ids=str)
def test_derivative_of_singular_value_shrinking(shape):
    rng = np.random.default_rng(1)
    W, E = rng.standard_normal((2, *shape))
    for direction in ((E, 0.0), (np.zeros(shape), 1.0)):
        tangent = jax.jvp(shrink_singular_values, (W, 0.8), direction)[1]
        plus, minus = (shrink_singular_values(W + h * direction[0], 0.8 + h * direction[1]) for h in (1e-6, -1e-6))
        np.testing.assert_allclose(tangent, (plus - minus) / 2e-6, atol=1e-8)


def test_derivative_of_singular_value_shrinking_at_repeated_values():
    E = jnp.asarray(np.random.default_rng(2).standard_normal((1, 3, 3)))
    for W, expected in ((jnp.zeros((1, 3, 3)), 0 * E), (0.5 * jnp.eye(3)[None], 0 * E)):
        np.testing.assert_allclose(jax.jvp(lambda W: shrink_singular_values(W, 0.8), (W,), (E,))[1], expected)
    symmetric, skew = 0.5 * (E + E.swapaxes(1, 2)), 0.5 * (E - E.swapaxes(1, 2))
    tangent = jax.jvp(lambda W: shrink_singular_values(W, 0.5), (2 * jnp.eye(3)[None],), (E,))[1]
    np.testing.assert_allclose(tangent, symmetric + 0.75 * skew, atol=1e-13)
