"""Group norms, nuclear norms and their proximal operators, with derivatives that stay finite at zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide, norm


def group_norms(W: Float[Array, "P p c"]) -> Float[Array, P]:
    """Frobenius norm of each block. The derivative at a zero block is 0, not NaN."""
    return norm(W, axis=(1, 2))


def shrink_groups(
    W: Float[Array, "P p c"], threshold: Float[Array, ""], axis: int | tuple[int, ...] = (1, 2)
) -> Float[Array, "P p c"]:
    """Group soft-thresholding: ``argmin_V threshold * sum_g ||V_g|| + 1/2 ||V - W||^2``.

    Args:
      W: blocks.
      threshold: at least 0.
      axis: the axes of one group. The default makes each block a group; 1 makes each column of a block a group.
    """
    norms = norm(W, axis=axis, keepdims=True)
    return W * jnp.where(norms > threshold, 1 - divide(threshold, norms), 0.0)


def nuclear_norms(W: Float[Array, "P p q"]) -> Float[Array, P]:
    """Nuclear norm of each block."""
    return jnp.sum(jnp.linalg.svd(W, compute_uv=False), axis=1)


@jax.custom_jvp
def shrink_singular_values(W: Float[Array, "P p q"], threshold: Float[Array, ""]) -> Float[Array, "P p q"]:
    """``argmin_V threshold * sum_i ||V_i||_* + 1/2 ||V - W||^2``: soft-thresholds each block's singular values.

    The derivative consists of divided differences (Ding, Sun, Sun and Toh 2018), which are finite at repeated
    singular values. At a singular value equal to the threshold it is the derivative from below, an element of the
    generalised Jacobian.
    """
    left, size, right = jnp.linalg.svd(W, full_matrices=False)
    return (left * jnp.maximum(size - threshold, 0.0)[..., None, :]) @ right


@shrink_singular_values.defjvp
def _shrink_singular_values_jvp(primals, tangents):
    (W, threshold), (E, change) = primals, tangents
    left, size, right = jnp.linalg.svd(W, full_matrices=False)
    kept = size > threshold
    shrunk = jnp.where(kept, size - threshold, 0.0)
    value = (left * shrunk[..., None, :]) @ right

    one_sided = divide(shrunk, size)
    sums = divide(shrunk[..., :, None] + shrunk[..., None, :], size[..., :, None] + size[..., None, :])
    gaps = size[..., :, None] - size[..., None, :]
    both = kept[..., :, None] & kept[..., None, :]
    slope = divide(jnp.abs(shrunk[..., :, None] - shrunk[..., None, :]), jnp.abs(gaps))
    slope = jnp.where(both, 1.0, slope)

    left_t, right_t = jnp.swapaxes(left, -1, -2), jnp.swapaxes(right, -1, -2)
    pulled = E @ right_t  # (..., p, r)
    core = left_t @ pulled
    flipped = jnp.swapaxes(core, -1, -2)
    inner = 0.5 * (slope * (core + flipped) + sums * (core - flipped))
    inner = inner - jnp.eye(size.shape[-1], dtype=W.dtype) * jnp.where(kept, change, 0.0)[..., None, :]
    outside_left = pulled - left @ core
    outside_right = left_t @ E - core @ right
    tangent = left @ (inner @ right + one_sided[..., :, None] * outside_right)
    return value, tangent + (outside_left * one_sided[..., None, :]) @ right
