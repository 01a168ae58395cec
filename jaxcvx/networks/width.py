"""The width that suffices: at most n c + 1 neurons (Caratheodory)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxcvx.networks.network import Network, balance, objective_on_host, prune
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem


def reduce_width(problem: Problem, network: Network) -> Network:
    """A network of at most n c + 1 neurons with the same predictions on X and no larger penalty.

    The pairs (contribution to the predictions, penalty) of the neurons are points of a space of dimension
    n c + 1, so while there are more neurons some combination of them moves neither; following it until a
    neuron vanishes changes no prediction and, in the right direction, adds no penalty. For use outside jit.

    Source: the bound of M. Pilanci and T. Ergen, "Neural networks are convex regularizers" (2020), section 3.
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
    weight = scale.copy()  # column j counts weight[j] times; 0 once it is gone
    alive = np.flatnonzero(weight > 0)
    while len(alive) > n * c + 1:
        some = alive[: n * c + 2]
        direction = np.linalg.svd(columns[:, some])[2][-1]
        if direction @ (columns[-1, some]) > 0:  # never towards more penalty
            direction = -direction
        if not (direction < 0).any():
            direction = -direction
        ratio = np.where(direction < 0, weight[some] / divisor(-direction), np.inf)
        step = ratio.min()
        weight[some] = np.maximum(weight[some] + step * direction, 0.0)
        weight[some[ratio.argmin()]] = 0.0
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
