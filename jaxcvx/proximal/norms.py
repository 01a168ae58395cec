"""Proximal operators of group norms, with derivatives that stay finite at zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.proximal.polyhedral_cone import project_cells


def group_norms(W: Float[Array, "P p c"]) -> Float[Array, P]:
    """Frobenius norm of each block; its derivative at a zero block is 0, not NaN."""
    square = jnp.sum(W**2, axis=(1, 2))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def shrink_groups(W: Float[Array, "P p c"], threshold: Float[Array, ""]) -> Float[Array, "P p c"]:
    """``argmin_V threshold * sum_i ||V_i||_F + 1/2 ||V - W||^2``: block soft-thresholding."""
    norms = group_norms(W)
    factor = jnp.where(norms > threshold, 1 - threshold / jnp.where(norms > threshold, norms, 1.0), 0.0)
    return W * factor[:, None, None]


def nuclear_norms(W: Float[Array, "P p q"]) -> Float[Array, P]:
    """Nuclear norm of each block."""
    return jnp.sum(jnp.linalg.svd(W, compute_uv=False), axis=1)


@jax.custom_jvp
def shrink_singular_values(W: Float[Array, "P p q"], threshold: Float[Array, ""]) -> Float[Array, "P p q"]:
    """``argmin_V threshold * sum_i ||V_i||_* + 1/2 ||V - W||^2``: singular values soft-thresholded block by block.

    Its derivative is made of divided differences (Ding, Sun, Sun and Toh 2018), finite at repeated singular
    values; where one equals the threshold it is taken from below, an element of the generalised Jacobian.
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

    def quotient(above, below, limit):
        return jnp.where(below > 0, above / jnp.where(below > 0, below, 1.0), limit)

    one_sided = quotient(shrunk, size, 0.0)
    sums = quotient(shrunk[..., :, None] + shrunk[..., None, :], size[..., :, None] + size[..., None, :], 0.0)
    gaps = size[..., :, None] - size[..., None, :]
    both = kept[..., :, None] & kept[..., None, :]
    slope = quotient(jnp.abs(shrunk[..., :, None] - shrunk[..., None, :]), jnp.abs(gaps), 0.0)
    slope = jnp.where(both, 1.0, slope)

    left_t, right_t = jnp.swapaxes(left, -1, -2), jnp.swapaxes(right, -1, -2)
    pulled = E @ right_t  # (..., p, r)
    core = left_t @ pulled
    flipped = jnp.swapaxes(core, -1, -2)
    inner = 0.5 * (slope * (core + flipped) + sums * (core - flipped))
    inner = inner - jnp.eye(size.shape[-1], dtype=W.dtype) * (kept * change)[..., None, :]
    outside_left = pulled - left @ core
    outside_right = left_t @ E - core @ right
    tangent = left @ (inner @ right + one_sided[..., :, None] * outside_right)
    return value, tangent + (outside_left * one_sided[..., None, :]) @ right


def shrink_in_cones(
    rows: Float[Array, "n p"],
    signs: Float[Array, "P n"],
    W: Float[Array, "P p c"],
    threshold: Float[Array, ""],
) -> Float[Array, "P p c"]:
    """Prox of ``threshold * sum_i ||V_i||_F`` restricted to columns in cell i's cone.

    For a closed convex cone and a positively homogeneous norm of the same geometry it is block
    soft-thresholding after projection (Moreau).
    """
    return shrink_groups(project_cells(rows, signs, W), threshold)
