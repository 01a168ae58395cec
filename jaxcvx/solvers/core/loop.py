"""The one loop that runs every solver: blocks of steps, a check after each, phases that hand on the best so far."""

from __future__ import annotations

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
    """One block of steps (none if ``fresh``) and a check; the last finite state is kept if numbers blow up."""
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
    """Append what a check saw; the last slot is overwritten once the trace is full."""
    at = jnp.minimum(history.count, history.step.shape[0] - 1)
    return History(
        history.step.at[at].set(offset + state.step),
        history.objective.at[at].set(state.objective),
        history.bound.at[at].set(state.bound),
        at + 1,
    )


def new_history(problem: Problem, phases: tuple[Solver, ...], limit: int = 4096) -> History:
    """An empty trace with room for every check, at most ``limit``."""
    size = min(limit, sum(-(-phase.max_steps // phase.check_every) + 1 for phase in phases))
    zeros = jnp.zeros(size, problem.dtype)
    return History(jnp.zeros(size, jnp.int32), zeros, zeros, jnp.asarray(0, jnp.int32))


class Run(NamedTuple):
    """Everything a run leaves behind."""

    outcome: Outcome
    status: Array
    num_steps: Array
    history: History


def next_status(status: Array, last: Solver | None, solver: Solver) -> Array:
    """Status at the start of a phase: running, unless the solve has failed or has met its tolerance already."""
    if last is None:
        return status
    done = (status == Status.CONVERGED) if last.tol <= solver.tol else jnp.zeros((), bool)
    failed = (status == Status.DIVERGED) | (status == Status.INVALID_INPUT) | (status == Status.STOPPED)
    return jnp.where(failed | done, status, Status.RUNNING)


class Best(NamedTuple):
    """The best that the phases so far have found: params by objective, dual by bound."""

    objective: Array
    bound: Array
    params: Any
    dual: Any


def start_as_best(objective: Array, params: Any) -> Best:
    """The params that a solve starts from, as the first check has made them feasible, and their objective."""
    return Best(objective, jnp.full_like(objective, -jnp.inf), params, None)


def keep_best(best: Best | None, state: Any, outcome: Outcome) -> Best:
    """Merge a phase's result into the best so far; a phase that went astray then costs only its time."""
    if best is None:
        return Best(state.objective, state.bound, outcome.params, outcome.dual)
    ran = state.step > 0  # else it has seen nothing but its start
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
    """A phase's first state, or zeros and the params where the phase is not going to run: a start costs products."""

    def start():
        return phase.init(problem, key, params)

    def empty():
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(start))
        return zeros._replace(params=params)

    return jax.lax.cond(wanted, start, empty)


def run(problem: Problem, solver: Solver, params: Any, key: PRNGKeyArray | None) -> Run:
    """Run all phases; pure, so it works under jit and vmap."""
    phases = solver.run_phases(problem)
    history = new_history(problem, phases)
    status = jnp.where(problem.is_valid(), Status.RUNNING, Status.INVALID_INPUT)
    total, last, best = jnp.asarray(0, jnp.int32), None, None
    for phase in phases:
        status = next_status(status, last, solver)

        def body(carry, phase=phase, offset=total):
            state, status, history, fresh, at_start = carry
            state, status = run_block(problem, phase, state, status, fresh)
            at_start = _where_tree(fresh, (state.objective, state.params), at_start)
            return state, status, record(history, state, offset), jnp.zeros((), bool), at_start

        first = _init_if(status == Status.RUNNING, problem, phase, key, params)
        begin = (first, status, history, jnp.ones((), bool), (jnp.full_like(first.objective, jnp.inf), params))
        state, status, history, _, at_start = jax.lax.while_loop(lambda carry: carry[1] == Status.RUNNING, body, begin)
        if best is None and solver.keeps_better_start:
            best = start_as_best(*at_start)
        total, last = total + state.step, phase
        best = keep_best(best, state, phase.finish(problem, state))
        params = best.params
    assert best is not None
    return Run(Outcome(best.params, best.dual), status, total, history)
