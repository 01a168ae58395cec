"""Newton systems solved roughly: conjugate gradients, preconditioned by a factorisation in float32.

A factorisation in float32 takes half the time of one in float64; the products that conjugate gradients make are in the
problem's precision, so nothing is lost but the last digits of a direction, which a line search does without.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

_RESIDUAL = 1e-3
_MAX_STEPS = 20


def float32_inverse(K: Float[Array, "m m"]) -> Callable[[Array], Array]:
    """The inverse of ``I + K`` for a positive semidefinite K (in float32), as a function of arrays with m entries in
    their first axis, or in all; the identity where the factorisation fails."""
    # Beside a large K the identity is below the rounding of the factorisation.
    shift = 1 + 4 * jnp.finfo(K.dtype).eps * jnp.max(jnp.diagonal(K))
    factor = cho_factor(K + shift * jnp.eye(K.shape[0], dtype=K.dtype))

    def inverse(x):
        largest = jnp.max(jnp.abs(x))
        size = jnp.where(largest > 0, largest, 1.0)  # so that no number leaves the range of float32
        rounded = (x / size).astype(K.dtype)
        rounded = rounded if x.shape[0] == K.shape[0] else rounded.reshape(-1)
        solved = cho_solve(factor, rounded).reshape(x.shape).astype(x.dtype) * size
        return jnp.where(jnp.all(jnp.isfinite(solved)), solved, x)

    return inverse


def conjugate_gradients(
    hessian: Callable[[Array], Array], precondition: Callable[[Array], Array], g: Float[Array, "n c"]
) -> Float[Array, "n c"]:
    """Preconditioned conjugate gradients to a residual of ``1e-3 ||g||``, at most 20 of them."""
    z = precondition(g)

    def iteration(carry):
        x, r, p, rho, count = carry
        q = hessian(p)
        curvature = jnp.sum(p * q)
        length = jnp.where(curvature > 0, rho / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        x, r = x + length * p, r - length * q
        z = precondition(r)
        new = jnp.sum(r * z)
        return x, r, z + new / jnp.where(rho > 0, rho, 1.0) * p, new, count + 1

    def unfinished(carry):
        _, r, _, rho, count = carry
        return (jnp.linalg.norm(r) > _RESIDUAL * jnp.linalg.norm(g)) & (rho > 0) & (count < _MAX_STEPS)

    begin = (jnp.zeros_like(g), g, z, jnp.sum(g * z), 0)
    return jax.lax.while_loop(unfinished, iteration, begin)[0]
