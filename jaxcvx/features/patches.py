"""Patches of signals and images: the rows that convolution filters multiply.

``extract_patches(X, ...) @ filter`` is the convolution that ``jax.lax.conv_general_dilated`` computes, a correlation in
mathematical terms. The filter of shape (fh, fw, channels) is flattened in this order.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid


def output_positions(
    space: tuple[int, ...], filter_shape: tuple[int, ...], stride: tuple[int, ...], padding: str
) -> tuple[int, ...]:
    """Number of patches along each spatial axis, by XLA's formulas; ``space`` holds the lengths of the axes.

    Raises:
      InvalidInputError: there is no padding, and the filter is larger than X.
    """
    if padding == "SAME":
        return tuple(-(-size // step) for size, step in zip(space, stride, strict=True))
    if any(size < width for size, width in zip(space, filter_shape, strict=True)):
        raise invalid("X", f"spatial shape {space}", f"at least the filter's, {filter_shape}")
    return tuple((s - f) // step + 1 for s, f, step in zip(space, filter_shape, stride, strict=True))


def extract_patches(
    X: Float[Array, "n *space ch"], filter_shape: tuple[int, ...], stride: tuple[int, ...], padding: str
) -> Float[Array, "rows h"]:
    """All patches of X: row ``i * K + k`` is patch k of sample i, flattened in the order (*filter_shape, ch).

    The positions k are in row-major order. ``padding`` is "VALID" for none, or "SAME" for zeros as XLA adds them. The
    result is a numpy array for a numpy X, and a jax array for a jax X (traced or not).
    """
    xp = np if isinstance(X, np.ndarray) else jnp
    rank, space = len(filter_shape), X.shape[1:-1]
    positions = output_positions(space, filter_shape, stride, padding)
    before, index = [], []
    for axis, (num, width, step) in enumerate(zip(positions, filter_shape, stride, strict=True)):
        missing = max((num - 1) * step + width - space[axis], 0)
        before.append((missing // 2, missing - missing // 2))
        taken = np.arange(num)[:, None] * step + np.arange(width)
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = num, width
        index.append(taken.reshape(shape))
    padded = xp.pad(X, [(0, 0), *before, (0, 0)]) if any(map(any, before)) else X
    patches = padded[(slice(None), *index)]  # (n, *positions, *filter_shape, ch)
    return patches.reshape(X.shape[0] * math.prod(positions), -1)
