"""Regularisation paths: solve one problem for many betas. Each solve starts from the solution of the previous beta."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.callbacks import Callback
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.protocol import AnySolver, HostSolver, Solver
from jaxcvx.solvers.core.requirements import refuse_unmet
from jaxcvx.solvers.core.solution import Solution
from jaxcvx.status import CallbackFunction

LEAST_FRACTION = 0.01  # smallest beta of an integer number of betas, over the largest
_ACCURACY = 1e-6  # of the largest price that ascents find, relative; at the first beta no neuron shall pay
_EARLIER = 3  # number of previous solutions kept for extrapolation


@with_full_precision
def regularization_path(
    problem: Problem, betas: Any, solver: AnySolver, *, key: Any = None, callback: CallbackFunction | None = None
) -> Solution:
    """Solve for every beta in turn. Each solve starts from the solution of the previous one.

    Put the largest beta first: its solution is the sparsest and takes the least time. The whole path is one compiled
    program (a scan), also under jit and vmap.

    With ``ColumnGeneration()`` the networks are those of all widths, with ``upper_bound``, ``heuristic_bound`` and
    ``num_neurons`` for each beta. Outside jit they are finished in float64. For other solvers: if the betas have equal
    ratios, ProximalGradient starts from an extrapolation of the previous solutions and takes Newton steps at once.

    Args:
      problem: the problem; its own beta is not used.
      betas: (k,) non-negative numbers; or with ``ColumnGeneration()`` an integer k: so many betas in equal ratios,
        from the beta for which the solution is zero, found by many ascents, to 0.01 of it.
      solver: ``ColumnGeneration()``, or any solver that runs under jit.
      key: as in ``solve``.
      callback: with ``ColumnGeneration()`` outside jit, a function or ``jaxcvx.Progress()``, called after each beta
        with the :class:`jaxcvx.StepInfo` of the network in float32. After a true value the path ends: it has the betas
        until then.

    Returns:
      A Solution whose arrays have a leading axis of length k. Its networks have one width and some zero neurons.
      ``solution.betas`` holds the betas.

    Raises:
      InvalidInputError: betas are not a non-empty vector of finite numbers >= 0, or the problem does not fit the
        solver.
      InvalidTypeError: an argument has a wrong type, or the solver follows no paths.

    Example:
      >>> import jaxcvx
      >>> X = [[0.0], [1.0], [2.0]]
      >>> problem = jaxcvx.make_problem(X, [1.0, 0.0, 1.0], 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> path = jaxcvx.regularization_path(problem, [1.0, 0.1], jaxcvx.ProximalGradient())
      >>> path.upper_bound.shape, bool(path.upper_bound[0] > path.upper_bound[1])
      ((2,), True)
      >>> path = jaxcvx.regularization_path(problem, 3, jaxcvx.ColumnGeneration(width=8, move_steps=10))
      >>> print(path.num_neurons[0], (path.betas[2] / path.betas[0]).round(3))
      0 0.01
    """
    if not isinstance(problem, Problem):
        raise wrong_type("problem", problem, "one from jaxcvx.make_problem")
    if not isinstance(solver, AnySolver):
        raise wrong_type("solver", solver, "a solver object")
    if key is not None:
        check_key(key)
    if isinstance(solver, HostSolver):
        refuse_unmet(problem, solver.requires - {"positive beta"}, type(solver).__name__)
        solver.validate(problem)
        if isinstance(betas, int) and not isinstance(betas, bool):
            betas = beta_grid(problem, solver, betas, key)
    betas = _checked_betas(betas, problem.dtype)
    if isinstance(solver, HostSolver) and not is_traced(betas) and "positive beta" in solver.requires:
        if not np.all(np.asarray(betas) > 0):
            raise invalid("betas", "a beta of 0", f"positive numbers for {type(solver).__name__}")
    if isinstance(solver, HostSolver):
        if callback is not None and is_traced(*jax.tree.leaves((problem, betas))):
            raise invalid("callback", "a function under jit", "None: a path is one program there")
        watching = callback if isinstance(callback, Callback) else Callback()
        watching.begin(problem, solver)
        try:
            path = solver.solve_path(problem, betas, key, callback)
        finally:
            watching.end(None)
        if path is None:
            raise wrong_type("solver", solver, "ColumnGeneration(), or a solver that runs under jit")
        return path
    assert isinstance(solver, Solver)
    if callback is not None:
        raise invalid("callback", f"a function for {type(solver).__name__}", "None: only ColumnGeneration() calls it")
    path = _path(problem, betas, solver, solver.initial_params(problem, key), key)
    return dataclasses.replace(path, betas=betas)


def beta_grid(problem: Problem, solver: HostSolver, num: int, key: Any) -> Any:
    """``num`` betas in equal ratios, from that for which the solution is zero to 0.01 of it."""
    if num < 1:
        raise invalid("betas", num, "a positive number of betas, or a vector")
    largest = solver.largest_beta(problem, key)
    if largest is None:
        raise wrong_type("solver", solver, "ColumnGeneration() for an integer number of betas")
    ratios = np.geomspace(1.0, LEAST_FRACTION, num)
    scaled = largest * (1 + _ACCURACY) * ratios
    return scaled.astype(problem.dtype) if is_traced(scaled) else np.asarray(scaled, problem.dtype)


def _checked_betas(betas: Any, dtype: Any) -> Any:
    """The betas as a vector of this type."""
    if not is_traced(betas):
        host = betas = plain_array("betas", betas)
        host = host.astype(float)
        if host.ndim != 1 or not host.size or not np.isfinite(host).all() or (host < 0).any():
            raise invalid("betas", repr(betas), "a non-empty vector of finite numbers >= 0")
    return jnp.asarray(betas, dtype) if isinstance(betas, jax.Array) else jax.device_put(np.asarray(betas, dtype))


@functools.partial(jax.jit, static_argnames="solver")
def _path(problem: Problem, betas: Any, solver: Solver, params: Any, key: Any) -> Solution:
    def solve_next(earlier, beta):
        current = problem.replace(beta=beta)
        solution = solve(current, solver.warm(), init=solver.predict(current, earlier), key=key)
        return (solution.params, *earlier[:-1]), solution

    return jax.lax.scan(solve_next, (params,) * _EARLIER, betas)[1]
