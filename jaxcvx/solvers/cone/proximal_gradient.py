"""Accelerated proximal gradient for the cone program, for smooth losses.

The proximal operator of ``t ||.||`` on a polyhedral cone is group soft-thresholding of the projection on it, so every
iterate is feasible to rounding. A group whose projection is no longer than the threshold becomes zero, and multipliers
of an earlier step mostly prove that without a projection: a step costs two products and few projections.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.methods.fista import Acceleration, LinearMap, accelerated_step, refresh, start
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import ActiveRows
from jaxcvx.solvers.cone.program import (
    ConeProgram,
    Stack,
    cone_program,
    evaluate_cone,
    stack,
    unstack,
    zero_pair,
)
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap


class _State(NamedTuple):
    params: tuple[Array, Array]
    fista: Acceleration  # its carry: active rows of the last projections
    rows: ActiveRows  # of the projections that bound the dual norm
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class ConeProximal(Solver):
    """What :class:`ConeADMM` does where its Newton phase does not apply and the loss is smooth.

    Attributes:
      grouping: as in ConeADMM.
    """

    tol: float = 1e-6
    max_steps: int = 20_000
    check_every: int = 50
    grouping: str = "shared"

    keeps_better_start = True

    def initial_params(self, problem: Problem, key: Any) -> tuple[Array, Array]:
        return zero_pair(problem)

    def init(self, problem: Problem, key: Any, params: tuple[Array, Array]) -> _State:
        program = cone_program(problem, self.grouping)
        Q, rows = program.project(stack(params), program.no_rows(stack(params)))  # a given start may be infeasible
        one = jnp.ones((), problem.X.dtype)
        curvature = 2 * program.operator.max_curvature(10) * (problem.loss.curvature or 1.0)
        fista = start(_linear(program), Q, curvature, rows)
        step = jnp.asarray(0, jnp.int32)
        return _State(unstack(Q), fista, program.no_rows(Q), step, jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        program = cone_program(problem, self.grouping)

        def prox(A: Stack, length: Array, rows: ActiveRows) -> tuple[Stack, ActiveRows]:
            threshold = problem.beta * length
            projected, rows = program.project_above(A, rows, threshold)
            return program.shrink(projected, threshold), rows

        fista = accelerated_step(problem.loss, problem.Y, _linear(program), prox, state.fista)
        return state._replace(fista=fista, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        program = cone_program(problem, self.grouping)
        fista = refresh(_linear(program), state.fista)
        objective = problem.loss.value(fista.F, problem.Y) + problem.beta * jnp.sum(program.norms(fista.params))
        R = -problem.loss.grad(fista.F, problem.Y)
        projected, rows = program.project_above(program.adjoint(R), state.rows, problem.beta)
        bound = scaled_bound(problem, R, jnp.max(program.norms(projected)))
        residual = relative_gap(objective, bound)
        return state._replace(
            params=unstack(fista.params), fista=fista, rows=rows, objective=objective, bound=bound, residual=residual
        )

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, -problem.loss.grad(state.fista.F, problem.Y))

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_cone(problem, outcome, self.grouping)


def _linear(program: ConeProgram) -> LinearMap:
    return LinearMap(program.forward, program.adjoint)
