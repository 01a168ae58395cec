"""A pool of neurons of fixed capacity. Column generation adds neurons to it, reweights, moves and drops them.

The directions u_j are unit vectors, w_j are their output weights. The training objective is

    loss(lower((Z U^T)_+ W), Y) + beta sum_j ||w_j||,

where ``lower`` is the readout, which turns rows into samples. Empty slots are zero rows in both arrays. Every function
is compiled once for each capacity.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.networks.network import Network, balance, network_objective
from jaxcvx.numerics.precision import default_promotion
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.neurons.group_lasso import fit_atoms
from jaxcvx.solvers.neurons.refit import refit_outputs


class Pool(NamedTuple):
    """Neurons in m slots.

    Attributes:
      directions: (m, p) unit vectors; zero in empty slots.
      weights: (m, q) output weights.
    """

    directions: Float[Array, "m p"]
    weights: Float[Array, "m q"]


def pool_network(problem: Problem, pool: Pool) -> Network:
    """The pool as a balanced network of the same width."""
    return balance(Network(pool.directions, pool.weights, None, problem.features))


@jax.jit
def pool_of(network: Network) -> Pool:
    """Turn a network's neurons into a pool of the same capacity. Drop neurons whose weight is below rounding error.

    Gradient steps shrink a neuron but never make it zero. In the end its norm underflows and its direction is lost.
    """
    size = jnp.linalg.norm(network.hidden, axis=1, keepdims=True)
    unit = network.hidden / divisor(size)
    weights = network.output * size
    weight = jnp.linalg.norm(weights, axis=1, keepdims=True)
    alive = weight > jnp.finfo(weight.dtype).eps * jnp.max(weight)
    return Pool(jnp.where(alive, unit, 0.0), jnp.where(alive, weights, 0.0))


@jax.jit
def pool_objective(problem: Problem, pool: Pool) -> Float[Array, ""]:
    """Training objective of the pool."""
    return network_objective(pool_network(problem, pool), problem)


@jax.jit
def dual_residual(problem: Problem, pool: Pool) -> Float[Array, "n c"]:
    """Minus the loss's gradient at the pool's predictions."""
    return -problem.loss.grad(pool_network(problem, pool)(problem.X), problem.targets)


@jax.jit
def insert(pool: Pool, directions: Float[Array, "k p"], wanted: Array) -> Pool:
    """Put the ``wanted`` directions, best first, into slots whose weights are zero. The rest is dropped."""
    used = jnp.any(pool.weights != 0, axis=1)
    slots = jnp.argsort(used, stable=True)  # free slots first
    number = jnp.cumsum(wanted) - 1
    fits = wanted & (number < jnp.sum(~used))
    cleared = jnp.where(used[:, None], pool.directions, 0.0)
    target = jnp.where(fits, slots[jnp.clip(number, 0)], pool.directions.shape[0])
    return Pool(cleared.at[target].set(directions, mode="drop"), pool.weights)


@functools.partial(jax.jit, static_argnames="num_steps")
def reweight(problem: Problem, pool: Pool, num_steps: int) -> Pool:
    """Fit the output weights anew to a few digits. Weights that become 0 free their slots.

    For the squared loss this is accelerated proximal gradient (Beck and Teboulle 2009, restarted) on the Gram matrix of
    the activations. The cost of a step does not depend on n.
    """
    if not problem.loss.is_quadratic:
        return pool_of(refit_outputs(problem, pool_network(problem, pool), tol=1e-4, max_steps=num_steps))
    readout, Y = problem.readout, problem.Y
    m, c = pool.weights.shape[0], Y.shape[1]
    activation = problem.rows @ pool.directions.T
    A = readout.design(jax.nn.relu(activation))  # (n, m, k): the readout of each atom
    k = A.shape[2]
    A = A.reshape(A.shape[0], m * k)
    G, b = A.T @ A, A.T @ Y
    start = pool.weights.reshape(m * k, c)

    def power(_, v):
        v = G @ v
        return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)

    top = jax.lax.fori_loop(0, 20, power, jnp.ones(m * k, A.dtype))
    L = 1.05 * jnp.linalg.norm(G @ top) + jnp.finfo(A.dtype).tiny

    def iteration(_, carry):
        w, z, t = carry
        v = (z - (G @ z - b) / L).reshape(m, k * c)
        size = jnp.linalg.norm(v, axis=1, keepdims=True)
        factor = jnp.where(size > problem.beta / L, 1 - problem.beta / L / divisor(size), 0.0)
        new = (v * factor).reshape(m * k, c)
        t = jnp.where(jnp.sum((z - new) * (new - w)) > 0, 1.0, t)
        grown = 0.5 * (1 + jnp.sqrt(1 + 4 * t**2))
        return new, new + (t - 1) / grown * (new - w), grown

    w, _, _ = jax.lax.fori_loop(0, num_steps, iteration, (start, start, jnp.ones((), A.dtype)))
    return _better(problem, Pool(pool.directions, w.reshape(m, k * c)), pool)


@jax.jit
def fit_weights(problem: Problem, pool: Pool) -> tuple[Pool, Float[Array, "n c"]]:
    """Fit the output weights exactly. Return the pool and its dual residual."""
    if not problem.loss.is_quadratic:
        pool = reweight(problem, pool, 5000)
        return pool, dual_residual(problem, pool)
    atoms = jax.nn.relu(problem.rows @ pool.directions.T)
    fit = fit_atoms(atoms, problem.Y, problem.beta, problem.readout, init=pool.weights, tol=1e-12, max_steps=100)
    better = fit.objective <= pool_objective(problem, pool)
    weights = jnp.where(better, fit.output, pool.weights)
    used = jnp.any(weights != 0, axis=1, keepdims=True)
    return Pool(jnp.where(used, pool.directions, 0.0), weights), fit.R


@functools.partial(jax.jit, static_argnames="num_steps")
def move(problem: Problem, pool: Pool, num_steps: int, rate: Float[Array, ""]) -> Pool:
    """Move all weights by Adam (cosine decay) on the training objective. The result is never worse.

    This turns all directions together. Pricing alone would add many near-copies of the same neurons.
    """
    import optax

    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))
    start = pool_network(problem, pool)

    def step(_, carry):
        network, state = carry
        gradient = jax.grad(network_objective)(network, problem)
        with default_promotion():
            updates, state = optimizer.update(gradient, state)
            return optax.apply_updates(network, updates), state

    network, _ = jax.lax.fori_loop(0, num_steps, step, (start, optimizer.init(start)))
    return _better(problem, pool_of(network), pool)


def _better(problem: Problem, new: Pool, old: Pool) -> Pool:
    wins = pool_objective(problem, new) < pool_objective(problem, old)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), new, old)


@functools.partial(jax.jit, static_argnames="num")
def strongest(pool: Pool, num: int) -> Float[Array, "k p"]:
    """Return the directions of the ``num`` neurons with the largest weights (fewer if the pool is smaller)."""
    size = jnp.linalg.norm(pool.weights, axis=1)
    return pool.directions[jax.lax.top_k(size, min(num, len(size)))[1]]


def resize(pool: Pool, capacity: int) -> Pool:
    """Give the pool ``capacity`` slots and keep the strongest neurons. Runs on the host; numpy arrays stay numpy."""
    size = np.linalg.norm(np.asarray(pool.weights), axis=1)
    order = np.argsort(-size, kind="stable")[: min(capacity, int((size > 0).sum()))]

    def placed(a: Any) -> Any:
        host = np.asarray(a)
        full = np.zeros((capacity, host.shape[1]), host.dtype)
        full[: len(order)] = host[order]
        return full if isinstance(a, np.ndarray) else jnp.asarray(full)

    return Pool(placed(pool.directions), placed(pool.weights))
