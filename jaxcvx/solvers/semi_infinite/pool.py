"""A pool of neurons of fixed capacity. Column generation adds neurons to it, reweights, moves and drops them.

The directions u_j are unit vectors, w_j are their output weights. The training objective is

    loss(lower((Z U^T)_+ W), Y) + beta sum_j ||w_j||,

where ``lower`` is the readout, which turns rows into samples. Empty slots are zero rows in both arrays. Every function
is compiled once for each capacity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.certificates.centring import feasible_residual
from jaxcvx.features.readout import Readout
from jaxcvx.networks.network import Network, balance, network_objective
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.neurons.group_lasso import fit_atoms
from jaxcvx.solvers.neurons.proximal_newton import OutputFit, fit_outputs

_MANY_STEPS = 6000  # of proximal gradient, for an exact fit


class Pool(NamedTuple):
    """Neurons in m slots.

    Attributes:
      directions: (m, p) unit vectors; zero in empty slots.
      weights: (m, q) output weights.
      bias: (c,) output bias; zero if the features have none.
    """

    directions: Float[Array, "m p"]
    weights: Float[Array, "m q"]
    bias: Float[Array, c]


def has_output_bias(problem: Problem) -> bool:
    """True if the networks have an output bias without a penalty."""
    return problem.features.output_bias


def pool_network(problem: Problem, pool: Pool) -> Network:
    """The pool as a balanced network of the same width."""
    bias = pool.bias if has_output_bias(problem) else None
    return balance(Network(pool.directions, pool.weights, None, problem.features, bias))


@jax.jit
def pool_of(problem: Problem, network: Network) -> Pool:
    """Turn a network's neurons into a pool of the same capacity. Drop neurons whose weight is below rounding error.

    Gradient steps shrink a neuron but never make it zero. In the end its norm underflows and its direction is lost.
    """
    size = jnp.linalg.norm(network.hidden, axis=1, keepdims=True)
    unit = network.hidden / divisor(size)
    weights = network.output * size
    weight = jnp.linalg.norm(weights, axis=1, keepdims=True)
    alive = weight > jnp.finfo(weight.dtype).eps * jnp.max(weight)
    bias = jnp.zeros_like(problem.Y[0], unit.dtype) if network.output_bias is None else network.output_bias
    return Pool(jnp.where(alive, unit, 0.0), jnp.where(alive, weights, 0.0), bias)


@jax.jit
def pool_objective(problem: Problem, pool: Pool) -> Float[Array, ""]:
    """Training objective of the pool."""
    return network_objective(pool_network(problem, pool), problem)


@jax.jit
def dual_residual(problem: Problem, pool: Pool) -> Float[Array, "n c"]:
    """Minus the loss's gradient at the pool's predictions; with an output bias its columns sum to zero."""
    return feasible_residual(problem, -problem.loss.grad(pool_network(problem, pool)(problem.X), problem.targets))


@jax.jit
def insert(pool: Pool, directions: Float[Array, "k p"], wanted: Array) -> Pool:
    """Put the ``wanted`` directions, best first, into slots whose weights are zero. The rest is dropped."""
    used = jnp.any(pool.weights != 0, axis=1)
    slots = jnp.argsort(used, stable=True)  # free slots first
    number = jnp.cumsum(wanted) - 1
    fits = wanted & (number < jnp.sum(~used))
    cleared = jnp.where(used[:, None], pool.directions, 0.0)
    target = jnp.where(fits, slots[jnp.clip(number, 0)], pool.directions.shape[0])
    return pool._replace(directions=cleared.at[target].set(directions, mode="drop"))


@jax.jit
def fit_weights(problem: Problem, pool: Pool) -> tuple[Pool, Float[Array, "n c"]]:
    """Fit the output weights and the output bias exactly. Return the pool and its dual residual."""
    readout, free = problem.readout, has_output_bias(problem)
    if not problem.loss.is_quadratic or (free and readout.kind == "flatten"):
        pool = fit_pool(problem, pool, _MANY_STEPS)
        return pool, dual_residual(problem, pool)
    atoms, Y, bias = jax.nn.relu(problem.rows @ pool.directions.T), problem.Y, pool.bias
    if free:  # centring eliminates the bias
        atoms, readout = readout.design(atoms)[:, :, 0], Readout()
        mean, middle = jnp.mean(atoms, axis=0), jnp.mean(Y, axis=0)
        atoms, Y = atoms - mean, Y - middle
    fit = fit_atoms(atoms, Y, problem.beta, readout, init=pool.weights, tol=1e-12, max_steps=100)
    if free:
        bias = middle - mean @ fit.output
    fitted = _used(pool._replace(weights=fit.output, bias=bias))
    return _better(problem, fitted, pool), fit.R


def fit_pool(problem: Problem, pool: Pool, steps: int) -> Pool:
    """Fit the output weights and the output bias by ``steps`` proximal gradient steps. The result is never worse.

    Neurons of weight 0 leave the pool.
    """
    fit = fit_outputs(
        problem.loss,
        problem.targets,
        jax.nn.relu(problem.rows @ pool.directions.T),
        problem.beta,
        problem.readout,
        OutputFit(pool.weights, pool.bias),
        steps,
        has_output_bias(problem),
    )
    return _used(pool._replace(weights=fit.weights, bias=fit.bias))


def _used(pool: Pool) -> Pool:
    """Clear the slots of neurons without weight."""
    used = jnp.any(pool.weights != 0, axis=1, keepdims=True)
    return pool._replace(directions=jnp.where(used, pool.directions, 0.0))


def _better(problem: Problem, new: Pool, old: Pool) -> Pool:
    wins = pool_objective(problem, new) < pool_objective(problem, old)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), new, old)


def resize(pool: Pool, capacity: int) -> Pool:
    """Give the pool ``capacity`` slots and keep the strongest neurons. Runs on the host; numpy arrays stay numpy."""
    size = np.linalg.norm(np.asarray(pool.weights), axis=1)
    order = np.argsort(-size, kind="stable")[: min(capacity, int((size > 0).sum()))]

    def placed(a: Any) -> Any:
        host = np.asarray(a)
        full = np.zeros((capacity, host.shape[1]), host.dtype)
        full[: len(order)] = host[order]
        return full if isinstance(a, np.ndarray) else jnp.asarray(full)

    return pool._replace(directions=placed(pool.directions), weights=placed(pool.weights))
