"""Whitening: a linear map that makes the training rows orthonormal. It applies to new rows, too.

Let X = U S V^T have rank n (so d >= n). Both methods give rows X_w with X_w X_w^T = I_n. "zca" gives
X_w = U V^T = X V S^-1 V^T, the whitened data closest to X. "pca" gives X_w = U = X V S^-1, which has n columns only.
Whitened data are spike-free, so their training problem has a closed form (:class:`jaxcvx.SoftThresholdedSVD`).
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
    """The map ``x -> x V S^-1 V^T`` ("zca") or ``x -> x V S^-1`` ("pca"). It is a pytree: it can be saved and traced.

    Attributes:
      directions: (d, r) right singular vectors V of the training rows.
      inverse: (r,) inverses of their singular values; small singular values are raised first.
      method: static; "zca" or "pca".
    """

    directions: Float[Array, "d r"]
    inverse: Float[Array, r]
    method: str = dataclasses.field(default="zca", metadata={"static": True})

    def __call__(self, X: Float[Array, "k d"]) -> Float[Array, "k w"]:
        """Whiten rows (k, d). The result is (k, d) for "zca" and (k, r) for "pca"."""
        coordinates = (X @ self.directions) * self.inverse
        return coordinates @ self.directions.T if self.method == "zca" else coordinates


@with_full_precision
def fit_whitening(X: object, *, method: str = "zca", floor: float | None = None) -> Whitening:
    """Compute the whitening of the rows of X. The mean is not subtracted, because that would lower the rank by one.

    Args:
      X: (n, d) training rows. If X has rank n, ``fit_whitening(X)(X)`` has orthonormal rows. Otherwise (d < n, or
        repeated rows) its columns are orthonormal on the span of the data.
      method: "zca" keeps the d columns and stays close to X; "pca" gives min(n, d) columns.
      floor: singular values below ``floor`` times the largest are raised to that value. The default is ``max(n, d)``
        units of rounding.

    Returns:
      The whitening, as a function of rows.

    Raises:
      InvalidInputError, InvalidTypeError: X is not a finite matrix, the method is unknown, or floor is not in [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> X = jnp.array([[2.0, 0.0], [0.0, 5.0]])
      >>> whiten = jaxcvx.fit_whitening(X)
      >>> whiten(X).round(3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
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
