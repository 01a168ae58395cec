"""References made with jaxopt: the gated program by its proximal gradient, derivatives by its implicit_diff."""

from __future__ import annotations

import warnings
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxcvx.proximal.norms import shrink_groups as own_shrink_groups


def _jaxopt() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import jaxopt
    return jaxopt


def shrink_groups(W: Float[Array, "P p c"], threshold: float) -> Float[Array, "P p c"]:
    """jaxopt's group-lasso prox, one group per block: the oracle for ours (its gradient is NaN at zero blocks)."""
    prox = _jaxopt().prox.prox_group_lasso
    return jax.vmap(lambda block: prox(block, threshold))(W)


def reference_gated(problem: Any, max_steps: int = 5000, tol: float = 1e-10) -> Float[Array, "P p c"]:
    """The gated program solved by ``jaxopt.ProximalGradient`` with a fixed step: an independent reference.

    The fixed step 1/L avoids its line search, which stalls in float32.
    """
    operator = problem.operator
    L = 1.05 * operator.max_curvature(200) * problem.loss.curvature

    def smooth(W):
        return problem.loss.value(operator.forward(W), problem.Y)

    def prox(W, beta, scaling=1.0):
        return shrink_groups(W, beta * scaling)

    solver = _jaxopt().ProximalGradient(smooth, prox, stepsize=float(1 / L), maxiter=max_steps, tol=tol)
    start = jax.numpy.zeros((operator.num_blocks, operator.Z.shape[1], problem.num_outputs), problem.X.dtype)
    return solver.run(start, hyperparams_prox=problem.beta).params


def implicit_tangent(problem: Any, W: Float[Array, "P p c"], tangent: Any) -> Float[Array, "P p c"]:
    """Derivative of the gated solution W along ``tangent``, by jaxopt from the prox's fixed point: a reference.

    Args:
      problem: the problem that W solves.
      W: its solution.
      tangent: a pair of changes of (Y, beta).
    """

    def residual(flat, Y, beta):
        operator, W = problem.operator, flat.reshape(shape)
        step = W - operator.adjoint(problem.loss.grad(operator.forward(W), Y))
        return own_shrink_groups(step, beta).ravel()  # jaxopt's has NaN derivatives at zero blocks - flat

    shape, module = W.shape, _jaxopt()  # its LU takes vectors and matrices only
    return module.implicit_diff.root_jvp(
        residual, W.ravel(), (problem.Y, problem.beta), tangent, solve=module.linear_solve.solve_lu
    ).reshape(shape)
