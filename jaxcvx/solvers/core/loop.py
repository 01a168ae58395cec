"""The loop that runs every compiled solver: blocks of steps, a check after each block, phases one after the other.

Between two phases stands a :class:`Between`. Its rules (when a phase is skipped, which result is kept) are the
functions ``phase_start``, ``after_first_check`` and ``phase_end``. ``run`` here, ``run_with_callback`` (on the host)
and the snapshots of :mod:`jaxcvx.solvers.core.snapshot` all use them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxcvx.numerics.trees import all_finite
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import History, Outcome, Status


def _where_tree(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def run_block(problem: Problem, solver: Solver, state: Any, status: Array, fresh: Array) -> tuple[Any, Array]:
    """One block of steps (none if ``fresh``) and a check. If numbers overflow, the last finite state is kept."""
    count = jnp.where(fresh, 0, solver.check_every)
    after = jax.lax.fori_loop(0, count, lambda _, s: solver.step(problem, s), state)
    after = solver.check(problem, after)
    finite = all_finite(after.params) & ~jnp.isnan(after.residual)
    status = jnp.where(finite, status_at(problem, solver, after, status), Status.DIVERGED)
    return _where_tree(finite, after, state), status


def status_at(problem: Problem, solver: Solver, state: Any, status: Array) -> Array:
    """Status after a check that saw ``state``, by the solver's limits."""
    tol = max(solver.tol, 256 * float(jnp.finfo(problem.dtype).eps))
    running = status == Status.RUNNING
    ended = (state.step >= solver.max_steps) | solver.gives_up(problem, state)
    status = jnp.where(running & ended, Status.MAX_STEPS, status)
    return jnp.where(running & (state.residual <= tol), Status.CONVERGED, status)


def record(history: History, state: Any, offset: Array) -> History:
    """Append a check's numbers to the history. Once it is full, the last entry is overwritten."""
    at = jnp.minimum(history.count, history.step.shape[0] - 1)
    return History(
        history.step.at[at].set((offset + state.step).astype(jnp.int32)),
        history.objective.at[at].set(state.objective),
        history.bound.at[at].set(state.bound),
        at + 1,
    )


def new_history(problem: Problem, phases: tuple[Solver, ...], limit: int = 4096) -> History:
    """An empty history with an entry for every possible check, at most ``limit`` of them."""
    size = min(limit, sum(-(-phase.max_steps // phase.check_every) + 1 for phase in phases))
    zeros = jnp.zeros(size, problem.dtype)
    return History(jnp.zeros(size, jnp.int32), zeros, zeros, jnp.asarray(0, jnp.int32))


class Best(NamedTuple):
    """The best result of the phases so far: params by objective, dual by bound."""

    objective: Array
    bound: Array
    params: Any
    dual: Any


class Between(NamedTuple):
    """The variables of the loop between two phases, a pytree.

    Attributes:
      status: see ``Status``.
      total: steps of all phases that have ended.
      best: of the phases that have ended; None before the first.
      history: one entry per check.
      params: the start of the next phase.
    """

    status: Array
    total: Array
    best: Best | None
    history: History
    params: Any


class Run(NamedTuple):
    """The result of all phases, before it is evaluated."""

    outcome: Outcome
    status: Array
    num_steps: Array
    history: History


def before_first_phase(problem: Problem, solver: Solver, params: Any) -> Between:
    """The loop's variables at the start of a solve."""
    status = jnp.where(problem.is_valid(), Status.RUNNING, Status.INVALID_INPUT).astype(jnp.int32)
    history = new_history(problem, solver.run_phases(problem))
    return Between(status, jnp.asarray(0, jnp.int32), None, history, params)


def phase_start(between: Between, solver: Solver, last: Solver | None) -> Between:
    """Set the status for the next phase: running, unless the solve has failed or has met its tolerance.

    Args:
      between: the loop's variables.
      solver: the solver that the caller gave.
      last: the phase that has just ended; None before the first.
    """
    if last is None:
        return between
    status = between.status
    done = (status == Status.CONVERGED) if last.tol <= solver.tol else jnp.zeros((), bool)
    failed = (status == Status.DIVERGED) | (status == Status.INVALID_INPUT) | (status == Status.STOPPED)
    return between._replace(status=jnp.where(failed | done, status, Status.RUNNING))


def after_first_check(between: Between, solver: Solver, objective: Array, params: Any) -> Between:
    """Remember the start of the solve as the best so far, where the solver's params are feasible at every check."""
    if between.best is not None or not solver.keeps_better_start:
        return between
    return between._replace(best=Best(objective, jnp.full_like(objective, -jnp.inf), params, None))


def phase_end(between: Between, state: Any, status: Array, outcome: Outcome) -> Between:
    """Merge a phase's result into the best so far. A phase that ends worse than it started changes nothing."""
    best = _keep_best(between.best, state, outcome)
    total = (between.total + state.step).astype(jnp.int32)
    return between._replace(status=status, total=total, best=best, params=best.params)


def as_run(between: Between) -> Run:
    """The result of the phases."""
    assert between.best is not None, "there is at least one phase"
    return Run(Outcome(between.best.params, between.best.dual), between.status, between.total, between.history)


def _keep_best(best: Best | None, state: Any, outcome: Outcome) -> Best:
    if best is None:
        return Best(state.objective, state.bound, outcome.params, outcome.dual)
    ran = state.step > 0  # a phase without steps has checked nothing but its start
    objective, bound = jnp.where(ran, state.objective, jnp.inf), jnp.where(ran, state.bound, -jnp.inf)
    wins, dual = objective <= best.objective, best.dual
    if outcome.dual is not None:
        dual = outcome.dual if dual is None else _where_tree(bound >= best.bound, outcome.dual, dual)
    return Best(
        jnp.where(wins, objective, best.objective),
        jnp.maximum(best.bound, bound),
        _where_tree(wins, outcome.params, best.params),
        dual,
    )


def _init_if(wanted: Array, problem: Problem, phase: Solver, key: Any, params: Any) -> Any:
    """A phase's first state. If the phase will not run, the state is zero but for the params: ``init`` is expensive."""

    def start():
        return phase.init(problem, key, params)

    def empty():
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(start))
        return zeros._replace(params=params)

    return jax.lax.cond(wanted, start, empty)


def run(problem: Problem, solver: Solver, params: Any, key: PRNGKeyArray | None) -> Run:
    """Run all phases. The function is pure and works under jit and vmap."""
    between, last = before_first_phase(problem, solver, params), None
    for phase in solver.run_phases(problem):
        between = phase_start(between, solver, last)

        def body(carry, phase=phase, offset=between.total):
            state, status, history, fresh, at_start = carry
            state, status = run_block(problem, phase, state, status, fresh)
            at_start = _where_tree(fresh, (state.objective, state.params), at_start)
            return state, status, record(history, state, offset), jnp.zeros((), bool), at_start

        first = _init_if(between.status == Status.RUNNING, problem, phase, key, between.params)
        unseen = (jnp.full_like(first.objective, jnp.inf), between.params)
        begin = (first, between.status, between.history, jnp.ones((), bool), unseen)
        state, status, history, _, at_start = jax.lax.while_loop(lambda carry: carry[1] == Status.RUNNING, body, begin)
        between = after_first_check(between._replace(history=history), solver, *at_start)
        between, last = phase_end(between, state, status, phase.finish(problem, state)), phase
    return as_run(between)


@functools.partial(jax.jit, static_argnames="solver")
def run_jitted(problem: Problem, solver: Solver, params: Any, key: Any) -> Run:
    """``run``, compiled."""
    return run(problem, solver, params, key)
