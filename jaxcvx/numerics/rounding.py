"""Proved bounds on rounding errors, and sums that are exact in any order.

A compiler may add numbers in any order. For a plain sum of k numbers the error is at most ``k u sum |x|`` in every
order, where u is the unit roundoff. In float32 that is too much for long sums. But numbers that are multiples of a
common step, and that have few enough bits, are added exactly in every order. ``split`` writes numbers as sums of such
parts.

Sources: C. Jeannerod and S. Rump, "Improved error bounds for inner products in floating-point arithmetic" (2013);
K. Ozaki, T. Ogita, S. Oishi and S. Rump, "Error-free transformations of matrix multiplication" (2012).
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

_SMALL = 2048  # rows or columns up to which a spectral norm is a singular value


def gamma(count: float, dtype: Any) -> float:
    """Bound ``k u / (1 - k u)`` on the relative error of ``count`` roundings, with u the unit roundoff.

    It also bounds the error of a sum of ``count`` numbers, relative to the sum of their absolute values.
    """
    product = count * float(jnp.finfo(dtype).eps) / 2
    return product / (1 - min(product, 0.5))


def spectral_norm(A: Float[Array, "n p"]) -> Float[Array, ""]:
    """An upper bound on the spectral norm, up to a few units of rounding; for many rows from the smaller Gram matrix.

    On CPUs a singular value decomposition of n rows forms an n x n matrix. An entry of the Gram matrix has an error of
    at most ``gamma(n)`` times the product of two columns' lengths, so the matrix one of that times ``||A||_F^2``.
    """
    if max(A.shape) <= _SMALL:
        return jnp.linalg.norm(A, ord=2)
    size = jnp.max(jnp.abs(A))
    B = A / jnp.where(size > 0, size, 1.0)
    small = B.T @ B if B.shape[0] >= B.shape[1] else B @ B.T
    error = gamma(max(B.shape) + 16 * min(B.shape) + 64, B.dtype) * jnp.trace(small)
    return size * jnp.sqrt(jnp.maximum(jnp.max(jnp.linalg.eigvalsh(small)), 0.0) + error)


def split(x: Float[Array, ...], count: int) -> list[Float[Array, ...]]:
    """Write x as the exact sum of three parts: coarse, fine and rest.

    Sums of up to ``count`` entries of the coarse part are exact, and so are those of the fine part. The entries of the
    rest are at most ``left_over(count, dtype)`` times the largest entry of x.
    """
    grain, info = _grain(count, x.dtype), jnp.finfo(x.dtype)
    largest = jnp.max(jnp.abs(x))
    usable = (largest > 4 * float(info.tiny) / grain**2) & (largest < float(info.max) * grain)
    size = jnp.where(usable, largest, 1.0)
    power = size / jnp.frexp(size)[0]  # the next power of two, computed exactly
    parts, rest = [], x
    for level in (1, 2):
        step = power * grain**level
        parts.append(jnp.where(usable, jnp.round(rest / step) * step, 0.0))
        rest = rest - parts[-1]
    return [*parts, rest]


def left_over(count: int, dtype: Any) -> float:
    """Bound on the entries of the last part of ``split``, relative to the largest entry of its argument."""
    return min(1.0, _grain(count, dtype) ** 2)


def _grain(count: int, dtype: Any) -> float:
    """A step for which every sum of ``count`` multiples of it, each at most 1, fits the bits of the dtype."""
    return 2.0 ** (math.ceil(math.log2(count)) - int(jnp.finfo(dtype).nmant))


def careful_sum(x: Float[Array, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum of all entries and a bound on its error. In float32 the bound hardly grows with the number of entries."""
    plain = gamma(2 * x.size, x.dtype)
    if x.dtype != jnp.float32:
        return jnp.sum(x), plain * jnp.sum(jnp.abs(x))
    parts = split(x, x.size)
    sums = [jnp.sum(part) for part in parts]
    error = gamma(4, x.dtype) * sum(jnp.abs(s) for s in sums) + plain * jnp.sum(jnp.abs(parts[-1]))
    return (sums[0] + sums[1]) + sums[2], error


def masked_sums(masks: Float[Array, "P N"], terms: Float[Array, "N k"]) -> Float[Array, "P k"]:
    """``masks @ terms`` for masks of 0 and 1. In float32 the error hardly grows with N."""
    if terms.dtype != jnp.float32:
        return masks @ terms
    coarse, fine, rest = (masks @ part for part in split(terms, terms.shape[0]))
    return coarse + (fine + rest)


def masked_sums_error(
    rows: Float[Array, "N p"], R: Float[Array, "N q"], masked: bool, blocks: int = 1
) -> Float[Array, ""]:
    """Bound on the rounding error of Z^T D R in the Frobenius norm, for any diagonal matrix D of zeros and ones.

    Args:
      rows: feature rows Z.
      R: one row of dual residuals for each row of Z. Its entries may have errors of a few roundings.
      masked: True if the sums over rows are computed by ``masked_sums``, False if they are plain sums.
      blocks: number of blocks of rows whose sums are added up.
    """
    (N, p), q, dtype = rows.shape, R.shape[1], rows.dtype
    absolute = jnp.linalg.norm(jnp.abs(rows).T @ jnp.abs(R)) * (1 + gamma(N + p * q, dtype))
    short = masked and dtype == jnp.float32
    error = gamma(48 + 4 * q + (blocks if short else N), dtype) * absolute
    if short:
        worst = gamma(2 * N, dtype) * N * left_over(N, dtype) * math.sqrt(p * q)
        error = error + worst * jnp.max(jnp.abs(rows)) * jnp.max(jnp.abs(R))
    # Underflow of a product, or of a square in a norm, loses at most the smallest normal number.
    return error + 4 * math.sqrt(p * q * float(jnp.finfo(dtype).tiny))
