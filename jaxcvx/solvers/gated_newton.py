"""Semismooth Newton augmented Lagrangian for the gated program with squared loss.

On the dual ``max_R <R, Y> - 1/2 ||R||^2`` subject to ``||Z^T D_i R||_F <= beta``, with W as multiplier (Li, Sun and Toh
2018 for the lasso). Each inner problem has gradient ``R - Y + B prox(W + sigma B^T R)``; its generalised
Hessian is ``I + sigma (K (x) I_c + L L^T)`` with ``K = (sum_i a_i d_i d_i^T) * (Z Z^T)`` entrywise and one column
of L per cell: an n x n matrix however many cells there are, because the gates are diagonal.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.operators.masked import CellOperator
from jaxcvx.operators.prox import group_norms, shrink_groups
from jaxcvx.problems.relu import Problem
from jaxcvx.solvers.base import Outcome, Parts, Solver, relative_gap
from jaxcvx.solvers.gated import evaluate_gated, gated_bound, gated_objective, zero_blocks

_WARM = 30.0  # first penalty, in units of (mean norm of the active blocks) / beta; measured


class _State(NamedTuple):
    params: Array  # (P, p, c) prox(multiplier + sigma B^T R), the primal candidate
    multiplier: Array
    R: Array  # (n, c)
    gram: Array  # (N, N) Z Z^T
    sigma: Array
    target: Array  # gradient norm at which the multiplier is updated
    step: Array
    residual: Array
    objective: Array
    bound: Array


def _solve_hessian(
    problem: Problem, gram: Array, sigma: Array, V: Array, norms: Array, g: Float[Array, "n c"]
) -> Float[Array, "n c"]:
    """Solve the generalised Newton system at prox argument V (block norms ``norms``)."""
    operator, threshold = problem.operator, sigma * problem.beta
    safe = jnp.where(norms > threshold, norms, 1.0)
    a = jnp.where(norms > threshold, 1 - threshold / safe, 0.0)
    b = jnp.where(norms > threshold, jnp.sqrt(threshold / safe) / safe, 0.0)
    masks = operator.masks.astype(g.dtype)
    n, c = g.shape
    K = jnp.eye(n, dtype=g.dtype) + sigma * operator.readout.lower_gram(((masks.T * a) @ masks) * gram)
    L = operator.each_block(V * b[:, None, None])
    if c == 1:
        H = K + sigma * L[:, :, 0] @ L[:, :, 0].T
        return cho_solve(cho_factor(H), g)
    factor = cho_factor(K)
    columns = cho_solve(factor, L.reshape(n, -1)).reshape(L.shape)
    small = jnp.eye(L.shape[1], dtype=g.dtype) + sigma * jnp.einsum("nqc,nrc->qr", L, columns)
    first = cho_solve(factor, g)
    inner = cho_solve(cho_factor(small), jnp.einsum("nqc,nc->q", L, first))
    return first - sigma * jnp.einsum("nqc,q->nc", columns, inner)


def largest_penalty(operator: CellOperator) -> Array:
    """Penalty beyond which the Newton system, of condition about sigma ||Z||^2, would lose its digits."""
    info = jnp.finfo(operator.Z.dtype)
    size = operator.readout.gain * jnp.sum(operator.Z**2)
    return 0.01 / info.eps / jnp.maximum(size, info.tiny)


@dataclasses.dataclass(frozen=True)
class GatedNewton(Solver):
    """The Newton phase of :class:`ProximalGradient`; needs the squared loss and n x n memory.

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
        norms = group_norms(params)
        mean = jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1)
        curvature = jnp.maximum(operator.max_curvature(10), jnp.finfo(one.dtype).tiny)
        warm = _WARM * mean / jnp.where(problem.beta > 0, problem.beta, 1.0)
        sigma = jnp.where((mean > 0) & (problem.beta > 0), warm, 100 / curvature)
        sigma = jnp.minimum(sigma, largest_penalty(operator))
        R = problem.Y - operator.forward(params)
        target = 1e-3 * jnp.linalg.norm(problem.Y)
        gram = operator.Z @ operator.Z.T
        zero = jnp.asarray(0, jnp.int32)
        return _State(params, params, R, gram, sigma, target, zero, jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        operator, Y, sigma = problem.operator, problem.Y, state.sigma
        threshold = sigma * problem.beta
        V = state.multiplier + sigma * operator.adjoint(state.R)
        g = state.R - Y + operator.forward(shrink_groups(V, threshold))
        direction = -_solve_hessian(problem, state.gram, sigma, V, group_norms(V), g)
        moved = sigma * operator.adjoint(direction)

        def potential(t):
            R = state.R + t * direction
            shrunk = jnp.maximum(group_norms(V + t * moved) - threshold, 0.0)
            return 0.5 * jnp.sum(R**2) - jnp.sum(R * Y) + jnp.sum(shrunk**2) / (2 * sigma)

        lengths = 0.5 ** jnp.arange(14, dtype=Y.dtype)
        here = potential(jnp.zeros((), Y.dtype))
        slack = 16 * jnp.finfo(Y.dtype).eps * jnp.abs(here)
        enough = jax.vmap(potential)(lengths) <= here + 1e-4 * lengths * jnp.sum(g * direction) + slack
        length = lengths[jnp.argmax(enough)] * jnp.any(enough)
        R = state.R + length * direction
        params = shrink_groups(V + length * moved, threshold)
        gradient = jnp.linalg.norm(R - Y + operator.forward(params))

        failed, solved = length == 0, gradient <= state.target
        largest = largest_penalty(operator)
        return state._replace(
            params=params,
            R=R,
            multiplier=jnp.where(solved, params, state.multiplier),
            sigma=jnp.where(
                solved, jnp.minimum(self.growth * sigma, largest), jnp.where(failed, 0.1 * sigma, sigma)
            ),
            target=jnp.where(solved, 0.1 * state.target, state.target),
            step=state.step + 1,
        )

    def check(self, problem: Problem, state: _State) -> _State:
        F = problem.operator.forward(state.params)
        objective = gated_objective(problem, state.params, F)
        bound = jnp.maximum(gated_bound(problem, problem.Y - F), gated_bound(problem, state.R))
        return state._replace(objective=objective, bound=bound, residual=relative_gap(objective, bound))

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome)
