"""Extreme points of the set of activations: neurons active on one sample only, and neurons whose bias is not unique.

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
from jaxcvx.numerics.safe import divisor, norm
from jaxcvx.numerics.validation import as_real_matrix
from jaxcvx.proximal.polyhedral_cone import least_norm_shift


class ResidualNeurons(NamedTuple):
    """For every sample, the neuron that is active on this sample only, if there is one.

    Attributes:
      hidden: (n, d + 1) neurons (u_i, b_i) with ||u_i|| = 1. The row is zero if sample i is not a vertex.
      residual: (n, d) sample i minus the nearest convex combination of the other samples.
      vertex: (n,) True if sample i is a vertex of the convex hull of all samples.
    """

    hidden: Float[Array, "n p"]
    residual: Float[Array, "n d"]
    vertex: Bool[Array, n]


def residual_neurons(X: Any, tol: float = 1e-9) -> ResidualNeurons:
    """For every sample, compute the neuron along its auto-encoder residual. No other sample activates this neuron.

    ``u_i = (x_i - sum_j lam_j x_j) / ||.||`` with lam the best point of the simplex, ``b_i = min_{j != i} -x_j^T u_i``.
    The residual is the least-norm point z of the hull of ``x_i - x_j``, and ``z / ||z||^2`` is the shortest w with
    ``w^T (x_i - x_j) >= 1`` for all j. An active-set method solves this least-distance problem for each sample.

    Args:
      X: (n, d) samples, at least two.
      tol: a sample counts as a vertex if its distance to the hull of the others exceeds ``tol`` times the spread of
        the samples.

    Example:
      >>> import jaxcvx
      >>> neurons = jaxcvx.residual_neurons([[0.0], [1.0], [3.0]])
      >>> neurons.vertex.tolist()
      [True, False, True]
      >>> neurons.hidden[2].round(3).tolist()
      [1.0, -1.0]
    """
    X = as_real_matrix("X", X)
    if len(X) < 2:
        raise invalid("X", "one row", "at least two")
    spread = jnp.max(jnp.abs(X - jnp.mean(X, axis=0)))
    scale = divisor(spread)

    def residual_neuron(i):
        others = (jnp.arange(len(X)) != i).astype(X.dtype)
        rows = (X[i] - X) / scale
        w = least_norm_shift(rows, others, others)
        size = norm(w)
        margin = jnp.min(jnp.where(others > 0, rows @ w, jnp.inf))
        vertex = (size > 0) & (margin > 0.5) & (1 / divisor(size) > tol)
        u = jnp.where(vertex, w / divisor(size), 0.0)
        b = jnp.min(jnp.where(others > 0, -(X @ u), jnp.inf))
        residual = u * scale / jnp.where(vertex, size, 1.0)
        return jnp.append(u, jnp.where(vertex, b, 0.0)), residual, vertex

    return ResidualNeurons(*jax.jit(lambda: jax.lax.map(residual_neuron, jnp.arange(len(X))))())


def vertex_network(X: Any, Y: Any) -> Network:
    """Build the network of n residual neurons that fits Y exactly. Every sample must be a vertex of the hull of all.

    Args:
      X: (n, d) samples. Gaussian samples are all vertices with high probability if d > 2 n log(n - 1).
      Y: (n,) or (n, c) targets.

    Raises:
      InvalidInputError: a sample is not a vertex.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> X = jnp.array([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])
      >>> network = jaxcvx.vertex_network(X, [1.0, 2.0, 3.0])
      >>> [round(float(y), 3) for y in network(X)[:, 0]]
      [1.0, 2.0, 3.0]
    """
    X = as_real_matrix("X", X)
    Y = as_real_matrix("Y", Y, (1, 2)).reshape(len(X), -1)
    neurons = residual_neurons(X)
    if not bool(neurons.vertex.all()):
        inside = int(np.flatnonzero(~np.asarray(neurons.vertex))[0])
        raise invalid("X", f"sample {inside} inside the others' hull", "samples that are all vertices of their hull")
    margin = jnp.sum(neurons.hidden[:, :-1] * X, axis=1) + neurons.hidden[:, -1]
    output = (Y / margin[:, None]).astype(X.dtype)
    return balance(Network(neurons.hidden, output, None, FreeBias(), jnp.zeros(Y.shape[1], X.dtype)))


def bias_intervals(network: Network, X: Any, dual: Any, tol: float = 1e-6) -> Float[Array, "m 2"]:
    """For every neuron of an optimal network with free biases, compute the interval of optimal biases.

    Let S be the samples on which a neuron is active, and R the dual residual. If ``sum_S R_i = 0``, the neuron's
    correlation with R does not change with b while S stays the same. Then every b in the interval
    ``[max_S -x_i^T u, min_{not S} -x_j^T u]`` is optimal, with suitable output weights of the neurons.

    Args:
      network: with :class:`jaxcvx.FreeBias`.
      X: (n, d) samples.
      dual: (n, 1) or (n,) optimal dual residual.
      tol: ``sum_S R_i`` counts as zero if ``|sum_S R_i| <= tol sum |R_i|``.

    Returns:
      Lower and upper ends. They are equal if the bias is unique. If a neuron is active on all samples or on none,
      one end is infinite.

    Example:
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> X = jnp.array([[0.0], [1.0], [2.0], [3.0]])
      >>> network = jaxcvx.Network(jnp.array([[1.0, -1.5]]), jnp.array([[1.0]]), None, jaxcvx.FreeBias())
      >>> jaxcvx.bias_intervals(network, X, [0.0, 0.0, 1.0, -1.0]).tolist()
      [[-2.0, -1.0]]
    """
    if not network.features.free_bias:
        raise invalid("network", f"features {network.features}", "a network with FreeBias()")
    X = np.asarray(as_real_matrix("X", X), np.float64)
    R = np.asarray(dual, np.float64).reshape(len(X))
    hidden = np.asarray(network.hidden, np.float64)
    kinks = -(X @ hidden[:, :-1].T)  # (n, m): a neuron is active on sample i for biases above its kink
    b = hidden[:, -1]
    close = 1e-9 * np.abs(kinks).max(initial=1.0)
    below = kinks < b - close  # active samples, without those at the kink
    above = kinks <= b + close  # the same, with them
    free_down, free_up = (np.abs(R @ on) <= tol * np.abs(R).sum() for on in (below, above))
    low = np.where(free_down, np.max(np.where(below, kinks, -np.inf), axis=0), b)
    high = np.where(free_up, np.min(np.where(above, np.inf, kinks), axis=0), b)
    return jnp.asarray(np.stack([low, high], axis=1))
