"""ProximalGradient: the gated ReLU group lasso, by accelerated proximal gradient and Newton's method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.implicit import Optimality
from jaxcvx.penalties.groups import FrobeniusGroups
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.gated.accelerated import FIRST_STEPS, GatedGradient
from jaxcvx.solvers.gated.active_set_newton import ActiveNewton
from jaxcvx.solvers.gated.program import FROBENIUS, gated_objective, gated_optimality
from jaxcvx.solvers.gated.ssnal import SSNAL
from jaxcvx.solvers.gated.working_set import GatedWorkingSet

_NEWTON_MAX_WORK = 2e7  # N p P q up to which it pays for several outputs
_FEWEST_CELLS = 64  # from which half of the cells are tried first
_NEWTON_MAX_ROWS = 4096
_WARM_SWITCH_GAP = 0.05  # near a solution Newton is tried at once; measured along paths


@dataclasses.dataclass(frozen=True)
class ProximalGradient(GatedGradient):
    """Solves the gated ReLU program with Frobenius groups and chooses its method: proximal gradient, then Newton.

    It takes any smooth loss, and scalar or vector output.

    With ``phases="auto"`` the first phase is accelerated proximal gradient on a working set of cells, with full
    momentum and, in float64, products of differences in float32 (:mod:`jaxcvx.solvers.gated.working_set`). That takes
    less than half the time of the plain method. For the squared loss and up to 4096 rows Newton's method finds the last
    digits, from ``switch_gap`` on or after 300 steps: on the cells with weights near a solution
    (:mod:`jaxcvx.solvers.gated.active_set_newton`), elsewhere on the dual (:mod:`jaxcvx.solvers.gated.ssnal`). With
    several outputs Newton's method is used for small problems only, where it pays.

    With ``phases="accelerated"`` the method is proximal gradient with FISTA's momentum (Beck and Teboulle 2009) and
    gradient-based restarts (O'Donoghue and Candes 2015). The step size comes from a power iteration and adapts to the
    local curvature. Its test compares squared norms of differences, not objective values, so it works in float32.

    ``solution.params`` is (P, p, c), one block per cell (and a last one for a skip connection);
    ``program_gap`` is the gated program's own; ``lower_bound`` is the gated dual value, so it never exceeds
    the gated optimum on the same cells. Gated networks are another class of models: ``solution.network``
    is a ReLU network rounded from the gated one (its directions, with output weights fitted anew by a
    convex program), and ``upper_bound`` is its own objective. :func:`jaxcvx.gated_to_relu` gives the network
    with the same predictions on X instead.

    It works under jit, vmap (over beta, Y, X) and grad, in float32 and float64: ``params`` and ``objective`` carry
    derivatives (:mod:`jaxcvx.numerics.implicit`), the rounded network and the bounds are constants under grad.

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit per phase.
      check_every: iterations between evaluations of the gap.
      phases: "auto", or "accelerated" for the accelerated method alone.
      switch_gap: relative gap at which the Newton phase takes over.
    """

    differentiable: ClassVar[bool] = True

    def penalty(self, problem: Problem) -> FrobeniusGroups:
        return FROBENIUS

    def _choose_phases(self, problem: Problem) -> tuple[Solver, ...]:
        """Working sets of cells first; then Newton's methods, near a solution and from afar, if they are cheap."""
        P, columns = problem.operator.num_blocks, problem.num_columns
        fast = GatedWorkingSet(self.tol, self.max_steps, self.check_every)
        newton = problem.loss.is_quadratic and problem.num_rows <= _NEWTON_MAX_ROWS
        cheap = columns == 1 or problem.rows.size * P * columns <= _NEWTON_MAX_WORK
        if newton and cheap and self.tol < self.switch_gap:
            steps = min(self.max_steps, FIRST_STEPS)
            first = dataclasses.replace(fast, tol=self.switch_gap, max_steps=steps)
            return (first, ActiveNewton(self.tol), SSNAL(self.tol))
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

    def optimality(self, problem: Problem, params: Float[Array, "P p c"]) -> Optimality:
        return gated_optimality(params)
