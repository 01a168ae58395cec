"""Directions of negative curvature: at a stationary point that has one, the objective is not least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool

from jaxcvx.numerics.safe import divisor

_PRODUCTS = 20


def has_negative_curvature(objective: Callable[[Any], Array], params: Any) -> Bool[Array, ""]:
    """True if a direction is found along which the objective has negative curvature, by the power method.

    The first run finds the Hessian's largest eigenvalue in absolute value. The second one, on the Hessian shifted by
    it, goes to the smallest eigenvalue. Only a curvature below -1e-3 of the largest counts, which no rounding brings.
    Works under jit and vmap. False proves nothing.

    >>> import jax.numpy as jnp
    >>> bool(has_negative_curvature(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2)))
    True
    """
    flat, unravel = ravel_pytree(params)

    def product(direction: Array) -> Array:
        slope = jax.grad(lambda x: objective(unravel(x)))
        return jax.grad(lambda x: jnp.vdot(slope(x), direction))(flat)  # functions with a custom_vjp allow no jvp

    def unit(direction: Array) -> Array:
        return direction / divisor(jnp.linalg.norm(direction))

    start = unit(jax.random.normal(jax.random.key(0), flat.shape, flat.dtype))
    top = jax.lax.fori_loop(0, _PRODUCTS, lambda _, v: unit(product(v)), start)
    largest = jnp.linalg.norm(product(top))
    low = jax.lax.fori_loop(0, _PRODUCTS, lambda _, v: unit(largest * v - product(v)), start)
    curvature = jnp.minimum(jnp.vdot(low, product(low)), jnp.vdot(top, product(top)))
    return curvature < -1e-3 * largest
