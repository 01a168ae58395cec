"""Regularisation paths: one program over many betas, each warm-started from the one before."""

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

_EARLIER = 3  # solutions kept to extrapolate from


@with_full_precision
def regularization_path(problem: Problem, betas: Any, solver: Solver, *, key: Any = None) -> Solution:
    """Solve for every beta in turn, each from the params of the one before.

    Start with the largest beta: its solution is the sparsest and quickest. With betas in equal ratios ProximalGradient
    starts from an extrapolation of the solutions before, and takes Newton steps at once. The whole path is one
    compiled program (a scan), so it works under jit and vmap.

    Args:
      problem: its own beta is not used.
      betas: (k,) non-negative numbers.
      solver: any solver.
      key: as in ``solve``.

    Returns:
      A Solution whose arrays carry a leading axis of length k.

    Raises:
      InvalidInputError: betas are not a non-empty vector of finite numbers >= 0.
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
    def one(earlier, beta):
        here = problem.replace(beta=beta)
        solution = solve(here, solver.warm(), init=solver.predict(here, earlier), key=key)
        return (solution.params, *earlier[:-1]), solution

    return jax.lax.scan(one, (params,) * _EARLIER, betas)[1]
