"""The memory that a solve takes at its peak, estimated before anything is allocated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import invalid
from jaxcvx.numerics.memory import available_bytes, program_bytes, refuse_beyond, shapes_of, tree_bytes
from jaxcvx.numerics.precision import double_precision, with_full_precision
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.loop import run, run_jitted
from jaxcvx.solvers.core.protocol import AnySolver, Solver
from jaxcvx.solvers.core.report import evaluate_jitted
from jaxcvx.solvers.core.requirements import refuse_unmet


@with_full_precision
def memory_estimate(problem: Problem | SmoothProblem, solver: AnySolver) -> int:
    """Bytes that ``solve(problem, solver)`` takes at its peak, data included: the compiler's count and a fifth of it.

    The fifth covers the buffers of matrix products and of allocators. Measured peaks are 0.8 to 1.5 times the
    estimate. No array is allocated, but the solver is compiled, which takes seconds. The estimate leaves out the
    compiler's own memory and that of numerical libraries (about 0.3 GiB). On an accelerator the certificate is
    computed in the host's memory; the estimate includes it.

    Args:
      problem: the argument of ``solve``.
      solver: a solver that runs as one compiled program: not ColumnGeneration, CuttingPlane or FrankWolfe.

    Raises:
      InvalidInputError: the solver runs on the host, where sizes depend on values, or cannot take the problem.

    Example:
      >>> import jaxcvx
      >>> X, Y = [[0.0], [1.0], [2.0]], [1.0, 0.0, 1.0]
      >>> problem = jaxcvx.make_problem(X, Y, 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> jaxcvx.memory_estimate(problem, jaxcvx.ProximalGradient()) > 0
      True
    """
    if not isinstance(solver, Solver):
        raise invalid("solver", type(solver).__name__, "a solver that runs as one compiled program")
    if isinstance(problem, Problem):
        refuse_unmet(problem, solver.requires, type(solver).__name__)
    return _estimate(problem, solver)


def _estimate(problem: Any, solver: Solver) -> int:
    solver.validate(problem)
    problem = solver.prepare(problem)
    data, key = shapes_of(problem), jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(lambda p, k: solver.initial_params(p, k), data, key)
    solving = program_bytes(run_jitted, data, solver, params, key)
    outcome = jax.eval_shape(lambda p, w, k: run(p, solver, w, k).outcome, data, params, key)
    kept = tree_bytes((data, outcome))
    with double_precision():
        exact, point = shapes_of(data, jnp.float64), shapes_of(outcome, jnp.float64)
        certifying = program_bytes(evaluate_jitted, exact, solver, point, None)
    return int(_MARGIN * max(solving, kept + certifying))


_MARGIN = 1.2  # measured over the compiler's count
_SMALL = 64  # a problem whose masks, as numbers, fit this often into the free memory needs no estimate


def refuse_if_too_large(problem: Problem, solver: Solver) -> None:
    """Raise NotEnoughMemory before anything is allocated."""
    least = tree_bytes(problem)
    if isinstance(problem, Problem) and problem.arrangements is not None:
        least += problem.arrangements.masks.size * problem.num_columns * problem.dtype.itemsize
    available = available_bytes()
    if available is not None and _SMALL * least > available:
        refuse_beyond(available + tree_bytes(problem), memory_estimate(problem, solver), type(solver).__name__)
