"""Accelerated proximal gradient for the cone program, for smooth losses.

The prox of :class:`jaxcvx.penalties.cones.ConeGroups` is group soft-thresholding of the projection on the cones, so
every iterate is feasible to rounding. A group whose projection is no longer than the threshold becomes zero. The
multipliers of an earlier step prove that for most groups without a projection, so a step costs two products with the
operator and few projections.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.methods.fista import Acceleration, LinearMap, accelerated_step, prox_of, refresh, start
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import ActiveRows
from jaxcvx.solvers.cone.program import ConeProgram, cone_program, evaluate_cone, stack, unstack, zero_pair
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
    """The method of :class:`ConeADMM` for smooth losses and for problems that are too large for its Newton phase.

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
        Q, rows = stack(params), program.penalty.start_memory(stack(params))
        Q, active = program.penalty.project(Q, rows)  # a given start may be infeasible
        one = jnp.ones((), problem.X.dtype)
        curvature = 2 * program.operator.max_curvature(10) * problem.curvature
        fista = start(_linear(program), Q, curvature, active)
        step = jnp.asarray(0, jnp.int32)
        return _State(unstack(Q), fista, rows, step, jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        program = cone_program(problem, self.grouping)
        prox = prox_of(program.penalty, problem.beta)
        fista = accelerated_step(problem.loss, problem.targets, _linear(program), prox, state.fista)
        return state._replace(fista=fista, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        program = cone_program(problem, self.grouping)
        fista = refresh(_linear(program), state.fista)
        objective = problem.loss.value(fista.F, problem.targets) + problem.beta * program.penalty.value(fista.params)
        R = -problem.loss.grad(fista.F, problem.targets)
        projected, rows = program.penalty.project_above(program.adjoint(R), state.rows, problem.beta)
        bound = scaled_bound(problem, R, program.penalty.groups.dual_norm(projected))
        residual = relative_gap(objective, bound)
        return state._replace(
            params=unstack(fista.params), fista=fista, rows=rows, objective=objective, bound=bound, residual=residual
        )

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, -problem.loss.grad(state.fista.F, problem.targets))

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_cone(problem, outcome, self.grouping)


def _linear(program: ConeProgram) -> LinearMap:
    return LinearMap(program.forward, program.adjoint)
