"""Reduction of a network to at most n c + 1 neurons, by Caratheodory's theorem."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxcvx.networks.network import Network, balance, objective_on_host, prune
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem


def reduce_width(problem: Problem, network: Network) -> Network:
    """A network of at most n c + 1 neurons with the same predictions on X and no larger penalty.

    A neuron is a point in a space of dimension n c + 1: its contributions to the n c predictions, and its penalty. So
    more than n c + 1 neurons are linearly dependent. Along the dependency one can change the neurons' sizes until one
    of them is zero. The predictions stay the same, and in one of the two directions the penalty does not grow. The
    width depends on the values, so this does not work under jit.

    Args:
      problem: the training problem with n samples and c outputs.
      network: a network for it.

    Returns:
      The narrower network, or ``network`` if it is narrow enough.

    Source: M. Pilanci and T. Ergen, "Neural networks are convex regularizers" (2020), section 3, for the bound.

    >>> import jax.numpy as jnp, jaxcvx
    >>> problem = jaxcvx.make_problem([[1.0]], [1.0], beta=0.1)  # one sample, one output
    >>> network = jaxcvx.Network(hidden=jnp.ones((5, 1)), output=jnp.ones((5, 1)))
    >>> reduce_width(problem, network).width <= 2
    True
    """
    network = prune(balance(network))
    n, c = problem.Y.shape
    if network.width <= n * c + 1:
        return network
    hidden = np.asarray(network.hidden, np.float64)
    output = np.asarray(network.output, np.float64)
    readout = problem.readout
    rows = np.asarray(problem.rows, np.float64)
    activation = np.maximum(rows @ hidden.T, 0.0)
    points = [
        np.append(np.asarray(readout.lower(jnp.outer(activation[:, j], output[j]))).ravel(), output[j] @ output[j])
        for j in range(network.width)
    ]
    columns = np.stack(points, axis=1)
    scale = np.linalg.norm(columns, axis=0)
    columns = columns / scale
    weight = scale.copy()  # multiplicity of each column; 0 for a removed neuron
    alive = np.flatnonzero(weight > 0)
    while len(alive) > n * c + 1:
        dependent = alive[: n * c + 2]
        direction = np.linalg.svd(columns[:, dependent])[2][-1]
        if direction @ (columns[-1, dependent]) > 0:  # the penalty must not grow
            direction = -direction
        if not (direction < 0).any():
            direction = -direction
        ratio = np.where(direction < 0, weight[dependent] / divisor(-direction), np.inf)
        step = ratio.min()
        weight[dependent] = np.maximum(weight[dependent] + step * direction, 0.0)
        weight[dependent[ratio.argmin()]] = 0.0
        alive = np.flatnonzero(weight > 0)
    factor = np.sqrt(weight / scale)[:, None]
    dtype = network.hidden.dtype
    smaller = prune(
        dataclasses.replace(
            network, hidden=jnp.asarray(hidden * factor, dtype), output=jnp.asarray(output * factor, dtype)
        )
    )
    slack = 1 + 16 * float(jnp.finfo(dtype).eps)
    kept = float(objective_on_host(smaller, problem)) <= float(objective_on_host(network, problem)) * slack
    return smaller if kept else network
