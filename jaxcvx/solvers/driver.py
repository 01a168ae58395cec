"""solve: run a solver on a problem and report what can be proved of the result."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.arrangements.cells import is_traced
from jaxcvx.certificates.certificate import double_precision, make_certificate, to_double
from jaxcvx.diff.implicit import differentiable_objective, differentiable_params, refuse_derivatives
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.keys import check_key
from jaxcvx.networks.network import network_objective, prune
from jaxcvx.operators.precision import with_full_precision
from jaxcvx.problems.relu import Problem
from jaxcvx.problems.smooth import SmoothProblem, all_finite
from jaxcvx.solvers.base import (
    AnySolver,
    Callback,
    History,
    HostSolver,
    Outcome,
    Parts,
    Run,
    Solution,
    Solver,
    Status,
    StepInfo,
    keep_best,
    new_history,
    next_status,
    record,
    relative_gap,
    run,
    run_block,
    start_as_best,
)
from jaxcvx.solvers.callbacks import Hook, as_callbacks
from jaxcvx.solvers.host import usable


@with_full_precision
def solve(
    problem: Problem,
    solver: AnySolver,
    *,
    init: Any = None,
    key: Any = None,
    callback: Callback | Sequence[Callback] | None = None,
) -> Solution:
    """Solve a problem and certify the result.

    Outside jit the numbers in the solution are evaluated in float64 on the host from the returned
    weights, and zero neurons are pruned from the network. Under jit and vmap (and where the data are spread over
    several processes) everything has fixed shapes, so the network keeps its zero neurons, and the numbers are in the
    problem's precision with bounds rounded down.

    Under grad and jvp, ``params`` and ``objective`` of a ProximalGradient solution (and of a ConeADMM
    solution with a smooth loss) carry derivatives with respect to X, Y and beta, by implicit differentiation at the
    solution: see :mod:`jaxcvx.diff.implicit`. Cells, ``init`` and all other fields (the rounded network and the
    bounds) count as constants there. A derivative's error is about ``sqrt(tol)``, so ask for tol=1e-12 in
    float64. Other solvers raise under grad.

    Args:
      problem: from :func:`jaxcvx.make_problem`, or a SmoothProblem such as ``MatrixCompletion``.
      solver: a solver object such as ``ProximalGradient(tol=1e-6)``.
      init: the solver's own params to start from (``solution.params`` of an earlier solve), or a Network
        where the solver can use one.
      key: jax random key, for solvers that draw random numbers.
      callback: called with a StepInfo after each block of steps; a true return value stops the solve. Or a list of
        these; ``Progress()`` and ``Checkpoint(path)`` are two. Not available under jit.

    Returns:
      A Solution. ``solution.status`` says how it ended; failures inside jit are a status, not an exception.

    Raises:
      InvalidInputError, InvalidTypeError: the problem does not fit the solver, init has a wrong shape, or the
        solver has no derivatives and one is asked for.
    """
    if not isinstance(problem, Problem | SmoothProblem):
        raise InvalidTypeError(
            f"problem: got {type(problem).__name__}, expected one from jaxcvx.make_problem, or a SmoothProblem."
        )
    if not isinstance(solver, AnySolver):
        raise InvalidTypeError(f"solver: got {type(solver).__name__}, expected a solver object.")
    if not isinstance(problem, solver.problem_kinds):
        kinds = " or ".join(kind.__name__ for kind in solver.problem_kinds)
        raise InvalidTypeError(
            f"problem: got {type(problem).__name__}, expected {kinds} for {type(solver).__name__}."
        )
    for name in ("tol", "max_steps", "check_every"):
        value = getattr(solver, name)
        if not value >= (0 if name == "tol" else 1):
            raise invalid(name, value, "a positive number" if name != "tol" else "a number >= 0")
    if isinstance(problem, Problem):
        _check_structure(problem, solver)
    if key is not None:
        check_key(key)
    solver.validate(problem)
    if callback is None:
        if any(not leaf.is_fully_addressable for leaf in jax.tree.leaves(problem) if _is_concrete(leaf)):
            return _solve_everywhere(problem, solver, init, key)
        return _solve(problem, solver, init, key, None)
    callbacks = as_callbacks(callback)
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, init, key))):
        raise invalid("callback", "a callback under jit or vmap", "none there: it needs concrete numbers")
    hooks, solution = [each for each in callbacks if isinstance(each, Hook)], None
    try:
        for hook in hooks:
            saved = hook.begin(problem, solver)
            init = init if saved is None else saved
        solution = _solve(problem, solver, init, key, lambda info: any([each(info) for each in callbacks]))
    finally:
        for hook in hooks:
            hook.end(solution)
    return solution


def _is_concrete(leaf: Any) -> bool:
    """Whether a leaf is an array of jax that holds numbers."""
    return isinstance(leaf, jax.Array) and not is_traced(leaf)


@functools.partial(jax.jit, static_argnames="solver")
def _solve_everywhere(problem: Problem, solver: AnySolver, init: Any, key: Any) -> Solution:
    """``solve`` on data of several processes: no process can report on the whole but under jit."""
    return solve(problem, solver, init=init, key=key)


def _solve(problem: Problem, solver: AnySolver, init: Any, key: Any, callback: Callback | None) -> Solution:
    if isinstance(solver, HostSolver):
        if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, init, key))):
            raise InvalidTypeError(
                f"problem: got traced arrays, expected concrete ones: {type(solver).__name__} runs on the host, "
                "outside jit, vmap and grad."
            )
        if not bool(problem.is_valid()):
            raise invalid("problem", "NaN, inf or a negative beta", "finite data and beta >= 0")
        return solver.solve_on_host(problem, init, key, callback)
    assert isinstance(solver, Solver)
    problem = solver.prepare(problem)
    params = starting_params(problem, solver, init, key)
    # Inside jit even operations on concrete numbers are traced, which the fresh array tells.
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, params, key))):
        # What is concrete here, such as a problem that is closed over, would be traced in there.
        return dataclasses.replace(_solve_traced(problem, solver, params, key), scope=solver.scope(problem))
    if callback is None:
        done = _run_jitted(problem, solver, params, key)
    else:
        done = _run_with_callback(problem, solver, params, key, callback)
    return _summarise_on_host(problem, solver, done)


def _check_structure(problem: Problem, solver: AnySolver) -> None:
    """Cells where they are needed, no free biases where they are not known."""
    if solver.needs_arrangements and problem.arrangements is None:
        raise invalid(
            "problem.arrangements",
            "None",
            f"cells for {type(solver).__name__}: make_problem(..., arrangements=jaxcvx.enumerate_arrangements(X)) "
            "or sample_arrangements(key, X, num)",
        )
    if problem.features.free_bias and not solver.takes_free_bias:
        raise invalid(
            "features",
            "FreeBias()",
            f"a penalised bias, Dense(bias=True), or none for {type(solver).__name__}",
        )


def starting_params(problem: Problem, solver: Solver, init: Any, key: Any) -> Any:
    """The solver's own start, or the caller's ``init``, checked."""
    if init is None:
        return solver.initial_params(problem, key)
    init = solver.adopt(problem, init)
    like = jax.eval_shape(lambda: solver.initial_params(problem, jax.random.key(0)))
    if not all(is_traced(leaf) or np.asarray(leaf).dtype.kind in "iufb" for leaf in jax.tree.leaves(init)):
        raise InvalidTypeError(f"init: got {type(init).__name__}, expected arrays of numbers.")
    got, expected = (jax.tree.map(jnp.shape, tree) for tree in (init, like))
    if got != expected:
        raise invalid("init", f"shapes {got}", f"shapes {expected}")
    for leaf in jax.tree.leaves(init):
        if not is_traced(leaf) and not np.isfinite(leaf).all():
            raise invalid("init", np.asarray(leaf)[~np.isfinite(leaf)].flat[0], "finite numbers")
    return jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), init)


@functools.partial(jax.jit, static_argnames="solver")
def _solve_traced(problem: Problem, solver: Solver, params: Any, key: Any) -> Solution:
    """Solve on constants, then attach derivatives to what has them (see :mod:`jaxcvx.diff.implicit`)."""
    constant = jax.lax.stop_gradient(problem)
    done = run(constant, solver, jax.lax.stop_gradient(params), key)
    solution = _summarise(constant, solver, done)
    optimality = solver.optimality(constant, done.outcome.params)
    if optimality is None:
        return refuse_derivatives((problem, params), solution, type(solver).__name__)
    found = differentiable_params(optimality, problem, solution.params)
    value = differentiable_objective(optimality, problem, found, solution.objective)
    return dataclasses.replace(solution, params=found, objective=value)


@functools.partial(jax.jit, static_argnames="solver")
def _run_jitted(problem: Problem, solver: Solver, params: Any, key: Any) -> Run:
    return run(problem, solver, params, key)


_init = jax.jit(lambda problem, solver, key, params: solver.init(problem, key, params), static_argnums=1)
_run_block = jax.jit(run_block, static_argnames="solver")
_finish = jax.jit(lambda problem, solver, state: solver.finish(problem, state), static_argnums=1)


def _run_with_callback(problem: Problem, solver: Solver, params: Any, key: Any, callback: Callback) -> Run:
    """The same loop as ``run``, on the host."""
    phases = solver.run_phases(problem)
    history = new_history(problem, phases)
    status = jnp.where(problem.is_valid(), Status.RUNNING, Status.INVALID_INPUT)
    total, last, best = jnp.asarray(0, jnp.int32), None, None
    for phase in phases:
        status = next_status(status, last, solver)
        state, fresh = _init(problem, phase, key, params), True
        while int(status) == Status.RUNNING:
            state, status = _run_block(problem, phase, state, status, fresh)
            if fresh and best is None and solver.keeps_better_start:
                best = start_as_best(state.objective, params)
            history, fresh = record(history, state, total), False
            objective, bound, residual = map(float, (state.objective, state.bound, state.residual))
            step = int(total + state.step)
            name = type(phase).__name__
            if callback(StepInfo(name, step, phase.max_steps, objective, bound, residual, state.params)):
                status = jnp.where(status == Status.RUNNING, Status.STOPPED, status)
        if last is None or int(state.step) > 0:
            best = keep_best(best, state, _finish(problem, phase, state))
        total, last = total + state.step, phase
        assert best is not None
        params = best.params
    assert best is not None
    return Run(Outcome(best.params, best.dual), status, total, history)


class _Numbers(NamedTuple):
    objective: Any
    program_gap: Any
    upper_bound: Any
    lower_bound: Any
    gap: Any


def _numbers(problem: Problem, parts: Parts) -> _Numbers:
    upper = network_objective(parts.network, problem) if isinstance(problem, Problem) else parts.objective
    upper = jnp.where(jnp.isnan(upper), jnp.inf, upper)  # of invalid data: nothing is claimed
    lower = jnp.minimum(parts.lower_bound, upper)
    bound = jnp.minimum(parts.program_bound, parts.objective)
    return _Numbers(
        parts.objective, relative_gap(parts.objective, bound), upper, lower, relative_gap(upper, lower)
    )


def _summarise(problem: Problem, solver: Solver, done: Run) -> Solution:
    parts = solver.evaluate(problem, done.outcome)
    finite = all_finite(parts.network)
    parts = parts._replace(network=jax.tree.map(lambda a: jnp.where(finite, a, 0), parts.network))
    return Solution(
        params=done.outcome.params,
        network=parts.network,
        heuristic_bound=jnp.full((), -jnp.inf, problem.dtype),
        status=jnp.where(finite | (done.status == Status.INVALID_INPUT), done.status, Status.DIVERGED),
        num_steps=done.num_steps,
        history=done.history,
        scope=solver.scope(problem),
        dual=done.outcome.dual if isinstance(problem, SmoothProblem) else None,
        **_numbers(problem, parts)._asdict(),
    )


@functools.partial(jax.jit, static_argnames=("solver", "room"))
def _evaluate_jitted(
    problem: Problem, solver: Solver, outcome: Outcome, room: int | None
) -> tuple[Parts, _Numbers]:
    parts = solver.evaluate(problem, outcome, **({} if room is None else {"room": room}))
    return parts, _numbers(problem, parts)


def _summarise_on_host(problem: Problem, solver: Solver, done: Run) -> Solution:
    dtype, room = problem.dtype, solver.room(problem, done.outcome)
    with double_precision():
        exact = to_double(problem)
        parts, numbers = jax.device_get(_evaluate_jitted(exact, solver, to_double(done.outcome), room))
        network, upper = jax.tree.map(lambda a: a.astype(dtype), parts.network), numbers.upper_bound
        status = np.int32(done.status)
        if isinstance(problem, Problem):
            # The rounded, pruned weights are what the caller gets, so they are what is reported.
            network, finite = usable(problem, prune(network))
            status = status if finite or status == Status.INVALID_INPUT else np.int32(Status.DIVERGED)
            upper = np.float64(network_objective(to_double(network), exact))
    network = jax.tree.map(jnp.asarray, network)
    certificate = make_certificate(upper, numbers.lower_bound, solver.scope(problem))
    numbers = numbers._replace(
        upper_bound=certificate.upper, lower_bound=certificate.lower, gap=certificate.gap
    )
    history = jax.device_get(done.history)
    used = int(history.count)
    return Solution(
        params=done.outcome.params,
        network=network,
        heuristic_bound=np.float64(-np.inf),
        status=status,
        num_steps=np.int32(done.num_steps),
        history=History(history.step[:used], history.objective[:used], history.bound[:used], history.count),
        scope=solver.scope(problem),
        dual=done.outcome.dual if isinstance(problem, SmoothProblem) else None,
        **{name: np.float64(value) for name, value in numbers._asdict().items()},
    )
