"""Extreme singular values of a Jacobian, from products with the Jacobian and its transpose only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.numerics.safe import divisor, norm

_GRAM_LIMIT = 1024


def jacobian_spectrum(
    f: Callable[[Any], Any], params: Any, *, method: str = "auto", num_steps: int = 50
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute ``(sigma_min, sigma_max)`` of the Jacobian J (n, p) of ``f`` at ``params``, for n <= p outputs.

    J is never formed: both numbers come from the products ``v -> J J^T v``. Singular values below
    ``sqrt(eps) sigma_max`` are lost in rounding. For n > p the matrix ``J J^T`` is singular, and sigma_min is 0.

    Args:
      f: function from params to outputs, a pytree of n numbers in all.
      params: pytree of p numbers in all.
      method: "gram" computes all of ``J J^T`` by n products; it is exact. "lanczos" takes ``num_steps`` products with
        full reorthogonalisation; its sigma_min is an upper bound and its sigma_max a lower bound, and both are sharp
        if ``num_steps >= n``. "auto" is "gram" up to 1024 outputs and "lanczos" beyond.
      num_steps: number of steps of Lanczos' method.

    Returns:
      Two scalars.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> low, high = jaxcvx.jacobian_spectrum(lambda p: jnp.array([3 * p[0], 2 * p[1] + p[2]]), jnp.zeros(3))
      >>> round(float(low), 3), round(float(high), 3)
      (2.236, 3.0)
    """
    if method not in ("auto", "gram", "lanczos"):
        raise invalid("method", repr(method), "'auto', 'gram' or 'lanczos'")
    theta, unravel = ravel_pytree(params)
    outputs, push = jax.linearize(lambda t: ravel_pytree(f(unravel(t)))[0], theta)
    pull = jax.linear_transpose(push, theta)
    n = outputs.size

    def product(v: Array) -> Array:
        return push(pull(v)[0])

    if method == "gram" or (method == "auto" and n <= _GRAM_LIMIT):
        gram = jax.lax.map(product, jnp.eye(n, dtype=outputs.dtype), batch_size=min(n, 64))
        values = jnp.linalg.eigvalsh((gram + gram.T) / 2)
    else:
        values = _ritz_values(product, n, min(num_steps, n), outputs.dtype)
    values = jnp.sqrt(jnp.maximum(values, 0))
    return values[0], values[-1]


def _ritz_values(product: Callable[[Array], Array], n: int, num_steps: int, dtype: Any) -> Float[Array, k]:
    """Eigenvalues of the operator on the Krylov space of a random vector (fixed seed).

    If that space has fewer than ``num_steps`` dimensions, further random directions are added to it.
    """
    random = jax.random.normal(jax.random.key(0), (num_steps, n), dtype)
    basis = jnp.zeros((num_steps, n), dtype).at[0].set(random[0] / norm(random[0]))

    def grow(k: Array, basis: Array) -> Array:
        v = product(basis[k - 1])
        for _ in range(3):  # if the space is exhausted, v is rounding noise: normalised, it is a new random direction
            v = v - basis.T @ (basis @ v)
            size = norm(v)
            v = jnp.where(size > 0, v / divisor(size), random[k])
        return basis.at[k].set(v)

    basis = jax.lax.fori_loop(1, num_steps, grow, basis)
    projected = basis @ jax.lax.map(product, basis).T
    return jnp.linalg.eigvalsh((projected + projected.T) / 2)
