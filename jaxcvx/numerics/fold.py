"""A loop over the marked entries of a list, a fixed number at a time.

Shapes are fixed under jit, so the marked blocks of an array cannot be selected into a smaller array. A loop over chunks
of them costs in proportion to their number all the same.
"""

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
    """Repeat ``value = body(value, index)`` for the indices of the true entries of ``marks``, in increasing order.

    Args:
      marks: which of the m entries to visit. With leading axes it holds several lists, visited in parallel.
      size: number of indices per call of ``body``.
      body: the step. In the last call the unused indices are m, one past the end: gathers clamp them, and scatters
        have to use ``mode="drop"``.
      value: the initial value.

    Returns:
      The value after the last call.
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
