"""The semismooth Newton phase of the gated programs with squared loss, for any penalty.

The generalised Hessian of :mod:`jaxcvx.methods.ssnal` is ``I + sigma A J A^T``. Its products need the derivative J of
the penalty's prox only. For Frobenius groups it has the structure ``I + sigma (K (x) I_c + L L^T)`` with
``K = (sum_i a_i d_i d_i^T) * (Z Z^T)`` entrywise and one column of L per cell: an n x n matrix for any number of
cells, because the gates are diagonal. A factorisation of that matrix preconditions the conjugate gradients.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.methods.ssnal import LassoProgram, LassoState, lasso_start, lasso_step
from jaxcvx.numerics.conjugate_gradient import conjugate_gradients, float32_inverse
from jaxcvx.operators.cells import largest_penalty
from jaxcvx.penalties.base import Penalty
from jaxcvx.penalties.groups import FrobeniusGroups, GroupDerivative
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.program import FROBENIUS, evaluate_gated, gated_bound, gated_objective, zero_blocks


class _State(NamedTuple):
    params: Array  # (P, p, q)
    lasso: LassoState
    gram: Array | None  # (N, N) Z Z^T in float32, if the penalty's Newton system has the structure above
    step: Array
    residual: Array
    objective: Array
    bound: Array


def solve_hessian(
    problem: Problem,
    penalty: Penalty,
    gram: Float[Array, "N N"] | None,
    sigma: Array,
    V: Float[Array, "P p q"],
    g: Float[Array, "n c"],
    **accuracy: Any,
) -> Float[Array, "n c"]:
    """The solution x of ``(I + sigma A J A^T) x = g``, with J the derivative of the prox at V, by conjugate gradients.

    With ``gram`` they are preconditioned by a factorisation in float32. For several outputs it leaves out L, which
    changes each block's part of the Hessian by no more than the inverse of its a_i.

    Args:
      problem: with squared loss.
      penalty: the penalty; FrobeniusGroups if there is a ``gram``.
      gram: Z Z^T in float32, or None for no preconditioner.
      sigma: augmentation of the Lagrangian.
      V: argument of the prox.
      g: right-hand side.
      **accuracy: options of :func:`conjugate_gradients`.
    """
    operator = problem.operator
    derivative = penalty.derivative(V, sigma * problem.beta)

    def hessian(x):
        return x + sigma * operator.forward(derivative(operator.adjoint(x)))

    if gram is None:
        return conjugate_gradients(hessian, lambda x: x, g, **accuracy)
    assert isinstance(derivative, GroupDerivative)

    def rounded(x):
        return x.astype(jnp.float32)

    masks = rounded(operator.masks)
    K = operator.readout.lower_gram(((masks.T * rounded(derivative.scale[:, 0, 0])) @ masks) * gram)
    if g.shape[1] == 1:
        L = rounded(operator.each_block(derivative.line)[:, :, 0])
        K = K + L @ L.T
    return conjugate_gradients(hessian, float32_inverse(rounded(sigma) * K), g, **accuracy)


@dataclasses.dataclass(frozen=True)
class SSNAL(Solver):
    """Semismooth Newton augmented Lagrangian method for the gated program with squared loss, from any start.

    It is the last phase of :class:`ProximalGradient` and :class:`NuclearProximalGradient`. With Frobenius groups it
    needs n x n memory; with other penalties it needs none beside the state.

    Attributes:
      penalty: the program's penalty.
      growth: factor on sigma after each multiplier update.
    """

    tol: float = 1e-8
    max_steps: int = 60
    check_every: int = 1
    penalty: Penalty = FROBENIUS
    growth: float = 10.0

    def _program(self, problem: Problem, gram: Array | None) -> LassoProgram:
        accuracy = {"accuracy": 1e-4, "max_steps": 200} if gram is None else {}

        def solve(V, sigma, g):
            return solve_hessian(problem, self.penalty, gram, sigma, V, g, **accuracy)

        return LassoProgram(problem.operator.forward, problem.operator.adjoint, self.penalty.prox, solve)

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p q"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p q"]) -> _State:
        operator = problem.operator
        one = jnp.ones((), problem.X.dtype)
        structured = isinstance(self.penalty, FrobeniusGroups)
        gram = (operator.Z @ operator.Z.T).astype(jnp.float32) if structured else None
        lasso = lasso_start(
            self._program(problem, gram),
            problem.Y,
            problem.beta,
            params,
            self.penalty.group_norms(params),
            operator.max_curvature(10),
            largest_penalty(operator),
        )
        return _State(params, lasso, gram, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        largest = largest_penalty(problem.operator)
        program = self._program(problem, state.gram)
        lasso = lasso_step(program, problem.Y, problem.beta, state.lasso, self.growth, largest)
        return state._replace(params=lasso.params, lasso=lasso, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        F = problem.operator.forward(state.params)
        objective = gated_objective(problem, state.params, F, self.penalty)
        bounds = [gated_bound(problem, R, self.penalty) for R in (problem.Y - F, state.lasso.R)]
        bound = jnp.maximum(*bounds)
        return state._replace(objective=objective, bound=bound, residual=relative_gap(objective, bound))

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.lasso.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome, self.penalty)
