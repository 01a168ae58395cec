"""beta_max: the smallest weight decay whose solution is zero."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.certificates.centring import best_shifted, feasible_residual
from jaxcvx.certificates.dual import (
    all_networks_dual_norm,
    cone_dual_norm,
    gated_dual_norm,
    skip_dual_norm,
)
from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.numerics.precision import double_precision, to_double, with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_number
from jaxcvx.pricing.oracles import choose_pricer, sweep_pricer, sweeps
from jaxcvx.pricing.search import grow_search, start_search
from jaxcvx.problems.training import Problem


@with_full_precision
def beta_max(problem: Problem, program: str | None = None, *, max_seconds: float = 0.0) -> Float[Array, ""]:
    """Smallest beta at which the zero solution is optimal.

    It is a dual norm of R_0, the dual residual at predictions 0 (Y itself for the squared loss). With an output bias it
    is that of the residual at the best constant predictions: the mean of Y for the squared loss, the log-odds of the
    classes for the logistic and the softmax loss.

    Args:
      problem: data, loss and perhaps arrangements; its own beta is not used.
      program: the program whose solution becomes zero; None takes "gated" if the problem has arrangements, else
        "network".
        "gated": the gated program, ``max_i ||Z^T D_i R_0||_F``.
        "network": the training problem, ``max_u ||R_0^T (Z u)_+||`` over ||u|| = 1. With arrangements the maximum is
        taken exactly over neurons in these cells: it is the true value if they are complete, and a lower estimate if
        they are sampled. Several outputs need the cells' faces, so low rank and concrete arrays. Without arrangements
        it is an upper bound: the solution is zero at this beta, and may be zero at a smaller one.
      max_seconds: time for a branch and bound that tightens this upper bound, in float64 and outside jit; 0 for none.
        It ends when the bound is known to 1e-6. That takes seconds for up to about 8 columns.

    Returns:
      A scalar in the problem's precision.

    Raises:
      InvalidInputError: unknown program; "gated" without arrangements; an output bias with a loss that is not smooth.
      InvalidTypeError: "network" with arrangements and several outputs inside jit.
      TooManyArrangements: "network" with several outputs and cells that have too many faces.

    Example:
      >>> import jaxcvx
      >>> X, y = [[1.0], [2.0], [-1.0]], [1.0, 2.0, -1.0]
      >>> problem = jaxcvx.make_problem(X, y, beta=1.0, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> print(f"{jaxcvx.beta_max(problem, 'network'):.3f}")  # the best neuron is max(x, 0): 1 * 1 + 2 * 2
      5.000
    """
    if not isinstance(problem, Problem):
        raise wrong_type("problem", problem, "one from jaxcvx.make_problem")
    if program is None:
        program = "network" if problem.arrangements is None else "gated"
    check_number("max_seconds", max_seconds)
    if max_seconds and (problem.arrangements is not None or program == "gated" or problem.features.free_bias):
        raise invalid("max_seconds", max_seconds, "0 for the gated program, with arrangements or with FreeBias()")
    if max_seconds and is_traced(jnp.zeros(()), *jax.tree.leaves(problem)):
        raise InvalidTypeError(
            "max_seconds: got a positive number inside jit, expected 0: the search runs on the host."
        )
    if program not in ("gated", "network"):
        raise invalid("program", repr(program), "'gated' or 'network'")
    if problem.features.output_bias and not problem.loss.is_smooth:
        raise invalid("problem", f"an output bias with loss {problem.loss.name!r}", "a smooth loss with an output bias")
    constant = best_shifted(problem, jnp.zeros_like(problem.Y))
    R = feasible_residual(problem, -problem.loss.grad(constant, problem.targets))
    if problem.features.free_bias and sweeps(problem):
        return sweep_pricer(problem)(problem, R, None, None, 1).values[0]
    if program == "gated":
        if problem.arrangements is None:
            raise invalid("program", "'gated'", "a problem with arrangements, which define the gated program")
        return gated_dual_norm(problem.operator, R)
    if problem.arrangements is None:
        return _searched(problem, max_seconds) if max_seconds else all_networks_dual_norm(problem, R)
    if problem.num_columns > 1:
        if is_traced(jnp.zeros(()), problem.X, R):
            raise InvalidTypeError(
                "program: got 'network' for several outputs inside jit, expected 'gated': exact pricing of "
                "vector-valued neurons runs on the host."
            )
        neurons = choose_pricer(problem, "exact", 1)(problem, R, None, None, 1).values[0]
        return jnp.maximum(neurons, skip_dual_norm(problem.operator, R))
    return cone_dual_norm(problem.operator, R)


def _searched(problem: Problem, max_seconds: float) -> Float[Array, ""]:
    """The bound for all networks, after a branch and bound."""
    deadline = time.perf_counter() + max_seconds
    with double_precision():
        exact = to_double(problem)
        constant = best_shifted(exact, jnp.zeros_like(exact.Y))
        R = feasible_residual(exact, -exact.loss.grad(constant, exact.targets))
        crude = float(all_networks_dual_norm(exact, R))
        search = start_search(np.asarray(exact.rows), np.asarray(exact.readout.lift(R)), upper=crude)
        upper = grow_search(search, 0.0, deadline).upper
        if problem.features.skip:
            upper = max(upper, float(jnp.linalg.norm(exact.readout.price(exact.rows, R))) * (1 + 1e-12))
    return jnp.asarray(np.nextafter(np.asarray(upper, problem.dtype), np.asarray(np.inf, problem.dtype)))
