"""Sliding fully corrective Frank-Wolfe: one round of it, with fixed shapes, so that whole paths are one program.

A round merges neurons, adds those that the last pricing found, fits all output weights, moves all neurons a little and
prices again. Pricing ascends from the neurons of the pool, so it also slides them: a neuron that no longer stands at a
maximum of the price gets a better copy beside it, and merging joins the two.

Sources: Q. Denoyelle, V. Duval, G. Peyré and E. Soubies (2019), "The sliding Frank-Wolfe algorithm and its application
to super-resolution microscopy"; F. Bach (2017), "Breaking the curse of dimensionality with convex neural networks".
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxcvx.numerics.safe import divisor, norm, unit_rows
from jaxcvx.pricing.base import distinct, neuron_values
from jaxcvx.pricing.multistart import ascend_neurons
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.semi_infinite.pool import Pool, dual_residual, move

_SAME_CELL = 1e-5  # relative overlap of opposite signs up to which two neurons are joined; measured from 1e-6 to 1e-3
_POWER_STEPS = 15


class Settings(NamedTuple):
    """The sizes of a round. They are static under jit.

    Attributes:
      new_neurons: largest number of neurons added in a round.
      ascent_rounds: difference-of-convex steps of pricing.
      ascent_steps: gradient steps of each inner problem of pricing.
      refit_steps: proximal gradient steps that fit the output weights.
      move_steps: Adam steps that move all neurons.
      max_rounds: rounds for one beta.
    """

    new_neurons: int = 32
    ascent_rounds: int = 6
    ascent_steps: int = 8
    refit_steps: int = 150
    move_steps: int = 150
    max_rounds: int = 6


class Candidates(NamedTuple):
    """What pricing found, best first.

    Attributes:
      directions: (k, p) unit vectors.
      prices: (k,) their prices at the pool's residual.
    """

    directions: Float[Array, "k p"]
    prices: Float[Array, k]


class Sliding(NamedTuple):
    """The state between two rounds: the pool, and the pricing at its residual."""

    pool: Pool
    candidates: Candidates


def row_curvature(problem: Problem) -> Float[Array, ""]:
    """An upper bound on the squared spectral norm of the feature rows scaled to length 1, for ``price``."""
    rows = unit_rows(problem.rows)
    return 1.01 * jnp.linalg.norm(rows, ord=2) ** 2


def price(problem: Problem, pool: Pool, key: PRNGKeyArray, settings: Settings, curvature: Array) -> Candidates:
    """Ascend from the neurons of the pool, and from a random direction in every empty slot."""
    Z, R = problem.rows, problem.readout.lift(dual_residual(problem, pool))
    used = norm(pool.weights) > 0
    m = len(used)
    u = jnp.where(used[:, None], pool.directions, unit_rows(jax.random.normal(key, pool.directions.shape, Z.dtype)))
    if problem.num_columns == 1:
        alternating = jnp.where(jnp.arange(m) % 2 == 0, 1.0, -1.0)
        v = jnp.where(used, jnp.sign(pool.weights[:, 0]), alternating)[:, None].astype(Z.dtype)
    else:
        v = unit_rows(jax.nn.relu(u @ Z.T) @ R)
    u, prices = ascend_neurons(
        Z, R, u, v, rounds=settings.ascent_rounds, inner_steps=settings.ascent_steps, curvature=curvature
    )
    best, prices = distinct(u, prices, settings.new_neurons, radius=1e-2)
    return Candidates(u[best], prices)


def neuron_prices(problem: Problem, R: Float[Array, "n c"], directions: Float[Array, "m p"]) -> Float[Array, m]:
    """The price of each direction, scaled to length 1, at the dual residual R."""
    return neuron_values(problem.rows, problem.readout.lift(R), unit_rows(directions))


def merge_cells(problem: Problem, pool: Pool) -> Pool:
    """Join neurons of one cell with parallel output weights: their sum predicts the same and costs no more.

    Neurons u and u' lie in one cell if no row has opposite signs on them. Rows on which the product of the two
    activations is below rounding do not count, so the objective may change in the last digits.
    """
    size = norm(pool.weights)
    m = len(size)
    neurons = pool.directions * size[:, None]
    activation = unit_rows(problem.rows) @ neurons.T
    positive, negative = jax.nn.relu(activation), jax.nn.relu(-activation)
    opposite = positive.T @ negative
    length = norm(activation, axis=0)
    one_cell = opposite + opposite.T <= _SAME_CELL * length[:, None] * length[None, :]
    output = unit_rows(pool.weights)
    used = size > 0
    joinable = one_cell & (output @ output.T > 1 - 1e-4) & used[:, None] & used[None, :] & ~jnp.eye(m, dtype=bool)
    order = jnp.argsort(size)

    def join(k, carry):
        neurons, size = carry
        small = order[k]
        partner = jnp.argmax(jnp.where(joinable[small], size, -1.0))
        joins = joinable[small, partner] & (size[partner] > 0) & (size[small] > 0)
        added = jnp.where(joins, neurons[small], 0.0)
        neurons = neurons.at[partner].add(added).at[small].add(-added)
        grown = jnp.where(joins, size[small], 0.0)
        return neurons, size.at[partner].add(grown).at[small].add(-grown)

    neurons, size = jax.lax.fori_loop(0, m, join, (neurons, size))
    kept = size > 0
    length = jnp.where(kept, norm(neurons), 0.0)
    return Pool(jnp.where(kept[:, None], unit_rows(neurons), 0.0), output * length[:, None])


def add(pool: Pool, candidates: Candidates, wanted: Array) -> Pool:
    """Put the wanted candidates, best first, into empty slots. Those beyond the capacity are dropped."""
    size = norm(pool.weights)
    slots = jnp.argsort(size, stable=True)[: len(wanted)]
    taken = wanted & (size[slots] == 0)
    directions = jnp.where(taken[:, None], candidates.directions, pool.directions[slots])
    return Pool(pool.directions.at[slots].set(directions), pool.weights)


def refit(problem: Problem, pool: Pool, steps: int) -> Pool:
    """Fit the output weights by accelerated proximal gradient with restarts. The result is never worse.

    For the squared loss the steps work on the Gram matrix of the activations, so their cost does not depend on n.
    """
    readout, Y, loss = problem.readout, problem.targets, problem.loss
    atoms = jax.nn.relu(problem.rows @ pool.directions.T)
    shape = pool.weights.shape

    def forward(W):
        return readout.apply(atoms, W)

    if loss.is_quadratic:
        A = readout.design(atoms)  # (n, m, k)
        A = A.reshape(A.shape[0], -1)
        G, b = A.T @ A, A.T @ Y

        def hessian(W):
            return (G @ W.reshape(G.shape[0], -1)).reshape(shape)

        def gradient(W):
            return hessian(W) - b.reshape(shape)
    else:
        curvature = problem.curvature
        assert curvature is not None, "solvers refuse non-smooth losses by name"

        def hessian(W):
            return curvature * readout.price(atoms, forward(W))

        def gradient(W):
            return readout.price(atoms, loss.grad(forward(W), Y))

    def power(_, W):
        W = hessian(W)
        return W / divisor(norm(W, axis=None))

    top = jax.lax.fori_loop(0, _POWER_STEPS, power, jnp.ones(shape, atoms.dtype))
    L = 1.1 * norm(hessian(top), axis=None) + jnp.finfo(atoms.dtype).tiny
    threshold = problem.beta / L

    def step(_, carry):
        W, ahead, t = carry
        moved = ahead - gradient(ahead) / L
        size = norm(moved, keepdims=True)
        new = moved * jnp.maximum(1 - threshold / divisor(size), 0.0)
        t = jnp.where(jnp.sum((ahead - new) * (new - W)) > 0, 1.0, t)
        longer = 0.5 * (1 + jnp.sqrt(1 + 4 * t**2))
        return new, new + (t - 1) / longer * (new - W), longer

    one = jnp.ones((), atoms.dtype)
    weights = jax.lax.fori_loop(0, steps, step, (pool.weights, pool.weights, one))[0]

    def value(W):
        return loss.value(forward(W), Y) + problem.beta * jnp.sum(norm(W))

    weights = jnp.where(value(weights) <= value(pool.weights), weights, pool.weights)
    used = norm(weights) > 0
    return Pool(jnp.where(used[:, None], pool.directions, 0.0), weights)


def one_round(
    problem: Problem, state: Sliding, key: PRNGKeyArray, settings: Settings, rate: Array, tol: Array, curvature: Array
) -> Sliding:
    """Merge, add, fit, move and price."""
    pool = merge_cells(problem, state.pool)
    pool = add(pool, state.candidates, state.candidates.prices > problem.beta * (1 + tol))
    pool = refit(problem, pool, settings.refit_steps)
    if settings.move_steps:
        pool = move(problem, pool, settings.move_steps, rate)
    return Sliding(pool, price(problem, pool, key, settings, curvature))


def slide(
    problem: Problem, state: Sliding, key: PRNGKeyArray, settings: Settings, rate: Array, tol: Array, curvature: Array
) -> tuple[Sliding, Int[Array, ""]]:
    """Rounds at one beta until no candidate's price exceeds it by more than ``tol``, at most ``max_rounds``.

    Returns:
      The state, and the number of rounds.
    """

    def more(carry):
        state, count, _ = carry
        return (count < settings.max_rounds) & (state.candidates.prices[0] > problem.beta * (1 + tol))

    def body(carry):
        state, count, key = carry
        key, here = jax.random.split(key)
        return one_round(problem, state, here, settings, rate, tol, curvature), count + 1, key

    state, count, _ = jax.lax.while_loop(more, body, (state, jnp.asarray(0, jnp.int32), key))
    return state, count
