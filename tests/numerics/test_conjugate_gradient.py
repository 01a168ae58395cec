"""Newton systems: the float32 inverse as a preconditioner, and what conjugate gradients promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.numerics.conjugate_gradient import conjugate_gradients, float32_inverse

M = 12


def system(condition: float, columns: int = 1):
    """A positive definite I + K of about the given condition, and a right-hand side, in float64."""
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((M, M)))
    K = (Q * np.geomspace(1e-3, condition, M)) @ Q.T
    return K, rng.standard_normal((M, columns))


@pytest.mark.parametrize("columns", [1, 3])
def test_inverse_of_every_column(columns):
    K, g = system(10.0, columns)
    found = float32_inverse(jnp.asarray(K, jnp.float32))(jnp.asarray(g))
    assert found.dtype == g.dtype
    np.testing.assert_allclose(found, np.linalg.solve(np.eye(M) + K, g), rtol=1e-4, atol=1e-5)


def test_inverse_of_all_entries_at_once():
    K, g = system(10.0)
    inverse = float32_inverse(jnp.asarray(K, jnp.float32))
    np.testing.assert_array_equal(inverse(g.reshape(4, 3)), inverse(g).reshape(4, 3))


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_right_hand_sides_beyond_the_range_of_float32(scale):
    K, g = system(10.0)
    inverse = float32_inverse(jnp.asarray(K, jnp.float32))
    np.testing.assert_allclose(inverse(jnp.asarray(scale * g)) / scale, inverse(jnp.asarray(g)), rtol=1e-6)


def test_without_a_factorisation_it_is_the_identity():
    K, g = system(10.0)
    for broken in (np.full((M, M), np.nan), np.full((M, M), np.inf)):
        np.testing.assert_array_equal(float32_inverse(jnp.asarray(broken, jnp.float32))(jnp.asarray(g)), g)


@pytest.mark.routine(2)
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e7])
def test_residual_and_number_of_steps(condition):
    K, g = system(condition)
    H = np.eye(M) + K
    inverse = float32_inverse(jnp.asarray(K, jnp.float32))

    def residual(x):
        return np.linalg.norm(H @ np.asarray(x) - g) / np.linalg.norm(g)

    rough = conjugate_gradients(lambda x: H @ x, inverse, jnp.asarray(g))
    exact = conjugate_gradients(lambda x: H @ x, inverse, jnp.asarray(g), accuracy=1e-10, max_steps=50)
    assert residual(rough) <= 1.001e-3 and residual(exact) <= 1.1e-10 + 1e-15 * condition
    none = conjugate_gradients(lambda x: H @ x, inverse, jnp.asarray(g), max_steps=0)
    np.testing.assert_array_equal(none, np.zeros_like(g))
    one = conjugate_gradients(lambda x: H @ x, inverse, jnp.asarray(g), accuracy=1e-14, max_steps=1)
    assert residual(one) < 1e-3 or condition > 1e4  # the preconditioner is nearly the inverse


def test_another_test_of_the_residual():
    K, g = system(1e4)
    H, seen = np.eye(M) + K, []

    def first_entry_is_small(r):
        jax.debug.callback(lambda r: seen.append(np.asarray(r)), r)
        return jnp.abs(r[0, 0]) <= 1e-6

    x = conjugate_gradients(lambda x: H @ x, lambda r: r, jnp.asarray(g), max_steps=200, enough=first_entry_is_small)
    jax.effects_barrier()
    residual = g - H @ np.asarray(x)
    assert abs(residual[0, 0]) <= 2e-6 and all(abs(r[0, 0]) > 1e-6 for r in seen[:-1])


def test_zero_and_broken_right_hand_sides_end():
    K, g = system(10.0)
    H, inverse = np.eye(M) + K, float32_inverse(jnp.asarray(K, jnp.float32))
    np.testing.assert_array_equal(conjugate_gradients(lambda x: H @ x, inverse, jnp.zeros((M, 1))), np.zeros((M, 1)))
    assert conjugate_gradients(lambda x: H @ x, inverse, jnp.full((M, 1), jnp.nan)).shape == (M, 1)
