"""The rounds that finish a network in float64: all neurons move within their cells to the optimum of a convex program.

A round adds the neurons that the last pricing found, fits the output weights, solves the cone program over the cells
of all neurons, fits again, merges neurons and prices. After one or two rounds the network is stationary: no neuron near
its own pays, and no candidate does.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.numerics.on_host import list_of_keys
from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.pricing.base import Priced
from jaxcvx.pricing.multistart import price_multistart, pricing_starts
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.neurons.cell_program import solve_in_cells
from jaxcvx.solvers.semi_infinite.neuron_path import NeuronPath, grow, path_of, state_at
from jaxcvx.solvers.semi_infinite.pool import Pool, dual_residual, fit_pool, has_output_bias, pool_objective, resize
from jaxcvx.solvers.semi_infinite.sliding import Candidates, Settings, Sliding, add, merge_cells, price, row_curvature

_FIT_STEPS = 500  # proximal gradient steps of a fit
_SAME = 1e-9  # relative growth of the objective up to which merged neurons are taken
_DROPPED = 1e-9  # relative size below which a neuron is dropped
_BUCKET = 32  # smallest number of slots of a finish; larger ones have half as many again, or twice as many
_PAYING = 8  # slots for new neurons that a bucket must have
_FRESH, _FOUND = 512, 32  # starts of the search that follows where nothing pays, and neurons that it keeps
_FINISH_TOL = 1e-7  # relative violation of a dual constraint in float64


def cell_round(problem: Problem, state: Sliding, key: PRNGKeyArray, settings: Settings, tol: Array) -> Sliding:
    """One round. The objective does not grow by more than ``1e-9`` of it."""
    pool = add(state.pool, state.candidates, state.candidates.prices > problem.beta * (1 + tol))

    def fit_and_move(turn, pool):  # a loop, so that fits are compiled once
        pool = fit_pool(problem, pool, _FIT_STEPS)
        return jax.lax.cond(turn == 0, lambda q: _better(problem, moved_in_cells(problem, q), q), lambda q: q, pool)

    pool = merged(problem, jax.lax.fori_loop(0, 2, fit_and_move, pool))
    return price(problem, pool, state.scouts, key, settings, row_curvature(problem))


@functools.partial(jax.jit, static_argnames="settings")
def _round_and_residual(
    problem: Problem, state: Sliding, key: PRNGKeyArray, count: Array, settings: Settings, tol: Array
) -> tuple[Sliding, Array]:
    """A round, and the lifted residual of its network."""
    state = cell_round(problem, state, jax.random.fold_in(key, count), settings, tol)
    return state, problem.readout.lift(dual_residual(problem, state.pool))


@jax.jit
def many_ascents(rows: Float[Array, "N p"], R: Float[Array, "N q"], key: PRNGKeyArray) -> Priced:
    """The best neurons of many ascents from fresh directions. One program, for the top of a path and for finishes."""
    return price_multistart(rows, R, pricing_starts(key, rows, R, _FRESH), num=_FOUND)


def rows_on_host(problem: Problem) -> Any:
    """The feature rows, by numpy."""
    X: Any = np.asarray(problem.X)
    return problem.features.matrix(X)


def searched(problem: Problem, state: Sliding, R: Float[Array, "N q"], key: PRNGKeyArray) -> Sliding:
    """The state with the candidates of many fresh ascents, where those are better than its own. Runs on the host."""
    found = jax.device_get(many_ascents(rows_on_host(problem), R, key))
    directions: Any
    prices: Any
    directions, prices = (np.asarray(a) for a in state.candidates)
    if found.values[0] <= prices[0]:
        return state
    num = min(len(prices), len(found.values))
    directions, prices = np.zeros_like(directions), np.full_like(prices, -1.0)
    directions[:num], prices[:num] = found.directions[:num], found.values[:num]
    return state._replace(candidates=Candidates(directions, prices))


def moved_in_cells(problem: Problem, pool: Pool) -> Pool:
    """The pool after the optimum of the cone program over the cells of its neurons."""
    size, towards = norm(pool.weights), unit_rows(pool.weights)
    x = pool.directions * size[:, None]
    weights = solve_in_cells(problem, x, towards, pool.bias, has_output_bias(problem))
    size = norm(weights.x)
    size = jnp.where(size > _DROPPED * jnp.max(size), size, 0.0)
    directions = jnp.where((size > 0)[:, None], unit_rows(weights.x), 0.0)
    return Pool(directions, towards * size[:, None], weights.b)


def merged(problem: Problem, pool: Pool) -> Pool:
    """The pool with its neurons of one cell joined, unless that is worse."""
    joined = merge_cells(problem, pool)
    takes = pool_objective(problem, joined) <= pool_objective(problem, pool) * (1 + _SAME)
    return jax.tree.map(lambda new, old: jnp.where(takes, new, old), joined, pool)


def _better(problem: Problem, new: Pool, old: Pool) -> Pool:
    wins = pool_objective(problem, new) < pool_objective(problem, old)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), new, old)


def finish(
    problem: Problem, state: Sliding, key: PRNGKeyArray, settings: Settings, tol: float, limit: int
) -> tuple[Sliding, int]:
    """Rounds until no candidate's price exceeds beta by more than ``tol``, at least one and at most ``limit``.

    Args:
      problem: scaled, in float64, at its beta.
      state: pool and candidates to start from.
      key: for the starts of pricing.
      settings: sizes of a round.
      tol: relative violation of a dual constraint from which a neuron is added.
      limit: largest number of rounds; 0 leaves the state as it is.

    Returns:
      The state in numpy arrays, and the number of rounds.
    """
    highest, count = float(problem.beta) * (1 + tol), 0
    allowed = np.asarray(tol, problem.dtype)
    while count < limit and (count == 0 or state.candidates.prices[0] > highest):
        state, R = _round_and_residual(problem, state, key, np.int32(count), settings, allowed)
        state = jax.device_get(state)
        if state.candidates.prices[0] <= highest:
            state = searched(problem, state, R, jax.random.fold_in(key, count))
        count += 1
    return state, count


def finish_on_host(
    problem: Problem,
    betas: Any,
    path: NeuronPath,
    key: PRNGKeyArray,
    settings: Settings,
    limit: int,
    chosen: Collection[int] | None = None,
) -> NeuronPath:
    """Finish the networks of a path in float64, each in the smallest bucket of slots that holds it.

    Args:
      problem: scaled, in float64; its own beta is not used.
      betas: (k,) in its units.
      path: numpy arrays in float64.
      key: for pricing.
      settings: sizes of a round.
      limit: largest number of rounds for each beta.
      chosen: indices of the networks to finish; None for all.
    """
    parts = []
    betas = np.asarray(betas)
    for k, here in enumerate(list_of_keys(key, len(betas))):
        state, rounds = state_at(path, k), path.rounds[k]
        if chosen is None or k in chosen:
            state = in_bucket(state, betas[k], settings)
            state, count = finish(problem.replace(beta=betas[k]), state, here, settings, _FINISH_TOL, limit)
            rounds = rounds + count
        parts.append((state, rounds))
    capacity = max(len(state.pool.weights) for state, _ in parts)
    grown = [path_of(grow(state, capacity, settings), rounds) for state, rounds in parts]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *grown)


def in_bucket(state: Sliding, beta: Any, settings: Settings) -> Sliding:
    """The state with 32, 64, 96, 128, 192, ... slots, the fewest that hold its neurons and some new ones. Host only."""
    prices = np.asarray(state.candidates.prices)
    paying = int(np.sum((prices > float(beta)) | (prices < 0)))  # below 0 they are unknown
    used = int(np.any(np.asarray(state.pool.weights) != 0, axis=1).sum())
    wanted, power = used + min(paying, _PAYING), _BUCKET
    while 2 * power < wanted:
        power *= 2
    between = power * 3 // 2 if power > _BUCKET else 2 * power
    capacity = next(each for each in (power, between, 2 * power) if each >= wanted)
    num = max(settings.starts, capacity)
    scouts: Any = np.zeros((num, state.scouts.shape[1]), np.asarray(state.scouts).dtype)
    kept = np.asarray(state.scouts)[-num:]
    scouts[: len(kept)] = kept
    return grow(Sliding(resize(state.pool, capacity), state.candidates, scouts), capacity, settings)


def thorough(settings: Settings) -> Settings:
    """The sizes of the last rounds: their ascents reach a maximum from fresh directions."""
    starts = settings.starts + settings.new_neurons
    return settings._replace(moves=0, starts=starts, ascent_rounds=10, ascent_steps=32)
