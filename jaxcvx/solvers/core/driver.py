"""``solve``: run a solver on a problem and report the result with its proved bounds."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.numerics.implicit import differentiable_objective, differentiable_params, refuse_derivatives
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.callback_loop import run_with_callback
from jaxcvx.solvers.core.callbacks import Callback, as_callbacks
from jaxcvx.solvers.core.loop import (
    run,
    run_jitted,
)
from jaxcvx.solvers.core.memory_estimate import refuse_if_too_large
from jaxcvx.solvers.core.protocol import AnySolver, CallbackFunction, HostSolver, Solver
from jaxcvx.solvers.core.report import summarise, summarise_on_host
from jaxcvx.solvers.core.requirements import refuse_unmet
from jaxcvx.solvers.core.snapshot import Saved, Snapshot, restore
from jaxcvx.solvers.core.solution import Solution, StepInfo


@with_full_precision
def solve(
    problem: Problem | SmoothProblem,
    solver: AnySolver,
    *,
    init: Any = None,
    key: Any = None,
    callback: CallbackFunction | Sequence[CallbackFunction] | None = None,
) -> Solution:
    """Solve a problem and certify the result.

    Outside jit the numbers in the solution are computed from the returned weights, in float64 on the host. Zero
    neurons are pruned from the network. Under jit and vmap, and for data spread over several processes, all shapes
    are fixed: the network keeps its zero neurons, and the numbers have the problem's precision, with bounds rounded
    down.

    Under grad and jvp, ``params`` and ``objective`` of a ProximalGradient solution carry derivatives with respect to
    X, Y and beta. So do those of a ConeADMM solution with a smooth loss. The derivatives come from implicit
    differentiation at the solution: see :mod:`jaxcvx.numerics.implicit`. Cells, ``init`` and all other fields (the
    rounded network and the bounds) are constants there. A derivative's error is about ``sqrt(tol)``; tol=1e-12 in
    float64 suits. Other solvers raise under grad.

    Args:
      problem: from :func:`jaxcvx.make_problem`, or a SmoothProblem such as ``MatrixCompletion``.
      solver: a solver object such as ``ProximalGradient(tol=1e-6)``.
      init: the solver's own params to start from (``solution.params`` of an earlier solve), or a Network
        where the solver can use one.
      key: jax random key, for solvers that draw random numbers.
      callback: a function that is called with a StepInfo after each block of steps, or a list of such functions.
        A true return value stops the solve. ``Progress()`` and ``Checkpoint(path)`` are two. Not available under jit.

    Returns:
      A Solution. ``solution.status`` says how it ended. Failures inside jit are a status, not an exception.

    Raises:
      InvalidInputError, InvalidTypeError: the problem does not fit the solver, init has a wrong shape, or the
        solver has no derivatives and one is asked for.

    Example:
      >>> import jaxcvx
      >>> X, Y = [[0.0], [1.0], [2.0]], [1.0, 0.0, 1.0]
      >>> cells = jaxcvx.enumerate_arrangements(X, features=jaxcvx.Dense(bias=True))
      >>> problem = jaxcvx.make_problem(X, Y, 0.01, features=jaxcvx.Dense(bias=True), arrangements=cells)
      >>> solution = jaxcvx.solve(problem, jaxcvx.ConeADMM())
      >>> solution.scope, bool(solution.gap < 1e-4)
      ('global', True)
    """
    if not isinstance(problem, Problem | SmoothProblem):
        raise wrong_type("problem", problem, "one from jaxcvx.make_problem, or a SmoothProblem")
    if not isinstance(solver, AnySolver):
        raise wrong_type("solver", solver, "a solver object")
    if not isinstance(problem, solver.problem_kinds):
        kinds = " or ".join(kind.__name__ for kind in solver.problem_kinds)
        raise wrong_type("problem", problem, f"{kinds} for {type(solver).__name__}")
    for name in ("tol", "max_steps", "check_every"):
        value = getattr(solver, name)
        if not value >= (0 if name == "tol" else 1):
            raise invalid(name, value, "a positive number" if name != "tol" else "a number >= 0")
    if isinstance(problem, Problem):
        refuse_unmet(problem, solver.requires, type(solver).__name__)
    if key is not None:
        check_key(key)
    return _solve_checked(problem, solver, init, key, callback)


def _solve_checked(
    problem: Any, solver: AnySolver, init: Any, key: Any, callback: CallbackFunction | Sequence[CallbackFunction] | None
) -> Solution:
    """``solve`` after the checks of its arguments' types."""
    solver.validate(problem)
    if callback is None:
        if any(not leaf.is_fully_addressable for leaf in jax.tree.leaves(problem) if _is_concrete(leaf)):
            return _solve_everywhere(problem, solver, init, key)
        return _solve(problem, solver, init, key, None)
    callbacks = as_callbacks(callback)
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, init, key))):
        raise invalid("callback", "a callback under jit or vmap", "none there: it needs concrete numbers")
    solution: Solution | None = None

    def end(each: Callback) -> None:
        each.end(solution)

    with contextlib.ExitStack() as stack:  # the end of every callback is called, whatever another one raises
        for each in callbacks:
            if isinstance(each, Callback):
                stack.callback(end, each)
                start = each.begin(problem, solver)
                init = init if start is None else start
        solution = _solve(problem, solver, init, key, _notify_all(callbacks))
    return solution


def _notify_all(callbacks: Sequence[CallbackFunction]) -> Callable[..., bool]:
    """Combine the callbacks into one function. Objects of class Callback also receive the snapshot."""

    def notify(info: StepInfo, snapshot: Snapshot | None = None) -> bool:
        for each in callbacks:
            if snapshot is not None and isinstance(each, Callback):
                each.keep(snapshot)
        return any([each(info) for each in callbacks])  # a list: every callback must be called

    return notify


def _is_concrete(leaf: Any) -> bool:
    """True for a jax array that holds numbers."""
    return isinstance(leaf, jax.Array) and not is_traced(leaf)


@functools.partial(jax.jit, static_argnames="solver")
def _solve_everywhere(problem: Problem, solver: AnySolver, init: Any, key: Any) -> Solution:
    """``solve`` on data of several processes. No process holds all of the data, so the report is made under jit."""
    return solve(problem, solver, init=init, key=key)


def _solve(problem: Problem, solver: AnySolver, init: Any, key: Any, callback: Callable[..., bool] | None) -> Solution:
    if isinstance(solver, HostSolver):
        if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, init, key))):
            solution = solver.solve_traced(jax.lax.stop_gradient(problem), init, key)
            return refuse_derivatives((problem, init), solution, type(solver).__name__)
        if not bool(problem.is_valid()):
            raise invalid("problem", "NaN, inf or a negative beta", "finite data and beta >= 0")
        with np.errstate(all="ignore"):  # as in jax, overflow gives inf and then a status
            return solver.solve_on_host(problem, init, key, callback)
    assert isinstance(solver, Solver)
    problem = solver.prepare(problem)
    resumed = None
    if isinstance(init, Saved):
        resumed = restore(problem, solver, init.leaves)
        init = init.params
    params = init if resumed is not None else starting_params(problem, solver, init, key)
    # Inside jit a fresh array is a tracer even if all arguments are concrete.
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, params, key))):
        # The scope is set here: inside the jitted function a closed-over problem is a tracer.
        return dataclasses.replace(_solve_traced(problem, solver, params, key), scope=solver.scope(problem))
    refuse_if_too_large(problem, solver)
    if callback is None:
        done = run_jitted(problem, solver, params, key)
    else:
        done = run_with_callback(problem, solver, params, key, callback, resumed)
    return summarise_on_host(problem, solver, done)


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
    return solver.completed(problem, jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), init), key)


@functools.partial(jax.jit, static_argnames="solver")
def _solve_traced(problem: Problem, solver: Solver, params: Any, key: Any) -> Solution:
    """Solve on constants, then attach the derivatives of params and objective (:mod:`jaxcvx.numerics.implicit`)."""
    constant = jax.lax.stop_gradient(problem)
    done = run(constant, solver, jax.lax.stop_gradient(params), key)
    solution = summarise(constant, solver, done)
    optimality = solver.optimality(constant, done.outcome.params) if solver.differentiable else None
    if optimality is None:
        return refuse_derivatives((problem, params), solution, type(solver).__name__)
    params = differentiable_params(optimality, problem, solution.params)
    objective = differentiable_objective(optimality, problem, params, solution.objective)
    return dataclasses.replace(solution, params=params, objective=objective)
