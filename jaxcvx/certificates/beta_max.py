"""beta_max: the smallest weight decay whose solution is zero."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import (
    all_networks_dual_norm,
    cone_dual_norm,
    feasible_residual,
    gated_dual_norm,
    skip_dual_norm,
)
from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.pricing.oracles import choose_pricer, sweep_pricer, sweeps
from jaxcvx.problems.training import Problem


@with_full_precision
def beta_max(problem: Problem, program: str | None = None) -> Float[Array, ""]:
    """Smallest beta at which the zero solution is optimal.

    Args:
      problem: its own beta is not used.
      program: "gated" (default where the problem has arrangements): ``max_i ||Z^T D_i R_0||_F`` with R_0 the
        dual residual at predictions 0 (Y itself for the squared loss). "network" (default without
        arrangements): of the training problem, ``max_u ||R_0^T (Z u)_+||`` over ||u|| = 1. For one output it
        is exact over the problem's arrangements, hence exact if they are complete, and a lower estimate if
        they are sampled; for several outputs too (by the cells' faces, outside jit, in low rank). Without
        arrangements it is an upper bound: the solution is zero from there on, and possibly somewhat before.

    Raises:
      InvalidInputError: unknown program; "gated" without arrangements.
      InvalidTypeError: "network" with arrangements and several outputs inside jit.
      TooManyArrangements: the same, where the cells have too many faces.
    """
    if not isinstance(problem, Problem):
        raise wrong_type("problem", problem, "one from jaxcvx.make_problem")
    if program is None:
        program = "network" if problem.arrangements is None else "gated"
    if program not in ("gated", "network"):
        raise invalid("program", repr(program), "'gated' or 'network'")
    zero = jnp.zeros_like(problem.Y)
    R = -problem.loss.grad(zero, problem.Y)
    if problem.features.free_bias and not problem.loss.is_quadratic:
        raise invalid("problem", f"FreeBias() with loss {problem.loss.name!r}", "the squared loss with FreeBias()")
    R = feasible_residual(problem, R)  # of the best constant
    if problem.features.free_bias and sweeps(problem):
        return sweep_pricer(problem)(problem, R, None, None, 1).values[0]
    if program == "gated":
        if problem.arrangements is None:
            raise invalid("program", "'gated'", "a problem with arrangements, which define the gated program")
        return gated_dual_norm(problem.operator, R)
    if problem.arrangements is None:
        return all_networks_dual_norm(problem, R)
    if problem.num_columns > 1:
        if is_traced(jnp.zeros(()), problem.X, R):
            raise InvalidTypeError(
                "program: got 'network' for several outputs inside jit, expected 'gated': exact pricing of "
                "vector-valued neurons runs on the host."
            )
        neurons = choose_pricer(problem, "exact", 1)(problem, R, None, None, 1).values[0]
        return jnp.maximum(neurons, skip_dual_norm(problem.operator, R))
    return cone_dual_norm(problem.operator, R)
