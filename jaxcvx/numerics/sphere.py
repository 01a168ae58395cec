"""Tangent projection and retraction for pytrees, some of whose arrays have length 1.

An array of any shape counts as one vector. ``mask`` is a pytree of bools like the params: True for an array on the unit
sphere. None stands for all False.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divisor


def unit(w: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``w / ||w||`` with the norm over all axes. Zero stays zero."""
    square = jnp.sum(w**2)
    return w / jnp.sqrt(divisor(square))


def tangent(mask: Any, params: Any, gradient: Any) -> Any:
    """Project a gradient onto the tangent spaces: ``(I - w w^T) g`` where the mask is True, g elsewhere."""
    if mask is None:
        return gradient
    return jax.tree.map(lambda s, w, g: g - jnp.sum(w * g) * w if s else g, mask, params, gradient)


def retract(mask: Any, params: Any) -> Any:
    """Scale the arrays on spheres back to length 1."""
    return params if mask is None else jax.tree.map(lambda s, w: unit(w) if s else w, mask, params)
