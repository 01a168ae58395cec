"""Extreme singular values without the Jacobian, against numpy's SVD of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError


def _f(params):
    return {"out": jnp.tanh(params["W"] @ jnp.arange(1.0, 6.0)) * params["s"], "more": params["W"][0]}


def _params():
    return {"W": jnp.asarray(np.random.default_rng(0).standard_normal((7, 5)) / 5), "s": jnp.asarray(1.5)}


@pytest.mark.routine(2)
@pytest.mark.parametrize("method", ["auto", "gram", "lanczos"])
def test_against_the_svd(method):
    J = jax.jacobian(lambda p: jnp.concatenate(jax.tree.leaves(_f(p))))(_params())
    J = np.concatenate([np.asarray(J[name]).reshape(12, -1) for name in ("W", "s")], axis=1)
    values = np.linalg.svd(J, compute_uv=False)
    low, high = jaxcvx.jacobian_spectrum(_f, _params(), method=method)
    np.testing.assert_allclose([low, high], values[[-1, 0]], rtol=1e-7)


def test_lanczos_brackets():
    A = jnp.asarray(np.random.default_rng(1).standard_normal((60, 90)))
    values = np.linalg.svd(A, compute_uv=False)
    low, high = jaxcvx.jacobian_spectrum(lambda x: A @ x, jnp.zeros(90), method="lanczos", num_steps=15)
    assert values[-1] <= low and 0.97 * values[0] <= high <= values[0] * (1 + 1e-12)


def test_lanczos_on_equal_singular_values():
    low, high = jaxcvx.jacobian_spectrum(lambda x: 3 * x, jnp.zeros(6), method="lanczos")
    np.testing.assert_allclose([low, high], 3, rtol=1e-12)


def test_more_outputs_than_params_have_no_least_singular_value():
    A = jnp.asarray(np.random.default_rng(1).standard_normal((9, 4)))
    assert float(jaxcvx.jacobian_spectrum(lambda x: A @ x, jnp.zeros(4))[0]) < 1e-6


def test_unknown_methods_are_refused():
    with pytest.raises(InvalidInputError, match="method"):
        jaxcvx.jacobian_spectrum(_f, _params(), method="svd")
