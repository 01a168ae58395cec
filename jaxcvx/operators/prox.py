"""Proximal operators of group norms, with derivatives that stay finite at zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.operators.projections import project_cells


def group_norms(W: Float[Array, "P p c"]) -> Float[Array, P]:
    """Frobenius norm of each block; its derivative at a zero block is 0, not NaN."""
    square = jnp.sum(W**2, axis=(1, 2))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def shrink_groups(W: Float[Array, "P p c"], threshold: Float[Array, ""]) -> Float[Array, "P p c"]:
    """``argmin_V threshold * sum_i ||V_i||_F + 1/2 ||V - W||^2``: block soft-thresholding."""
    norms = group_norms(W)
    factor = jnp.where(norms > threshold, 1 - threshold / jnp.where(norms > threshold, norms, 1.0), 0.0)
    return W * factor[:, None, None]


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
