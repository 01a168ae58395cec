"""The arc-cosine kernel: against sampling, a naive formula's derivatives, and at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.numerics.arc_cosine import angle, kernel_deficit
from jaxcvx.numerics.safe import norm


def _naive(u, v):
    cosine = u @ v / jnp.sqrt(u @ u) / jnp.sqrt(v @ v)
    phi = jnp.arccos(cosine)
    g = (jnp.pi - phi) * cosine + jnp.sqrt(1 - cosine**2)
    return jnp.sqrt(u @ u) * jnp.sqrt(v @ v) * (jnp.pi - g) / (2 * jnp.pi)


def _pair(seed: int):
    return jax.random.normal(jax.random.key(seed), (2, 5))


def test_is_half_the_product_of_norms_less_the_mean_product_of_relus():
    u, v = _pair(0)
    Z = np.random.default_rng(0).standard_normal((1_000_000, 5))
    product = np.maximum(Z @ np.asarray(u), 0) * np.maximum(Z @ np.asarray(v), 0)
    expected = np.linalg.norm(u) * np.linalg.norm(v) / 2 - product.mean()
    assert abs(float(kernel_deficit(u, v)) - expected) < 4 * product.std() / 1000


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(3))
def test_value_gradient_and_hessian_at_generic_points(seed):
    u, v = _pair(seed)
    np.testing.assert_allclose(kernel_deficit(u, v), _naive(u, v), rtol=1e-13)
    for at in (0, 1):
        np.testing.assert_allclose(jax.grad(kernel_deficit, at)(u, v), jax.grad(_naive, at)(u, v), atol=1e-13)
    np.testing.assert_allclose(jax.hessian(kernel_deficit)(u, v), jax.hessian(_naive)(u, v), atol=1e-12)


def test_ends_of_the_angle():
    u = _pair(0)[0]
    assert float(kernel_deficit(u, 2 * u)) < 1e-15
    np.testing.assert_allclose(jax.grad(kernel_deficit)(u, 2 * u), 0, atol=1e-15)
    np.testing.assert_allclose(kernel_deficit(u, -u), u @ u / 2, rtol=1e-15)
    np.testing.assert_allclose(jax.grad(kernel_deficit)(u, -u), u / 2, rtol=1e-14)
    # Limits of the Hessian along curves: the derivative of a smooth gradient.
    side = jnp.array([1.0, -1, 0, 0, 0]) * 1e-6
    for end in (u, -u):
        near = (jax.grad(kernel_deficit)(u + side, end) - jax.grad(kernel_deficit)(u - side, end)) / 2e-6
        at = jax.hessian(kernel_deficit)(u, end) @ (side / 1e-6)
        np.testing.assert_allclose(at, near, atol=1e-5)


def test_small_angles_keep_their_digits():
    u = jnp.array([1.0, 0.0])
    for phi in (1e-3, 1e-7, 1e-12):
        v = jnp.array([np.cos(phi), np.sin(phi)])
        np.testing.assert_allclose(angle(u, v), phi, rtol=1e-9)
        np.testing.assert_allclose(kernel_deficit(u, v), phi**2 / 4, rtol=1e-3)
        np.testing.assert_allclose(angle(u, -v), np.pi - phi, rtol=1e-15)


def test_zero_vectors_give_no_nan():
    zero, v = jnp.zeros(5), _pair(0)[1]
    assert float(norm(zero)) == 0 and float(kernel_deficit(zero, v)) == 0
    assert np.isfinite(jax.grad(kernel_deficit)(zero, v)).all()
