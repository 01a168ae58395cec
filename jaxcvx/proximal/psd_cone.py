"""Projection on positive semidefinite matrices, batched, with a derivative that is finite at repeated eigenvalues."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide


def symmetric(A: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
    """Symmetric part."""
    return 0.5 * (A + jnp.swapaxes(A, -1, -2))


@jax.custom_jvp
def project_psd(A: Float[Array, "*b d d"]) -> Float[Array, "*b d d"]:
    """Nearest positive semidefinite matrix in Frobenius norm to the symmetric part of A.

    With ``A = Q diag(l) Q^T`` the derivative in direction E is ``Q (G * (Q^T E Q)) Q^T`` with the divided
    differences ``G_ij = (max(l_i, 0) + max(l_j, 0)) / (|l_i| + |l_j|)`` (Loewner 1934; Malick and Sendov 2006),
    which needs no difference of eigenvalues. Where both are 0, G is taken as 0, an element of the generalised Jacobian.
    """
    return _project(A)[0]


def _project(A: Array) -> tuple[Array, Array, Array]:
    values, vectors = jnp.linalg.eigh(symmetric(A))
    positive = jnp.maximum(values, 0.0)
    return (vectors * positive[..., None, :]) @ jnp.swapaxes(vectors, -1, -2), values, vectors


@project_psd.defjvp
def _project_psd_jvp(primals, tangents):
    (A,), (E,) = primals, tangents
    projected, values, vectors = _project(A)
    positive, size = jnp.maximum(values, 0.0), jnp.abs(values)
    below = size[..., :, None] + size[..., None, :]
    above = positive[..., :, None] + positive[..., None, :]
    quotient = divide(above, below)
    transposed = jnp.swapaxes(vectors, -1, -2)
    return projected, vectors @ (quotient * (transposed @ symmetric(E) @ vectors)) @ transposed
