"""The rounds that finish a network in float64: all neurons move within their cells to the optimum of a convex program.

A round merges neurons, adds those that the last pricing found, fits the output weights, solves the cone program over
the cells of all these neurons, fits again and prices. After one or two rounds the network is stationary: no neuron near
its own pays, and no candidate does.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.neurons.cell_program import solve_in_cells
from jaxcvx.solvers.semi_infinite.pool import Pool, fit_pool, has_output_bias, pool_objective
from jaxcvx.solvers.semi_infinite.sliding import Settings, Sliding, add, merge_cells, price, row_curvature

_FIT_STEPS = 500  # proximal gradient steps of a fit
_SAME = 1e-9  # relative growth of the objective up to which merged neurons are taken


def cell_round(problem: Problem, state: Sliding, key: PRNGKeyArray, settings: Settings, tol: Array) -> Sliding:
    """One round. The objective does not grow by more than ``1e-9`` of it."""
    pool = merged(problem, state.pool)
    pool = add(pool, state.candidates, state.candidates.prices > problem.beta * (1 + tol))
    pool = fit_pool(problem, pool, _FIT_STEPS)
    pool = _better(problem, moved_in_cells(problem, pool), pool)
    pool = merged(problem, fit_pool(problem, pool, _FIT_STEPS))
    return price(problem, pool, state.scouts, key, settings, row_curvature(problem))


def moved_in_cells(problem: Problem, pool: Pool) -> Pool:
    """The pool after the optimum of the cone program over the cells of its neurons."""
    size, towards = norm(pool.weights), unit_rows(pool.weights)
    x = pool.directions * size[:, None]
    weights = solve_in_cells(problem, x, towards, pool.bias, has_output_bias(problem))
    size = norm(weights.x)
    size = jnp.where(size > _DROPPED * jnp.max(size), size, 0.0)
    directions = jnp.where((size > 0)[:, None], unit_rows(weights.x), 0.0)
    return Pool(directions, towards * size[:, None], weights.b)


_DROPPED = 1e-9  # relative size below which a neuron is dropped


def merged(problem: Problem, pool: Pool) -> Pool:
    """The pool with its neurons of one cell joined, unless that is worse."""
    joined = merge_cells(problem, pool)
    takes = pool_objective(problem, joined) <= pool_objective(problem, pool) * (1 + _SAME)
    return jax.tree.map(lambda new, old: jnp.where(takes, new, old), joined, pool)


def _better(problem: Problem, new: Pool, old: Pool) -> Pool:
    wins = pool_objective(problem, new) < pool_objective(problem, old)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), new, old)


@functools.partial(jax.jit, static_argnames="settings")
def finish(
    problem: Problem, state: Sliding, key: PRNGKeyArray, settings: Settings, tol: Array, limit: Array
) -> tuple[Sliding, Int[Array, ""]]:
    """Rounds until no candidate's price exceeds beta by more than ``tol``, at least one and at most ``limit``.

    Args:
      problem: scaled, in float64, at its beta.
      state: pool and candidates to start from.
      key: for the starts of pricing.
      settings: sizes of a round.
      tol: relative violation of a dual constraint from which a neuron is added.
      limit: largest number of rounds; 0 leaves the state as it is.

    Returns:
      The state, and the number of rounds.
    """

    def more(carry):
        state, count, _ = carry
        pays = state.candidates.prices[0] > problem.beta * (1 + tol)
        return (count < limit) & ((count == 0) | pays)

    def body(carry):
        state, count, key = carry
        key, here = jax.random.split(key)
        return cell_round(problem, state, here, settings, tol), count + 1, key

    state, count, _ = jax.lax.while_loop(more, body, (state, jnp.zeros((), jnp.int32), key))
    return state, count
