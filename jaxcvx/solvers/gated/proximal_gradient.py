"""ProximalGradient: the gated ReLU group lasso, by accelerated proximal gradient and a Newton finish."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.methods.fista import Acceleration, LinearMap, accelerated_step, refresh, start
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import shrink_groups
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.active_set_newton import ActiveNewton
from jaxcvx.solvers.gated.program import (
    evaluate_gated,
    gated_bound,
    gated_objective,
    gated_optimality,
    live_room,
    zero_blocks,
)
from jaxcvx.solvers.gated.ssnal import GatedNewton
from jaxcvx.solvers.gated.working_set import GatedWorkingSet

_NEWTON_MAX_WORK = 2e7  # N p P q up to which it pays for several outputs
_FEWEST_CELLS = 64  # from which half of the cells are tried first
_NEWTON_MAX_ROWS = 4096
_WARM_SWITCH_GAP = 0.05  # near a solution Newton is tried at once; measured along paths
_FIRST_STEPS = 300  # of the accelerated method, before Newton is tried at any gap


class _State(NamedTuple):
    params: Array  # (P, p, c)
    fista: Acceleration
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class ProximalGradient(Solver):
    """Solves the gated ReLU program with Frobenius groups, for any smooth loss, scalar or vector output.

    With ``phases="accelerated"``: proximal gradient with FISTA's momentum (Beck and Teboulle 2009) and gradient-based
    restarts (O'Donoghue and Candes 2015). The step comes from a power iteration and adapts to the local curvature;
    the test for it compares squared norms of differences, not objective values, so that it works in float32.

    With ``phases="auto"`` the same on a working set of cells with full momentum and, in float64, products of
    differences in float32 (:mod:`jaxcvx.solvers.gated.working_set`): less than half the time. For the squared loss and
    up to 4096 rows the last digits come from Newton's method, within ``switch_gap`` or after 300 steps: on the cells
    with weights where a solution is near (:mod:`jaxcvx.solvers.gated.active_set_newton`), else on the dual
    (:mod:`jaxcvx.solvers.gated.ssnal`); with several outputs only for small problems, where it pays.

    ``solution.params`` is (P, p, c), one block per cell (and a last one for a skip connection);
    ``program_gap`` is the gated program's own; ``lower_bound`` is the gated dual value, so it never exceeds
    the gated optimum on the same cells. Gated networks are another class of models: ``solution.network``
    is a ReLU network rounded from the gated one (its directions, with output weights fitted anew by a
    convex program), and ``upper_bound`` is its own objective. :func:`jaxcvx.gated_to_relu` gives the network
    with the same predictions on X instead.

    Works under jit, vmap (over beta, Y, X) and grad, in float32 and float64: ``params`` and ``objective`` carry
    derivatives (:mod:`jaxcvx.numerics.implicit`), the rounded network and the bounds are constants under grad.

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit per phase.
      check_every: iterations between evaluations of the gap.
      phases: "auto", or "accelerated" for the accelerated method alone.
      switch_gap: relative gap at which the Newton phase takes over.
    """

    tol: float = 1e-6
    max_steps: int = 20_000
    check_every: int = 20
    phases: str = "auto"
    switch_gap: float = 3e-3

    requires = frozenset({"cells", "smooth loss", "no free bias"})
    differentiable: ClassVar[bool] = True
    keeps_better_start = True

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        if self.phases == "accelerated":
            return (self,)
        P, columns = problem.operator.num_blocks, problem.num_columns
        fast = GatedWorkingSet(self.tol, self.max_steps, self.check_every)
        newton = problem.loss.is_quadratic and problem.num_rows <= _NEWTON_MAX_ROWS
        cheap = columns == 1 or problem.rows.size * P * columns <= _NEWTON_MAX_WORK
        if newton and cheap and self.tol < self.switch_gap:
            steps = min(self.max_steps, _FIRST_STEPS)
            first = dataclasses.replace(fast, tol=self.switch_gap, max_steps=steps)
            return (first, ActiveNewton(self.tol), GatedNewton(self.tol))
        return (dataclasses.replace(fast, capacity=-(-P // 2)), fast) if P >= _FEWEST_CELLS else (fast,)

    def warm(self) -> ProximalGradient:
        return dataclasses.replace(self, switch_gap=max(self.switch_gap, _WARM_SWITCH_GAP))

    def predict(self, problem: Problem, earlier: Sequence[Float[Array, "P p c"]]) -> Float[Array, "P p c"]:
        """The best of the last solution and its linear and quadratic extrapolations, zero blocks kept."""
        a, b, c = earlier
        alive = jnp.any(a != 0, axis=(1, 2), keepdims=True)
        starts = jnp.stack([a, jnp.where(alive, 2 * a - b, 0.0), jnp.where(alive, 3 * a - 3 * b + c, 0.0)])
        values = [gated_objective(problem, W, problem.operator.forward(W)) for W in starts]
        return starts[jnp.argmin(jnp.stack(values))]

    def validate(self, problem: Problem) -> None:
        if self.phases not in ("auto", "accelerated"):
            raise invalid("phases", repr(self.phases), "'auto' or 'accelerated'")

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p c"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p c"]) -> _State:
        operator = problem.operator
        one = jnp.ones((), problem.X.dtype)
        curvature = operator.max_curvature(10) * (problem.loss.curvature or 1.0)
        fista = start(LinearMap(operator.forward, operator.adjoint), params, curvature)
        return _State(params, fista, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        operator = problem.operator

        def prox(A, step, carry):
            return shrink_groups(A, problem.beta * step), carry

        linear = LinearMap(operator.forward, operator.adjoint)
        fista = accelerated_step(problem.loss, problem.Y, linear, prox, state.fista)
        return state._replace(params=fista.params, fista=fista, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        operator = problem.operator
        fista = refresh(LinearMap(operator.forward, operator.adjoint), state.fista)
        objective = gated_objective(problem, fista.params, fista.F)
        bound = gated_bound(problem, -problem.loss.grad(fista.F, problem.Y))
        residual = relative_gap(objective, bound)
        return state._replace(fista=fista, objective=objective, bound=bound, residual=residual)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, None)

    def room(self, problem: Problem, outcome: Outcome) -> int | None:
        return live_room(problem, outcome.params)

    def evaluate(self, problem: Problem, outcome: Outcome, room: int | None = None) -> Parts:
        return evaluate_gated(problem, outcome, room=room)

    def optimality(self, problem: Problem, params: Float[Array, "P p c"]) -> Optimality:
        return gated_optimality(params)

    def scope(self, problem: Problem) -> str:
        assert problem.arrangements is not None
        return "relaxation" if problem.arrangements.complete else "sampled-cells"
