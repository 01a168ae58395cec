"""Arrays of a pytree that live on the unit sphere: tangent projection and retraction.

``mask`` is a tree of bools like the params, or None where none of them is on a sphere. An array is one vector,
whatever its shape.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divisor


def unit(w: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``w / ||w||`` over all axes; zero stays zero."""
    square = jnp.sum(w**2)
    return w / jnp.sqrt(divisor(square))


def tangent(mask: Any, params: Any, gradient: Any) -> Any:
    """The part of a gradient that is tangent to the spheres: ``(I - w w^T) g`` where the mask is True."""
    if mask is None:
        return gradient
    return jax.tree.map(lambda s, w, g: g - jnp.sum(w * g) * w if s else g, mask, params, gradient)


def retract(mask: Any, params: Any) -> Any:
    """Back to the spheres: the masked arrays scaled to length 1."""
    return params if mask is None else jax.tree.map(lambda s, w: unit(w) if s else w, mask, params)
