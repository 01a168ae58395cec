"""Saddle points are told from minima."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.numerics.curvature import has_negative_curvature


@pytest.mark.parametrize("least", [-1.0, -0.05, 0.0, 0.3])
def test_the_sign_of_the_least_eigenvalue(least):
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    H = Q @ np.diag([least, 0.5, 0.5, 0.6, 0.8, 1.0]) @ Q.T
    found = jax.jit(lambda x: has_negative_curvature(lambda x: 0.5 * x["a"] @ H @ x["a"], x))({"a": jnp.zeros(6)})
    assert bool(found) == (least < 0)


def test_it_works_under_vmap_and_with_custom_gradients():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    signs = jnp.array([1.0, -1.0])
    found = jax.vmap(lambda s: has_negative_curvature(lambda x: s * jnp.sum(square(x)), jnp.zeros(3)))(signs)
    assert found.tolist() == [False, True]
