"""solve: run a solver on a problem and report what can be proved of the result."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.implicit import differentiable_objective, differentiable_params, refuse_derivatives
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.callback_loop import run_with_callback
from jaxcvx.solvers.core.callbacks import Hook, as_callbacks
from jaxcvx.solvers.core.loop import (
    run,
    run_jitted,
)
from jaxcvx.solvers.core.memory_estimate import refuse_if_too_large
from jaxcvx.solvers.core.protocol import AnySolver, Callback, HostSolver, Solver
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
    callback: Callback | Sequence[Callback] | None = None,
) -> Solution:
    """Solve a problem and certify the result.

    Outside jit the numbers in the solution are evaluated in float64 on the host from the returned
    weights, and zero neurons are pruned from the network. Under jit and vmap (and where the data are spread over
    several processes) everything has fixed shapes, so the network keeps its zero neurons, and the numbers are in the
    problem's precision with bounds rounded down.

    Under grad and jvp, ``params`` and ``objective`` of a ProximalGradient solution (and of a ConeADMM
    solution with a smooth loss) carry derivatives with respect to X, Y and beta, by implicit differentiation at the
    solution: see :mod:`jaxcvx.numerics.implicit`. Cells, ``init`` and all other fields (the rounded network and the
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
        raise InvalidTypeError(f"problem: got {type(problem).__name__}, expected {kinds} for {type(solver).__name__}.")
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
    problem: Any, solver: AnySolver, init: Any, key: Any, callback: Callback | Sequence[Callback] | None
) -> Solution:
    """``solve`` of a problem that is of the kind that this solver takes."""
    solver.validate(problem)
    if callback is None:
        if any(not leaf.is_fully_addressable for leaf in jax.tree.leaves(problem) if _is_concrete(leaf)):
            return _solve_everywhere(problem, solver, init, key)
        return _solve(problem, solver, init, key, None)
    callbacks = as_callbacks(callback)
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, init, key))):
        raise invalid("callback", "a callback under jit or vmap", "none there: it needs concrete numbers")
    solution: Solution | None = None

    def end(hook: Hook) -> None:
        hook.end(solution)

    with contextlib.ExitStack() as stack:  # one hook's failure does not keep the others from their end
        for hook in callbacks:
            if isinstance(hook, Hook):
                stack.callback(end, hook)
                saved = hook.begin(problem, solver)
                init = init if saved is None else saved
        solution = _solve(problem, solver, init, key, _told(callbacks))
    return solution


def _told(callbacks: Sequence[Callback]) -> Callable[..., bool]:
    """One function that tells all callbacks, and the hooks among them where the solve stands."""

    def tell(info: StepInfo, snapshot: Snapshot | None = None) -> bool:
        for each in callbacks:
            if snapshot is not None and isinstance(each, Hook):
                each.keep(snapshot)
        return any([each(info) for each in callbacks])

    return tell


def _is_concrete(leaf: Any) -> bool:
    """Whether a leaf is an array of jax that holds numbers."""
    return isinstance(leaf, jax.Array) and not is_traced(leaf)


@functools.partial(jax.jit, static_argnames="solver")
def _solve_everywhere(problem: Problem, solver: AnySolver, init: Any, key: Any) -> Solution:
    """``solve`` on data of several processes: no process can report on the whole but under jit."""
    return solve(problem, solver, init=init, key=key)


def _solve(problem: Problem, solver: AnySolver, init: Any, key: Any, callback: Callable[..., bool] | None) -> Solution:
    if isinstance(solver, HostSolver):
        if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, init, key))):
            raise InvalidTypeError(
                f"problem: got traced arrays, expected concrete ones: {type(solver).__name__} runs on the host, "
                "outside jit, vmap and grad."
            )
        if not bool(problem.is_valid()):
            raise invalid("problem", "NaN, inf or a negative beta", "finite data and beta >= 0")
        with np.errstate(all="ignore"):  # as in jax: what overflows is inf, and a status in the end
            return solver.solve_on_host(problem, init, key, callback)
    assert isinstance(solver, Solver)
    problem = solver.prepare(problem)
    resumed = None
    if isinstance(init, Saved):
        resumed = restore(problem, solver, init.leaves)
        init = init.params
    params = init if resumed is not None else starting_params(problem, solver, init, key)
    # Inside jit even operations on concrete numbers are traced, which the fresh array tells.
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, params, key))):
        # What is concrete here, such as a problem that is closed over, would be traced in there.
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
    return jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), init)


@functools.partial(jax.jit, static_argnames="solver")
def _solve_traced(problem: Problem, solver: Solver, params: Any, key: Any) -> Solution:
    """Solve on constants, then attach derivatives to what has them (see :mod:`jaxcvx.numerics.implicit`)."""
    constant = jax.lax.stop_gradient(problem)
    done = run(constant, solver, jax.lax.stop_gradient(params), key)
    solution = summarise(constant, solver, done)
    optimality = solver.optimality(constant, done.outcome.params)
    if optimality is None:
        return refuse_derivatives((problem, params), solution, type(solver).__name__)
    found = differentiable_params(optimality, problem, solution.params)
    value = differentiable_objective(optimality, problem, found, solution.objective)
    return dataclasses.replace(solution, params=found, objective=value)
