"""Approximate solution of Newton systems by conjugate gradients with a preconditioner in float32.

A factorisation in float32 takes half the time of one in float64. The conjugate gradients compute their products in the
problem's own precision. So only the last digits of the direction are lost, and a line search does not need them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide, divisor


def float32_inverse(K: Float[Array, "m m"]) -> Callable[[Array], Array]:
    """The inverse of ``I + K`` by a Cholesky factorisation in the dtype of K.

    If the factorisation overflows, the inverse is replaced by the identity.

    Args:
      K: positive semidefinite matrix in float32.

    Returns:
      A function that multiplies by the inverse. Its argument has m rows, or m entries in another shape.
    """
    # The factorisation of a large K rounds the identity away; the shift keeps the matrix positive definite.
    shift = 1 + 4 * jnp.finfo(K.dtype).eps * jnp.max(jnp.diagonal(K))
    factor = cho_factor(K + shift * jnp.eye(K.shape[0], dtype=K.dtype))
    usable = jnp.isfinite(jnp.sum(factor[0]))

    def inverse(x):
        size = divisor(jnp.max(jnp.abs(x)))  # keeps every number in the range of float32
        rounded = (x / size).astype(K.dtype)
        rounded = rounded if x.shape[0] == K.shape[0] else rounded.reshape(-1)
        solved = cho_solve(factor, rounded).reshape(x.shape).astype(x.dtype) * size
        return jnp.where(usable, solved, x)

    return inverse


def conjugate_gradients(
    hessian: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    g: Float[Array, "n c"],
    accuracy: float = 1e-3,
    max_steps: int = 20,
    enough: Callable[[Array], Array] | None = None,
) -> Float[Array, "n c"]:
    """Solve ``hessian(x) = g`` by preconditioned conjugate gradients that start at zero.

    The iteration stops when the norm of the residual is at most ``accuracy ||g||``, or after ``max_steps`` steps. The
    default accuracy suffices for a Newton direction: measured, it takes no more Newton steps than exact solutions.

    Args:
      hessian: a function that multiplies by a symmetric positive definite matrix.
      precondition: a function that multiplies by an approximate inverse of that matrix.
      g: right-hand side.
      accuracy: norm of the residual, relative to that of g, at which the iteration stops.
      max_steps: limit on the number of steps.
      enough: a test of the residual that replaces the test of its norm.

    Returns:
      The approximate solution x.
    """
    z = precondition(g)
    tolerable = accuracy * jnp.linalg.norm(g)
    accepts = enough or (lambda r: jnp.linalg.norm(r) <= tolerable)

    def iteration(carry):
        x, r, p, rho, count = carry
        q = hessian(p)
        curvature = jnp.sum(p * q)
        length = divide(rho, curvature)
        x, r = x + length * p, r - length * q
        z = precondition(r)
        new = jnp.sum(r * z)
        return x, r, z + new / divisor(rho) * p, new, count + 1

    def unfinished(carry):
        _, r, _, rho, count = carry
        return ~accepts(r) & (rho > 0) & (count < max_steps)

    begin = (jnp.zeros_like(g), g, z, jnp.sum(g * z), 0)
    return jax.lax.while_loop(unfinished, iteration, begin)[0]
