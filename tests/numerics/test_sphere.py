"""Spheres inside a pytree: tangents, retraction."""

import jax.numpy as jnp
import numpy as np

from jaxcvx.numerics.sphere import retract, tangent, unit

PARAMS = {"w": np.array([[0.6, 0.0], [0.0, 0.8]]), "a": np.array([3.0, 4.0])}
MASK = {"w": True, "a": False}


def test_tangent_removes_the_radial_part_of_masked_arrays():
    gradient = {"w": jnp.ones((2, 2)), "a": jnp.ones(2)}
    projected = tangent(MASK, PARAMS, gradient)
    np.testing.assert_allclose(np.sum(projected["w"] * PARAMS["w"]), 0, atol=1e-15)
    np.testing.assert_allclose(projected["w"], 1 - 1.4 * PARAMS["w"])
    np.testing.assert_array_equal(projected["a"], 1)
    assert tangent(None, PARAMS, gradient) is gradient


def test_retract_normalises_masked_arrays():
    moved = retract(MASK, {"w": 5 * PARAMS["w"], "a": PARAMS["a"]})
    np.testing.assert_allclose(moved["w"], PARAMS["w"], rtol=1e-15)
    np.testing.assert_array_equal(moved["a"], PARAMS["a"])
    assert retract(None, PARAMS) is PARAMS
    assert not unit(jnp.zeros(3)).any()
