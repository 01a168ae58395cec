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
    """Raise unless ``noise`` is a known kind."""
    if noise not in KINDS:
        raise invalid("noise", repr(noise), "'ball', 'sphere' or 'normal'")


def draw_noise(key: PRNGKeyArray, params: Any, radii: Any, noise: str) -> Any:
    """A random pytree like ``params``, every leaf of size d drawn on its own in the radius given for it.

    "ball": uniform in the ball of that radius in R^d; "sphere": uniform on its surface; "normal": independent
    entries with that standard deviation (so of length about ``sqrt(d)`` radii).
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
    """``params`` plus noise; see :func:`draw_noise`."""
    return jax.tree.map(jnp.add, params, draw_noise(key, params, radii, noise))
