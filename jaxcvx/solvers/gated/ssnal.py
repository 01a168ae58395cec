"""GatedNewton: the semismooth Newton phase of the gated program with squared loss.

The generalised Hessian of :mod:`jaxcvx.methods.ssnal` is here ``I + sigma (K (x) I_c + L L^T)`` with
``K = (sum_i a_i d_i d_i^T) * (Z Z^T)`` entrywise and one column of L per cell: an n x n matrix however many cells
there are, because the gates are diagonal.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.methods.ssnal import LassoProgram, LassoState, lasso_start, lasso_step
from jaxcvx.numerics.conjugate_gradient import conjugate_gradients, float32_inverse
from jaxcvx.operators.cells import largest_penalty
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms, shrink_groups
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.program import evaluate_gated, gated_bound, gated_objective, zero_blocks


class _State(NamedTuple):
    params: Array  # (P, p, q)
    lasso: LassoState
    gram: Array  # (N, N) Z Z^T
    step: Array
    residual: Array
    objective: Array
    bound: Array


def _solve_hessian(
    problem: Problem, gram: Array, sigma: Array, V: Array, norms: Array, g: Float[Array, "n c"], **accuracy: Any
) -> Float[Array, "n c"]:
    """Solve the generalised Newton system at prox argument V (block norms ``norms``), roughly or as options say.

    By conjugate gradients, preconditioned with a factorisation in float32. For several outputs that leaves out L,
    which changes each block's part of the Hessian by no more than the inverse of its a_i.
    """
    operator, threshold = problem.operator, sigma * problem.beta
    safe = jnp.where(norms > threshold, norms, 1.0)
    a = jnp.where(norms > threshold, 1 - threshold / safe, 0.0)
    lines = V * jnp.where(norms > threshold, jnp.sqrt(threshold / safe) / safe, 0.0)[:, None, None]

    def hessian(x):
        E = operator.adjoint(x)
        along = jnp.sum(lines * E, axis=(1, 2))
        return x + sigma * operator.forward(a[:, None, None] * E + along[:, None, None] * lines)

    def rounded(x):
        return x.astype(jnp.float32)

    masks = rounded(operator.masks)
    K = operator.readout.lower_gram(((masks.T * rounded(a)) @ masks) * gram)
    if g.shape[1] == 1:
        L = rounded(operator.each_block(lines)[:, :, 0])
        K = K + L @ L.T
    return conjugate_gradients(hessian, float32_inverse(rounded(sigma) * K), g, **accuracy)


def _program(problem: Problem, gram: Array) -> LassoProgram:
    operator = problem.operator

    def solve(V, sigma, g):
        return _solve_hessian(problem, gram, sigma, V, group_norms(V), g)

    return LassoProgram(operator.forward, operator.adjoint, shrink_groups, solve)


@dataclasses.dataclass(frozen=True)
class GatedNewton(Solver):
    """The last phase of :class:`ProximalGradient`, from any start; needs the squared loss and n x n memory.

    Attributes:
      growth: factor on the penalty sigma after each multiplier update.
    """

    tol: float = 1e-8
    max_steps: int = 60
    check_every: int = 1
    growth: float = 10.0

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p c"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p c"]) -> _State:
        operator = problem.operator
        one = jnp.ones((), problem.X.dtype)
        gram = (operator.Z @ operator.Z.T).astype(jnp.float32)
        program = _program(problem, gram)
        lasso = lasso_start(
            program,
            problem.Y,
            problem.beta,
            params,
            group_norms(params),
            operator.max_curvature(10),
            largest_penalty(operator),
        )
        return _State(params, lasso, gram, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        largest = largest_penalty(problem.operator)
        program = _program(problem, state.gram)
        lasso = lasso_step(program, problem.Y, problem.beta, state.lasso, self.growth, largest)
        return state._replace(params=lasso.params, lasso=lasso, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        F = problem.operator.forward(state.params)
        objective = gated_objective(problem, state.params, F)
        bound = jnp.maximum(gated_bound(problem, problem.Y - F), gated_bound(problem, state.lasso.R))
        return state._replace(objective=objective, bound=bound, residual=relative_gap(objective, bound))

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.lasso.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome)
