"""NuclearProximalGradient: the gated program with nuclear norms, the tightest that ignores the cones."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import scaled_bound, skip_dual_norm
from jaxcvx.errors import invalid
from jaxcvx.methods.fista import Acceleration, LinearMap, accelerated_step, refresh, start
from jaxcvx.methods.ssnal import LassoProgram, LassoState, lasso_start, lasso_step
from jaxcvx.numerics.rounding import gamma
from jaxcvx.operators.cells import CellOperator, largest_penalty
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms, nuclear_norms, shrink_groups, shrink_singular_values
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.program import evaluate_gated, live_room, zero_blocks

_NEWTON_MAX_SIZE = 2000  # n c, the dimension of the Newton system


def nuclear_objective(problem: Problem, V: Float[Array, "P p q"], F: Float[Array, "n c"]) -> Float[Array, ""]:
    """Value of the program at V, whose predictions are F."""
    cells = problem.operator.num_cells
    penalty = jnp.sum(nuclear_norms(V[:cells])) + jnp.sum(group_norms(V[cells:]))
    return problem.loss.value(F, problem.Y) + problem.beta * penalty


def nuclear_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Float[Array, ""]:
    """``max_i ||Z^T D_i lift(R)||_2`` (spectral norm), rounded up: at least every neuron's price in the cells."""
    cells = operator.adjoint(R)[: operator.num_cells]
    rounding = gamma(8 * (cells.shape[1] + cells.shape[2]) + 64, R.dtype)
    spectral = jnp.max(jnp.linalg.svd(cells, compute_uv=False)) * (1 + rounding)
    return jnp.maximum(spectral, skip_dual_norm(operator, R))


def _shrink(operator: CellOperator, V: Float[Array, "P p q"], threshold: Array) -> Float[Array, "P p q"]:
    cells = shrink_singular_values(V[: operator.num_cells], threshold)
    return jnp.concatenate([cells, shrink_groups(V[operator.num_cells :], threshold)])


def _measure(problem: Problem, state: Any, F: Array, residuals: list[Array]) -> Any:
    objective = nuclear_objective(problem, state.params, F)
    norm = nuclear_dual_norm
    bounds = [scaled_bound(problem, R, norm(problem.operator, R)) for R in residuals]
    bound = jnp.max(jnp.stack(bounds))
    return state._replace(objective=objective, bound=bound, residual=relative_gap(objective, bound))


class _State(NamedTuple):
    params: Array  # (P, p, q)
    fista: Acceleration
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class NuclearProximalGradient(Solver):
    """Solves ``min_V loss(sum_i D_i Z V_i, Y) + beta sum_i ||V_i||_*`` over the problem's cells, for any smooth loss.

    The nuclear norm is the convex hull of a cell's rank-one blocks u v^T when the cone of u is dropped, so the
    optimum is a lower bound on the training problem over the cells (Sahiner, Ergen, Pauly and Pilanci 2021), above
    that of ProximalGradient's Frobenius groups and below that of CopositiveADMM; for one output it equals the first.
    Accelerated proximal gradient with singular value soft-thresholding; for the squared loss the
    last digits come from a semismooth Newton method whose systems are solved by conjugate gradients.

    ``solution.params`` is (P, p, q), one block per cell (a last one for a skip connection, with a Frobenius norm).
    ``solution.network`` is rounded from it: the blocks' left singular vectors, both signs, moved into their cells,
    with output weights fitted anew. Works under jit and vmap, in float32 and float64.

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit per phase.
      check_every: iterations between evaluations of the gap.
      phases: "auto", or "accelerated" for the accelerated method alone.
      switch_gap: relative gap at which the Newton phase takes over (or after 300 steps).
    """

    tol: float = 1e-6
    max_steps: int = 20_000
    check_every: int = 20
    phases: str = "auto"
    switch_gap: float = 3e-3

    requires = frozenset({"cells", "smooth loss", "no free bias"})
    keeps_better_start = True

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        if self.phases == "accelerated" or self.tol >= self.switch_gap:
            return (self,)
        if not problem.loss.is_quadratic or problem.Y.size > _NEWTON_MAX_SIZE:
            return (self,)
        first = dataclasses.replace(self, tol=self.switch_gap, max_steps=min(self.max_steps, 300))
        return (first, NuclearNewton(tol=self.tol), self)

    def validate(self, problem: Problem) -> None:
        if self.phases not in ("auto", "accelerated"):
            raise invalid("phases", repr(self.phases), "'auto' or 'accelerated'")

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p q"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p q"]) -> _State:
        operator = problem.operator
        one = jnp.ones((), problem.X.dtype)
        curvature = operator.max_curvature() * (problem.loss.curvature or 1.0)
        fista = start(LinearMap(operator.forward, operator.adjoint), params, curvature)
        return _State(params, fista, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        operator = problem.operator

        def prox(A, step, carry):
            return _shrink(operator, A, problem.beta * step), carry

        linear = LinearMap(operator.forward, operator.adjoint)
        fista = accelerated_step(problem.loss, problem.Y, linear, prox, state.fista)
        return state._replace(params=fista.params, fista=fista, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        operator = problem.operator
        fista = refresh(LinearMap(operator.forward, operator.adjoint), state.fista)
        R = -problem.loss.grad(fista.F, problem.Y)
        return _measure(problem, state._replace(fista=fista), fista.F, [R])

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, None)

    def room(self, problem: Problem, outcome: Outcome) -> int | None:
        return live_room(problem, outcome.params)

    def evaluate(self, problem: Problem, outcome: Outcome, room: int | None = None) -> Parts:
        return evaluate_gated(problem, outcome, nuclear_objective, nuclear_dual_norm, room=room)

    def scope(self, problem: Problem) -> str:
        assert problem.arrangements is not None
        return "relaxation" if problem.arrangements.complete else "sampled-cells"


class _NewtonState(NamedTuple):
    params: Array  # (P, p, q)
    lasso: LassoState
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class NuclearNewton(Solver):
    """The Newton phase of :class:`NuclearProximalGradient`: squared loss, matrix-free.

    Attributes:
      growth: factor on the penalty after each multiplier update.
      inner_steps: limit on conjugate gradient steps per Newton step.
    """

    tol: float = 1e-8
    max_steps: int = 60
    check_every: int = 1
    growth: float = 5.0
    inner_steps: int = 200

    def _program(self, problem: Problem) -> LassoProgram:
        operator = problem.operator

        def prox(V, threshold):
            return _shrink(operator, V, threshold)

        def solve(V, sigma, g):
            slope = jax.linearize(lambda V: prox(V, sigma * problem.beta), V)[1]

            def hessian(direction):
                return direction + sigma * operator.forward(slope(operator.adjoint(direction)))

            return jax.scipy.sparse.linalg.cg(hessian, g, tol=1e-4, maxiter=self.inner_steps)[0]

        return LassoProgram(operator.forward, operator.adjoint, prox, solve)

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p q"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p q"]) -> _NewtonState:
        operator, Y, beta = problem.operator, problem.Y, problem.beta
        one = jnp.ones((), problem.X.dtype)
        curvature, largest = operator.max_curvature(10), largest_penalty(operator)
        lasso = lasso_start(self._program(problem), Y, beta, params, group_norms(params), curvature, largest)
        return _NewtonState(params, lasso, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _NewtonState) -> _NewtonState:
        largest = largest_penalty(problem.operator)
        lasso = lasso_step(self._program(problem), problem.Y, problem.beta, state.lasso, self.growth, largest)
        return state._replace(params=lasso.params, lasso=lasso, step=state.step + 1)

    def check(self, problem: Problem, state: _NewtonState) -> _NewtonState:
        F = problem.operator.forward(state.params)
        return _measure(problem, state, F, [problem.Y - F, state.lasso.R])

    def finish(self, problem: Problem, state: _NewtonState) -> Outcome:
        return Outcome(state.params, state.lasso.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome, nuclear_objective, nuclear_dual_norm)
