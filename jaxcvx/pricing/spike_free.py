"""Exact pricing on spike-free data: one projection on the cone of neurons that are active everywhere.

Data are spike-free if the rectified ellipsoid {(Z u)_+ : ||u|| <= 1} is the part of the ellipsoid {Z u : ||u|| <= 1}
in the non-negative orthant. Then some neuron of largest price has Z u >= 0, and by Moreau's decomposition

    max { R^T Z u : Z u >= 0, ||u|| <= 1 } = || projection of Z^T R on {Z u >= 0} ||,

which is a non-negative least-squares problem. On other data this is a heuristic: it gives a neuron, but no bound.

Source: T. Ergen and M. Pilanci, JMLR 22 (2021), proposition 2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.pricing.base import Priced, neuron_values
from jaxcvx.proximal.polyhedral_cone import project_cone


@jax.jit
def price_cone(Z: Float[Array, "N p"], R: Float[Array, "N 1"]) -> Priced:
    """The best neurons with Z u >= 0 for R and for -R.

    Returns:
      ``Priced``. Its ``upper`` covers all neurons with Z u >= 0, hence all neurons on spike-free data.
    """
    ones = jnp.ones(Z.shape[0], Z.dtype)
    G = (Z.T @ R)[:, 0]
    both = jax.vmap(lambda g: project_cone(Z, ones, g)[0])(jnp.stack([G, -G]))
    size = jnp.linalg.norm(both, axis=1)
    eps = float(jnp.finfo(Z.dtype).eps)
    alive = size > 64 * eps * jnp.linalg.norm(G)
    directions = jnp.where(alive[:, None], both / jnp.where(alive, size, 1.0)[:, None], 0.0)
    values = neuron_values(Z, R, directions)
    order = jnp.argsort(-values)
    rounding = 8 * eps * jnp.linalg.norm(R) * jnp.linalg.norm(Z)
    upper = jnp.maximum(jnp.max(size), jnp.max(values)) * (1 + max(1e-10, 64 * eps)) + rounding
    return Priced(directions[order], values[order], upper)


def distinct_rays(X: np.ndarray, tol: float) -> np.ndarray:
    """A unit row for each ray spanned by the rows of X; zero rows are left out."""
    norms = np.linalg.norm(X, axis=1)
    alive = norms > tol * norms.max(initial=0.0)
    unit = X[alive] / norms[alive, None]
    kept: list[int] = []
    for i in range(len(unit)):
        if all(np.linalg.norm(unit[i] - unit[j]) > tol for j in kept):
            kept.append(i)
    return unit[kept]


def inverse_gram(rows: np.ndarray, eps: float) -> tuple[np.ndarray, float] | None:
    """Inverse of the Gram matrix of unit rows, and its entries' rounding error; None if the rows are dependent."""
    if len(rows) > rows.shape[1]:
        return None
    size = np.linalg.svd(rows, compute_uv=False)
    if size[-1] <= eps * size[0]:
        return None
    return np.linalg.inv(rows @ rows.T), 8 * eps * (size[0] / size[-1]) ** 2


def spike_free(X: np.ndarray, eps: float) -> bool:
    """True if the data are spike-free: no off-diagonal entry of the inverse Gram matrix G^-1 is positive.

    The test is exact; :mod:`jaxcvx.analysis.spike_free` explains it.
    """
    rows = distinct_rays(X, eps)
    if not len(rows):
        return True
    inverse = inverse_gram(rows, eps)
    return inverse is not None and worst_pair(*inverse) is None


def worst_pair(inverse: np.ndarray, rounding: float) -> tuple[int, int] | None:
    """Row and column of the largest off-diagonal entry of G^-1, scaled to a unit diagonal; None if none is positive."""
    diagonal = np.sqrt(np.diag(inverse))
    correlation = inverse / np.outer(diagonal, diagonal)
    np.fill_diagonal(correlation, 0.0)
    i, j = np.unravel_index(correlation.argmax(), correlation.shape)
    return (int(i), int(j)) if correlation[i, j] > rounding else None
