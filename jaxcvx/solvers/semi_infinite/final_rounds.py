"""The last rounds of column generation, at one beta in float64 on the host: with exact pricing or with ascents.

A round fits the output weights, prices, records objective and bound, and adds neurons. With exact pricing every round
has a proved bound. With ascents the bound is an estimate. Arguments and results are arrays in float64; callers
enable it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.numerics.on_host import list_of_keys
from jaxcvx.pricing.oracles import Pricer, search
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import Status
from jaxcvx.solvers.semi_infinite.cell_rounds import finish, in_bucket
from jaxcvx.solvers.semi_infinite.pool import Pool, dual_residual, fit_weights, insert, pool_objective, resize
from jaxcvx.solvers.semi_infinite.sliding import Candidates, Settings, Sliding, neuron_prices

Report = Callable[[int, float, float, float, Pool], bool]
"""Called after each round with its number, objective, bound, gap and pool. A true return value ends the rounds."""

_WANTED = 1e-9  # relative violation of a dual constraint from which a neuron is added


class Rounds(NamedTuple):
    """The end of the rounds.

    Attributes:
      pool: the neurons.
      dual: the dual residual of the best bound.
      status: CONVERGED, MAX_STEPS or STOPPED.
      steps: rounds taken.
    """

    pool: Pool
    dual: Array
    status: Status
    steps: int


def exact_rounds(
    problem: Problem, pool: Pool, pricer: Pricer, *, tol: float, limit: int, deadline: float, num: int, report: Report
) -> Rounds:
    """Add the neurons that exact pricing finds until the proved gap is at most ``tol``.

    Args:
      problem: scaled, in float64.
      pool: neurons to start from.
      pricer: an exact pricer.
      tol: relative gap.
      limit: largest number of rounds.
      deadline: a time of ``time.perf_counter`` after which no round begins.
      num: largest number of neurons added in a round.
      report: see :data:`Report`.
    """
    best, dual = -np.inf, jnp.zeros_like(problem.Y)
    for steps in range(limit + 1):
        pool, R = fit_weights(problem, pool)
        priced = pricer(problem, R, None, None, num)
        value, bound = float(pool_objective(problem, pool)), float(scaled_bound(problem, R, priced.upper))
        if bound > best:
            best, dual = bound, R
        gap = _relative_gap(value, best)
        stop = report(steps, value, best, gap, pool)
        if gap <= tol:
            return Rounds(pool, dual, Status.CONVERGED, steps)
        if stop:
            return Rounds(pool, dual, Status.STOPPED, steps)
        if steps == limit or time.perf_counter() > deadline:
            break
        wanted = priced.values > problem.beta * (1 + _WANTED)
        if not bool(wanted.any()):
            break  # only rounding is left
        pool = insert(with_room(pool, int(wanted.sum())), priced.directions, wanted)
    return Rounds(pool, dual, Status.MAX_STEPS, steps)


def ascent_rounds(
    problem: Problem,
    state: Sliding,
    key: Any,
    settings: Settings,
    num_starts: int,
    *,
    tol: float,
    limit: int,
    deadline: float,
    report: Report,
) -> Rounds:
    """Rounds of ascents without moves until the estimated gap is at most ``tol``, or nothing is gained any more.

    Args:
      problem: scaled, in float64.
      state: pool and candidates to start from.
      key: for fresh starts.
      settings: sizes of a round.
      num_starts: fresh starts of a search where a round finds no neuron that pays.
      tol, limit, deadline, report: as for :func:`exact_rounds`.
    """
    status, steps = Status.MAX_STEPS, 0
    for steps, here in enumerate(list_of_keys(key, limit + 1)):
        round_key, far_key = list_of_keys(here, 2)
        value, bound = (float(a) for a in _measure(problem, state))
        if _relative_gap(value, bound) <= tol and steps:
            state = with_far(problem, state, far_key, num_starts)
            value, bound = (float(a) for a in _measure(problem, state))
        gap = _relative_gap(value, bound)
        stop = report(steps, value, bound, gap, state.pool)
        if stop or (gap <= tol and steps):
            status = Status.STOPPED if stop else Status.CONVERGED
            break
        if steps == limit or time.perf_counter() > deadline:
            break
        state = in_bucket(state, problem.beta, settings)
        state, _ = finish(problem, state, round_key, settings, _WANTED, 1)
    pool, dual = fit_weights(problem, state.pool)
    return Rounds(pool, dual, status, steps)


def with_far(problem: Problem, state: Sliding, key: Any, num_starts: int) -> Sliding:
    """The state with the neurons that a search from fresh starts finds, where they pay more than its candidates."""
    num = len(state.candidates.prices)
    found = search(problem, dual_residual(problem, state.pool), key, state.pool.directions, num_starts)
    directions, prices = (a[:num] for a in jax.device_get((found.directions, found.values)))
    if not prices[0] > state.candidates.prices[0]:
        return state
    return state._replace(candidates=Candidates(directions, prices))


@jax.jit
def _measure(problem: Problem, state: Sliding) -> tuple[Array, Array]:
    """Objective and estimated bound of a pool, from its own neurons and the candidates."""
    R = dual_residual(problem, state.pool)
    own, found = (neuron_prices(problem, R, u) for u in (state.pool.directions, state.candidates.directions))
    norm = jnp.maximum(jnp.maximum(jnp.max(own), jnp.max(found)), problem.beta)
    value = pool_objective(problem, state.pool)
    return value, jnp.minimum(scaled_bound(problem, R, norm), value)


def with_room(pool: Pool, wanted: int) -> Pool:
    """Double the capacity of the pool until the wanted neurons find slots."""
    used = int(np.any(np.asarray(pool.weights) != 0, axis=1).sum())
    capacity = len(pool.weights)
    while capacity < used + wanted:
        capacity *= 2
    return pool if capacity == len(pool.weights) else resize(pool, capacity)


def _relative_gap(value: float, bound: float) -> float:
    return (value - bound) / max(abs(value), np.finfo(float).tiny)
