"""Regularisation paths: solve one problem for many betas. Each solve starts from the solution of the previous beta."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Solution

_EARLIER = 3  # number of previous solutions kept for extrapolation


@with_full_precision
def regularization_path(problem: Problem, betas: Any, solver: Solver, *, key: Any = None) -> Solution:
    """Solve for every beta in turn. Each solve starts from the params of the previous one.

    Put the largest beta first: its solution is the sparsest and takes the least time. If the betas have equal ratios,
    ProximalGradient starts from an extrapolation of the previous solutions and takes Newton steps at once. The whole
    path is one compiled program (a scan). It works under jit and vmap.

    Args:
      problem: the problem; its own beta is not used.
      betas: (k,) non-negative numbers.
      solver: any solver that runs under jit.
      key: as in ``solve``.

    Returns:
      A Solution whose arrays have a leading axis of length k.

    Raises:
      InvalidInputError: betas are not a non-empty vector of finite numbers >= 0.
      InvalidTypeError: an argument has a wrong type, or the solver runs on the host.

    Example:
      >>> import jaxcvx
      >>> X = [[0.0], [1.0], [2.0]]
      >>> problem = jaxcvx.make_problem(X, [1.0, 0.0, 1.0], 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> path = jaxcvx.regularization_path(problem, [1.0, 0.1], jaxcvx.ProximalGradient())
      >>> path.upper_bound.shape, bool(path.upper_bound[0] > path.upper_bound[1])
      ((2,), True)
    """
    if not isinstance(problem, Problem):
        raise wrong_type("problem", problem, "one from jaxcvx.make_problem")
    if not isinstance(solver, Solver):
        raise wrong_type("solver", solver, "a solver that runs under jit")
    if not isinstance(betas, jax.core.Tracer):
        try:
            host = np.asarray(betas)
            host = host.astype(float) if host.dtype.kind in "fiub" else np.full(2, np.nan)
        except (TypeError, ValueError) as err:
            raise wrong_type("betas", betas, "a vector of numbers") from err
        if host.ndim != 1 or not host.size or not np.isfinite(host).all() or (host < 0).any():
            raise invalid("betas", repr(betas), "a non-empty vector of finite numbers >= 0")
    betas = jnp.asarray(betas, problem.X.dtype)
    return _path(problem, betas, solver, solver.initial_params(problem, key), key)


@functools.partial(jax.jit, static_argnames="solver")
def _path(problem: Problem, betas: Any, solver: Solver, params: Any, key: Any) -> Solution:
    def solve_next(earlier, beta):
        current = problem.replace(beta=beta)
        solution = solve(current, solver.warm(), init=solver.predict(current, earlier), key=key)
        return (solution.params, *earlier[:-1]), solution

    return jax.lax.scan(solve_next, (params,) * _EARLIER, betas)[1]
