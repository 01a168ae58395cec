"""Whitening: the linear map that makes the training rows orthonormal, and carries over to new rows.

With X = U S V^T and rank n (so d >= n) both kinds give rows with X_w X_w^T = I_n: "zca" X_w = U V^T = X V S^-1 V^T,
the whitened data closest to X, and "pca" X_w = U = X V S^-1, with n columns only. Whitened data are spike-free, so
the training problem on them has closed forms (:class:`jaxcvx.SoftThresholdedSVD`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.validation import as_real_matrix


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Whitening:
    """``x -> x V S^-1 V^T`` ("zca") or ``x V S^-1`` ("pca"); a pytree, so it can be saved and traced.

    Attributes:
      directions: (d, r) right singular vectors V of the training rows.
      inverse: (r,) inverses of their singular values, small ones floored.
      method: static.
    """

    directions: Float[Array, "d r"]
    inverse: Float[Array, r]
    method: str = dataclasses.field(default="zca", metadata={"static": True})

    def __call__(self, X: Float[Array, "k d"]) -> Float[Array, "k w"]:
        """Whitened rows (k, d), or (k, r) for "pca"."""
        coordinates = (X @ self.directions) * self.inverse
        return coordinates @ self.directions.T if self.method == "zca" else coordinates


@with_full_precision
def fit_whitening(X: object, *, method: str = "zca", floor: float | None = None) -> Whitening:
    """The whitening of the rows of X; no mean is taken off, as that would cost a rank.

    Args:
      X: (n, d) training rows. ``fit_whitening(X)(X)`` has orthonormal rows if X has rank n; otherwise
        (d < n, or repeated rows) its columns are orthonormal on the data's span.
      method: "zca" keeps the d columns and stays close to X, "pca" gives min(n, d) columns.
      floor: singular values below ``floor`` times the largest are raised to it; default ``max(n, d)``
        units of rounding.

    Raises:
      InvalidInputError, InvalidTypeError: X is not a finite matrix; an unknown method; floor not in [0, 1).
    """
    X = as_real_matrix("X", X)
    if method not in ("zca", "pca"):
        raise invalid("method", repr(method), "'zca' or 'pca'")
    if floor is None:
        floor = max(X.shape) * float(jnp.finfo(X.dtype).eps)
    if not 0 <= floor < 1:
        raise invalid("floor", floor, "a number in [0, 1)")
    _, size, right = jnp.linalg.svd(X, full_matrices=False)
    smallest = jnp.maximum(floor * size[0], jnp.finfo(X.dtype).tiny)
    return Whitening(right.T, 1 / jnp.maximum(size, smallest), method)
