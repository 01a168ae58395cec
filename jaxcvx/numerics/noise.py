"""Random perturbations of pytrees: uniform in a ball, uniform on its surface, or Gaussian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics.safe import divisor, norm

KINDS = ("ball", "sphere", "normal")


def check_noise(noise: str) -> None:
    """Raise InvalidInputError unless ``noise`` is one of KINDS."""
    if noise not in KINDS:
        raise invalid("noise", repr(noise), "'ball', 'sphere' or 'normal'")


def draw_noise(key: PRNGKeyArray, params: Any, radii: Any, noise: str) -> Any:
    """Draw a random pytree like ``params``. Leaves are independent of each other.

    Args:
      key: jax random key.
      params: pytree of arrays; a leaf with d entries counts as a vector in R^d.
      radii: pytree like ``params`` that holds one radius for each leaf.
      noise: "ball" for the uniform distribution in the ball of that radius; "sphere" for the uniform distribution on
        its surface; "normal" for independent normal entries with that standard deviation, so that the leaf's length
        is about ``sqrt(d)`` times the radius.
    """
    count = len(jax.tree.leaves(params))
    keys = jax.tree.unflatten(jax.tree.structure(params), list(jax.random.split(key, count)))
    return jax.tree.map(lambda k, leaf, radius: _leaf(k, leaf, radius, noise), keys, params, radii)


def _leaf(key: PRNGKeyArray, leaf: Array, radius: Any, noise: str) -> Array:
    direction, length = jax.random.split(key)
    radius = jnp.asarray(radius, leaf.dtype)
    normal = jax.random.normal(direction, leaf.shape, leaf.dtype)
    if noise == "normal":
        return radius * normal
    if noise == "ball":
        radius *= jax.random.uniform(length, (), leaf.dtype) ** (1 / leaf.size)
    return normal * (radius / divisor(norm(normal, axis=None)))


def perturbed(key: PRNGKeyArray, params: Any, radii: Any, noise: str) -> Any:
    """Return ``params`` plus noise, drawn as in :func:`draw_noise`."""
    return jax.tree.map(jnp.add, params, draw_noise(key, params, radii, noise))
