"""Semismooth Newton augmented Lagrangian for the cone program with squared loss.

The same scheme as for the gated program (Li, Sun and Toh 2018): dual variable R, multiplier Q = (V, W), and

    prox(A) = group soft-thresholding of the projection on the cones,

whose generalised derivative on an active group is ``(1 - t/||q||) F + (t/||q||^3) q q^T`` with q the projection
and F the orthogonal projector on the span of the cone's face that holds it. Every primal iterate is a
projection, so it is feasible to rounding; the multipliers of the projections bound the dual norm.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.operators.projections import ActiveRows, face_projector
from jaxcvx.problems.relu import Problem
from jaxcvx.solvers.base import Outcome, Parts, Solver, relative_gap
from jaxcvx.solvers.cone import ConeProgram, Stack, cone_program, evaluate_cone, stack, unstack, zero_pair
from jaxcvx.solvers.gated_newton import largest_penalty


class _State(NamedTuple):
    params: tuple[Array, Array]
    multiplier: Stack
    R: Float[Array, "n c"]
    rows: ActiveRows
    dual_norm: Array  # bound on the program's dual norm at R
    sigma: Array
    target: Array
    met: Array  # checks so far that met the tolerance
    step: Array
    residual: Array
    objective: Array
    bound: Array


def _hessian(
    program: ConeProgram, q: Stack, faces: Array, threshold: Array, sigma: Array, shape: tuple[int, ...]
) -> Array:
    """Dense generalised Hessian ``I + sigma B J B^T``, of size (n c, n c), built column by column."""
    norms = program.norms(q)
    safe = jnp.where(norms > threshold, norms, 1.0)
    first = jnp.where(norms > threshold, 1 - threshold / safe, 0.0)
    second = jnp.where(norms > threshold, threshold / safe**3, 0.0)
    size = shape[0] * shape[1]

    def column(v):
        T = program.adjoint(v.reshape(shape))
        J = first * jnp.einsum("qcpr,qrc->qpc", faces, T) + second * q * program.inner(q, T)
        return v + sigma * program.forward(J).reshape(-1)

    H = jax.lax.map(column, jnp.eye(size, dtype=q.dtype), batch_size=min(64, size))
    return 0.5 * (H + H.T)


@dataclasses.dataclass(frozen=True)
class ConeNewton(Solver):
    """The Newton phase of :class:`ConeADMM`; squared loss, (n c) x (n c) memory.

    Attributes:
      grouping: as in ConeADMM.
      growth: factor on the penalty sigma after each multiplier update.
      confirm: how many checks must meet ``tol``. The steps in between converge superlinearly and make the
        weights as good as the bound, which a certificate from the weights alone needs.
    """

    tol: float = 1e-8
    max_steps: int = 150
    check_every: int = 1
    grouping: str = "shared"
    growth: float = 10.0
    confirm: int = 4

    def initial_params(self, problem: Problem, key: Any) -> tuple[Array, Array]:
        return zero_pair(problem)

    def init(self, problem: Problem, key: Any, params: tuple[Array, Array]) -> _State:
        program = cone_program(problem, self.grouping)
        Q = stack(params)
        one = jnp.ones((), problem.X.dtype)
        norms = program.norms(Q)
        mean = jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1)
        curvature = jnp.maximum(2 * program.operator.max_curvature(10), jnp.finfo(one.dtype).tiny)
        warm = 3 * mean / jnp.where(problem.beta > 0, problem.beta, 1.0)
        sigma = jnp.where((mean > 0) & (problem.beta > 0), warm, 100 / curvature)
        sigma = jnp.minimum(sigma, largest_penalty(program.operator))
        R = problem.Y - program.forward(Q)
        target = 1e-3 * jnp.linalg.norm(problem.Y)
        return _State(
            params, Q, R, program.no_rows(Q), jnp.inf * one, sigma, target,
            jnp.asarray(0, jnp.int32), jnp.asarray(0, jnp.int32), jnp.inf * one, one, one,
        )  # fmt: skip

    def step(self, problem: Problem, state: _State) -> _State:
        program, Y, sigma = cone_program(problem, self.grouping), problem.Y, state.sigma
        threshold = sigma * problem.beta
        eps = jnp.finfo(Y.dtype).eps
        V = state.multiplier + sigma * program.adjoint(state.R)
        q, rows = program.project(V, state.rows)
        g = state.R - Y + program.forward(program.shrink(q, threshold))
        project_faces = jax.vmap(jax.vmap(face_projector, in_axes=(None, None, 0)), in_axes=(None, 0, 0))
        faces = project_faces(program.operator.Z, program.signs, rows)
        H = _hessian(program, q, faces, threshold, sigma, Y.shape)
        direction = -cho_solve(cho_factor(H), g.reshape(-1)).reshape(g.shape)
        moved = sigma * program.adjoint(direction)
        slope = jnp.sum(g * direction)

        def potential(R, q):
            shrunk = jnp.maximum(program.norms(q) - threshold, 0.0)
            return 0.5 * jnp.sum(R**2) - jnp.sum(R * Y) + jnp.sum(shrunk**2) / (2 * sigma)

        here = potential(state.R, q)

        def attempt(length, rows):
            R = state.R + length * direction
            q, rows = program.project(V + length * moved, rows)
            enough = potential(R, q) <= here + 1e-4 * length * slope + 16 * eps * jnp.abs(here)
            return length, R, q, rows, enough

        length, R, q, rows, enough = jax.lax.while_loop(
            lambda t: ~t[4] & (t[0] > 1e-4),
            lambda t: attempt(0.5 * t[0], t[3]),
            (2 * jnp.ones((), Y.dtype), state.R, q, rows, jnp.zeros((), bool)),
        )
        R = jnp.where(enough, R, state.R)
        Q = program.shrink(q, threshold)
        gradient = jnp.linalg.norm(R - Y + program.forward(Q))
        dual_norm = jnp.max(program.norms(q - state.multiplier)) / sigma

        solved = gradient <= state.target
        largest = largest_penalty(program.operator)
        kept = jnp.where(enough, sigma, 0.1 * sigma)  # a failed line search means that sigma is too large
        return state._replace(
            params=unstack(Q),
            R=R,
            rows=rows,
            dual_norm=dual_norm,
            multiplier=jnp.where(solved, Q, state.multiplier),
            sigma=jnp.where(solved, jnp.minimum(self.growth * sigma, largest), kept),
            target=jnp.where(solved, 0.1 * state.target, state.target),
            step=state.step + 1,
        )

    def check(self, problem: Problem, state: _State) -> _State:
        program = cone_program(problem, self.grouping)
        objective = program.objective(problem, stack(state.params))
        bound = scaled_bound(problem, state.R, state.dual_norm)
        gap = relative_gap(objective, bound)
        met = state.met + (gap <= self.tol)
        residual = jnp.where(met >= self.confirm, gap, jnp.maximum(gap, 2 * self.tol))
        return state._replace(objective=objective, bound=bound, residual=residual, met=met)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_cone(problem, outcome, self.grouping)
