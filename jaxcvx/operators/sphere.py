"""Leaves of a pytree that live on the unit sphere: tangent projection and retraction.

``mask`` is a pytree of bools like the params, or None where no leaf is on a sphere. A leaf is one vector whatever
its shape.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def _where_masked(change: Any, mask: Any, tree: Any, *rest: Any) -> Any:
    if mask is None:
        return tree
    return jax.tree.map(lambda on, *leaves: change(*leaves) if on else leaves[0], mask, tree, *rest)


def tangent(gradient: Any, params: Any, mask: Any) -> Any:
    """The gradient with its part along the params removed, on the masked leaves: ``(I - w w^T) g``."""
    return _where_masked(lambda g, w: g - jnp.sum(g * w) * w, mask, gradient, params)


def retract(params: Any, mask: Any) -> Any:
    """The params with the masked leaves scaled to length 1; a zero leaf stays zero."""
    return _where_masked(_unit, mask, params)


def _unit(w: Array) -> Array:
    square = jnp.sum(w**2)
    return w * jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1.0)), 1.0)
