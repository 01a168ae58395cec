"""Proved bounds on rounding errors, and sums that are exact in any order.

Compilers add in an order of their own, so all that is known of a plain sum of k numbers is that its error is at most
``k u sum |x|``, u the unit of rounding (Jeannerod and Rump 2013). In float32 that is too much for long sums. But
numbers on a common grid, few enough bits each, are added exactly in every order: ``split`` takes numbers apart into
such parts (Ozaki, Ogita, Oishi and Rump 2012).
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float


def gamma(count: float, dtype: Any) -> float:
    """Bound on the relative error of ``count`` roundings, ``k u / (1 - k u)``, and on that of a sum of so many."""
    product = count * float(jnp.finfo(dtype).eps) / 2
    return product / (1 - min(product, 0.5))


def split(x: Float[Array, ...], count: int) -> list[Float[Array, ...]]:
    """Three parts whose sum is x exactly; sums of up to ``count`` entries of the first or the second are exact.

    Entries of the third are below ``left_over`` times the largest entry of x.
    """
    grain, info = _grain(count, x.dtype), jnp.finfo(x.dtype)
    largest = jnp.max(jnp.abs(x))
    usable = (largest > 4 * float(info.tiny) / grain**2) & (largest < float(info.max) * grain)
    size = jnp.where(usable, largest, 1.0)
    power = size / jnp.frexp(size)[0]  # the power of two above, exactly
    parts, rest = [], x
    for level in (1, 2):
        step = power * grain**level
        parts.append(jnp.where(usable, jnp.round(rest / step) * step, 0.0))
        rest = rest - parts[-1]
    return [*parts, rest]


def left_over(count: int, dtype: Any) -> float:
    """Bound on the entries of the last part of ``split``, for entries up to 1."""
    return min(1.0, _grain(count, dtype) ** 2)


def _grain(count: int, dtype: Any) -> float:
    """Distance of grid points such that sums of ``count`` of them up to 1 have no more bits than the dtype."""
    return 2.0 ** (math.ceil(math.log2(count)) - int(jnp.finfo(dtype).nmant))


def careful_sum(x: Float[Array, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum of all entries and a bound on its error, which in float32 does not grow with their number."""
    plain = gamma(2 * x.size, x.dtype)
    if x.dtype != jnp.float32:
        return jnp.sum(x), plain * jnp.sum(jnp.abs(x))
    parts = split(x, x.size)
    sums = [jnp.sum(part) for part in parts]
    error = gamma(4, x.dtype) * sum(jnp.abs(s) for s in sums) + plain * jnp.sum(jnp.abs(parts[-1]))
    return (sums[0] + sums[1]) + sums[2], error


def masked_sums(masks: Float[Array, "P N"], terms: Float[Array, "N k"]) -> Float[Array, "P k"]:
    """``masks @ terms`` for masks of 0 and 1, in float32 with an error that does not grow with N."""
    if terms.dtype != jnp.float32:
        return masks @ terms
    coarse, fine, rest = (masks @ part for part in split(terms, terms.shape[0]))
    return coarse + (fine + rest)


def masked_sums_error(
    rows: Float[Array, "N p"], R: Float[Array, "N q"], masked: bool, blocks: int = 1
) -> Float[Array, ""]:
    """Bound on the error, in the Frobenius norm, of Z^T D R for any D of zeros and ones.

    Args:
      rows: Z.
      R: lifted residual, whose entries may themselves be off by a few roundings.
      masked: whether sums over rows are made by ``masked_sums``; else they are plain ones.
      blocks: how many such sums, over blocks of rows, were added up.
    """
    (N, p), q, dtype = rows.shape, R.shape[1], rows.dtype
    absolute = jnp.linalg.norm(jnp.abs(rows).T @ jnp.abs(R)) * (1 + gamma(N + p * q, dtype))
    short = masked and dtype == jnp.float32
    error = gamma(48 + 4 * q + (blocks if short else N), dtype) * absolute
    if short:
        worst = gamma(2 * N, dtype) * N * left_over(N, dtype) * math.sqrt(p * q)
        error = error + worst * jnp.max(jnp.abs(rows)) * jnp.max(jnp.abs(R))
    # What underflow takes away: of a product, or of a square in a norm, at most the smallest normal number.
    return error + 4 * math.sqrt(p * q * float(jnp.finfo(dtype).tiny))
