"""Work on the few of many blocks that need it, with fixed shapes: a loop over chunks of those that are marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

T = TypeVar("T")


def fold_marked(
    marks: Bool[Array, "*lists m"], size: int, body: Callable[[T, Int[Array, "*lists size"]], T], value: T
) -> T:
    """``value = body(value, index)`` over the places that ``marks`` marks, ``size`` at a time, in order.

    Args:
      marks: over the last axis; leading axes are lists that are gone through side by side.
      size: places per call.
      body: gets m in slots that are left over: read there clamped, written with ``mode="drop"``.
      value: to begin with.
    """
    last = marks.shape[-1]
    order = jnp.argsort(~marks, axis=-1, stable=True)
    order = jnp.where(jnp.take_along_axis(marks, order, axis=-1), order, last)
    order = jnp.pad(order, [(0, 0)] * (marks.ndim - 1) + [(0, size)], constant_values=last)
    count = jnp.max(jnp.sum(marks, axis=-1))

    def step(carry):
        start, value = carry
        return start + size, body(value, jax.lax.dynamic_slice_in_dim(order, start, size, axis=-1))

    return jax.lax.while_loop(lambda carry: carry[0] < count, step, (jnp.zeros((), count.dtype), value))[1]
