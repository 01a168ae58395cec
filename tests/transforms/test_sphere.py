"""riemannian_sphere: stays on the sphere, descends along tangents, leaves the rest alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError

MATRIX = np.diag([3.0, 2.0, 1.0])
MASK = {"w": True, "s": False}


def _loss(params):
    return 0.5 * params["w"] @ MATRIX @ params["w"] + 0.5 * (params["s"] - 1) ** 2


@pytest.mark.parametrize("inner", [optax.sgd(0.1), optax.adam(0.05)])
def test_finds_the_least_eigenvector(inner):
    tx = jaxcvx.riemannian_sphere(inner, MASK)
    params = {"w": jnp.ones(3) / 3**0.5, "s": jnp.asarray(5.0)}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(_loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.linalg.norm(params["w"])

    (params, _), lengths = jax.lax.scan(step, (params, tx.init(params)), length=800)
    np.testing.assert_allclose(lengths, 1, rtol=1e-14)
    np.testing.assert_allclose(jnp.abs(params["w"]), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(params["s"], 1, atol=1e-6)


def test_one_step_by_hand():
    w, g = jnp.array([1.0, 0.0, 0.0]), jnp.array([5.0, 2.0, 0.0])
    tx = jaxcvx.riemannian_sphere(optax.sgd(0.5), lambda params: MASK)
    params = {"w": w, "s": jnp.asarray(5.0)}
    updates, _ = tx.update({"w": g, "s": jnp.asarray(4.0)}, tx.init(params), params)
    np.testing.assert_allclose(w + updates["w"], np.array([1, -1, 0]) / 2**0.5, rtol=1e-15)
    assert float(updates["s"]) == -2.0


def test_without_a_mask_it_is_the_inner_optimiser():
    tx = jaxcvx.riemannian_sphere(optax.sgd(0.5), None)
    updates, _ = tx.update(MATRIX[0], tx.init(MATRIX[0]), MATRIX[0])
    np.testing.assert_array_equal(updates, -0.5 * MATRIX[0])


def test_needs_params():
    tx = jaxcvx.riemannian_sphere(optax.sgd(0.5), None)
    with pytest.raises(InvalidInputError, match="params"):
        tx.update(MATRIX[0], tx.init(MATRIX[0]))
