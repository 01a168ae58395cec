"""GatedGradient: accelerated proximal gradient on the gated program of any penalty, with a Newton finish."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.methods.fista import Acceleration, LinearMap, accelerated_step, prox_of, refresh, start
from jaxcvx.penalties.base import Penalty
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.program import evaluate_gated, gated_bound, gated_objective, live_room, zero_blocks
from jaxcvx.solvers.gated.ssnal import SSNAL

FIRST_STEPS = 300  # of the first phase, before Newton is tried at any gap
_NEWTON_MAX_SIZE = 2000  # n c, the dimension of the Newton system
_NEWTON_GROWTH = 5.0  # of sigma, where Newton systems have no preconditioner


class _State(NamedTuple):
    params: Array  # (P, p, q)
    fista: Acceleration
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class GatedGradient(Solver, abc.ABC):
    """Solves ``min_W loss(sum_i D_i Z W_i, Y) + beta h(W)`` for the penalty h of a subclass and any smooth loss.

    A subclass defines :meth:`penalty`, and has a solver of its program: FISTA with gradient-based restarts and, for the
    squared loss, a semismooth Newton method for the last digits.

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit per phase.
      check_every: iterations between evaluations of the gap.
      phases: "auto", or "accelerated" for the accelerated method alone.
      switch_gap: relative gap at which the Newton phase takes over.

    Example:
      The gated program with one group per output column:

      >>> import dataclasses, jax, jaxcvx
      >>> @dataclasses.dataclass(frozen=True)
      ... class ColumnGradient(jaxcvx.GatedGradient):
      ...     def penalty(self, problem):
      ...         return jaxcvx.ColumnGroups()
      >>> X, Y = jax.random.normal(jax.random.key(0), (2, 10, 2))
      >>> problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> bool(jaxcvx.solve(problem, ColumnGradient(tol=1e-4)).program_gap <= 1e-4)
      True
    """

    tol: float = 1e-6
    max_steps: int = 20_000
    check_every: int = 20
    phases: str = "auto"
    switch_gap: float = 3e-3

    requires = frozenset({"cells", "smooth loss", "no free bias"})
    keeps_better_start = True
    power_steps: ClassVar[int] = 10
    """Steps of the power iteration for the first step size, which adapts later."""

    @abc.abstractmethod
    def penalty(self, problem: Problem) -> Penalty:
        """The penalty h; only the shapes and static fields of ``problem`` may matter."""

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        return (self,) if self.phases == "accelerated" else self._choose_phases(problem)

    def _choose_phases(self, problem: Problem) -> tuple[Solver, ...]:
        """The accelerated method, and for small problems with squared loss Newton's method after it."""
        newton = problem.loss.is_quadratic and problem.Y.size <= _NEWTON_MAX_SIZE
        if not newton or self.tol >= self.switch_gap:
            return (self,)
        first = dataclasses.replace(self, tol=self.switch_gap, max_steps=min(self.max_steps, FIRST_STEPS))
        return (first, SSNAL(tol=self.tol, penalty=self.penalty(problem), growth=_NEWTON_GROWTH), self)

    def validate(self, problem: Problem) -> None:
        if self.phases not in ("auto", "accelerated"):
            raise invalid("phases", repr(self.phases), "'auto' or 'accelerated'")

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p q"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p q"]) -> _State:
        operator, one = problem.operator, jnp.ones((), problem.X.dtype)
        curvature = operator.max_curvature(self.power_steps) * problem.curvature
        linear = LinearMap(operator.forward, operator.adjoint)
        fista = start(linear, params, curvature, self.penalty(problem).start_memory(params))
        return _State(params, fista, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        linear = LinearMap(problem.operator.forward, problem.operator.adjoint)
        prox = prox_of(self.penalty(problem), problem.beta)
        fista = accelerated_step(problem.loss, problem.targets, linear, prox, state.fista)
        return state._replace(params=fista.params, fista=fista, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        penalty = self.penalty(problem)
        fista = refresh(LinearMap(problem.operator.forward, problem.operator.adjoint), state.fista)
        objective = gated_objective(problem, fista.params, fista.F, penalty)
        bound = gated_bound(problem, -problem.loss.grad(fista.F, problem.targets), penalty)
        residual = relative_gap(objective, bound)
        return state._replace(fista=fista, objective=objective, bound=bound, residual=residual)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, None)

    def room(self, problem: Problem, outcome: Outcome) -> int | None:
        return live_room(problem, outcome.params)

    def evaluate(self, problem: Problem, outcome: Outcome, room: int | None = None) -> Parts:
        return evaluate_gated(problem, outcome, self.penalty(problem), room=room)

    def scope(self, problem: Problem) -> str:
        assert problem.arrangements is not None
        return "relaxation" if problem.arrangements.complete else "sampled-cells"
