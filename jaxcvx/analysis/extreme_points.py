"""Extreme points of the set of activations: neurons that single out one sample, and neurons whose bias is not unique.

Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22 (2021),
lemma 7 and theorem 6 (neurons as residuals of an auto-encoder), proposition 1 (biases).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcvx.errors import invalid
from jaxcvx.features.dense import FreeBias
from jaxcvx.networks.network import Network, balance
from jaxcvx.numerics.validation import as_real_matrix
from jaxcvx.proximal.polyhedral_cone import least_norm_shift


class ResidualNeurons(NamedTuple):
    """For every sample, the neuron that is active on it alone, where there is one.

    Attributes:
      hidden: (n, d + 1) neurons (u_i, b_i) with ||u_i|| = 1; zero where sample i is no vertex.
      residual: (n, d) what is left of sample i after the best convex combination of the others.
      vertex: (n,) whether sample i is a vertex of the convex hull of all.
    """

    hidden: Float[Array, "n p"]
    residual: Float[Array, "n d"]
    vertex: Bool[Array, n]


def residual_neurons(X: Any, tol: float = 1e-9) -> ResidualNeurons:
    """For every sample the neuron along its auto-encoder residual, which no other sample activates.

    ``u_i = (x_i - sum_j lam_j x_j) / ||.||`` with lam the best point of the simplex, ``b_i = min_{j != i} -x_j^T u_i``.
    The residual is the least-norm point z of the hull of ``x_i - x_j``, and ``z / ||z||^2`` is the shortest w with
    ``w^T (x_i - x_j) >= 1`` for all j: a least-distance problem, solved by an active-set method for all samples.

    Args:
      X: (n, d) samples, at least two.
      tol: distance to the others' hull, relative to the samples' spread, up to which a sample is no vertex.
    """
    X = as_real_matrix("X", X)
    if len(X) < 2:
        raise invalid("X", "one row", "at least two")
    spread = jnp.max(jnp.abs(X - jnp.mean(X, axis=0)))
    scale = jnp.where(spread > 0, spread, 1.0)

    def one(i):
        counts = (jnp.arange(len(X)) != i).astype(X.dtype)
        rows = (X[i] - X) / scale
        w = least_norm_shift(rows, counts, counts)
        size = jnp.linalg.norm(w)
        margin = jnp.min(jnp.where(counts > 0, rows @ w, jnp.inf))
        vertex = (size > 0) & (margin > 0.5) & (1 / jnp.where(size > 0, size, 1.0) > tol)
        u = jnp.where(vertex, w / jnp.where(size > 0, size, 1.0), 0.0)
        b = jnp.min(jnp.where(counts > 0, -(X @ u), jnp.inf))
        residual = u * scale / jnp.where(vertex, size, 1.0)
        return jnp.append(u, jnp.where(vertex, b, 0.0)), residual, vertex

    return ResidualNeurons(*jax.jit(lambda: jax.lax.map(one, jnp.arange(len(X))))())


def vertex_network(X: Any, Y: Any) -> Network:
    """The network of n residual neurons that fits Y exactly, for samples that are all vertices of their hull.

    Args:
      X: (n, d) samples. Gaussian ones are all vertices with high probability if d > 2 n log(n - 1).
      Y: (n,) or (n, c) targets.

    Raises:
      InvalidInputError: some sample is not a vertex.
    """
    X = as_real_matrix("X", X)
    Y = as_real_matrix("Y", Y, (1, 2)).reshape(len(X), -1)
    found = residual_neurons(X)
    if not bool(found.vertex.all()):
        inside = int(np.flatnonzero(~np.asarray(found.vertex))[0])
        raise invalid("X", f"sample {inside} inside the others' hull", "samples that are all vertices of their hull")
    margin = jnp.sum(found.hidden[:, :-1] * X, axis=1) + found.hidden[:, -1]
    output = (Y / margin[:, None]).astype(X.dtype)
    return balance(Network(found.hidden, output, None, FreeBias(), jnp.zeros(Y.shape[1], X.dtype)))


def bias_intervals(network: Network, X: Any, dual: Any, tol: float = 1e-6) -> Float[Array, "m 2"]:
    """For every neuron of an optimal network with free biases, the interval of biases that are optimal as well.

    With S the samples a neuron is active on, its price does not change with b while S stays the same if
    ``sum_S R_i = 0``: then every b in ``[max_S -x_i^T u, min_{not S} -x_j^T u]`` does, if the others' weights follow.

    Args:
      network: with :class:`jaxcvx.FreeBias`.
      X: (n, d) samples.
      dual: (n, 1) or (n,) optimal dual residual.
      tol: size of ``|sum_S R_i| / sum |R_i|`` that counts as zero.

    Returns:
      Lower and upper ends, equal where the bias is unique; infinite where a neuron is active everywhere or nowhere.
    """
    if not network.features.free_bias:
        raise invalid("network", f"features {network.features}", "a network with FreeBias()")
    X = np.asarray(as_real_matrix("X", X), np.float64)
    R = np.asarray(dual, np.float64).reshape(len(X))
    hidden = np.asarray(network.hidden, np.float64)
    kinks = -(X @ hidden[:, :-1].T)  # (n, m): the bias at which each sample turns on
    b = hidden[:, -1]
    close = 1e-9 * np.abs(kinks).max(initial=1.0)
    below, above = (
        kinks < b - close,
        kinks <= b + close,
    )  # active on, without and with the samples at the kink
    free_down, free_up = (np.abs(R @ on) <= tol * np.abs(R).sum() for on in (below, above))
    low = np.where(free_down, np.max(np.where(below, kinks, -np.inf), axis=0), b)
    high = np.where(free_up, np.min(np.where(above, np.inf, kinks), axis=0), b)
    return jnp.asarray(np.stack([low, high], axis=1))
