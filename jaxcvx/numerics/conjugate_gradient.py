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

from jaxcvx.numerics.safe import divide, divisor


def float32_inverse(K: Float[Array, "m m"]) -> Callable[[Array], Array]:
    """The inverse of ``I + K`` for a positive semidefinite K in float32, the identity where that overflows.

    Returns:
      A function of arrays with m rows (the inverse of every column), or with m entries in all.
    """
    # Beside a large K the identity is below the rounding of the factorisation.
    shift = 1 + 4 * jnp.finfo(K.dtype).eps * jnp.max(jnp.diagonal(K))
    factor = cho_factor(K + shift * jnp.eye(K.shape[0], dtype=K.dtype))
    usable = jnp.isfinite(jnp.sum(factor[0]))

    def inverse(x):
        size = divisor(jnp.max(jnp.abs(x)))  # so that no number leaves the range of float32
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
    """Preconditioned conjugate gradients from zero to a residual of ``accuracy ||g||``, at most ``max_steps``.

    A line search does without the digits that the defaults leave out: measured, no more Newton steps than exact ones.

    Args:
      hessian: symmetric positive definite.
      precondition: roughly its inverse.
      g: right-hand side.
      accuracy: of the residual.
      max_steps: limit on steps.
      enough: another test of the residual than by its norm.
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
