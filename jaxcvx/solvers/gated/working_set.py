"""GatedWorkingSet: the fast phase of ProximalGradient, on few cells and with products in float32.

Neither saving changes the solution:

* The iteration runs on ``capacity`` cells only: those with weights and those whose dual norm is largest. Each check
  computes the gap over all cells and chooses the cells anew. A phase whose capacity is too small gives up.
* In float64 the products are made in float32, of differences from the point of the last check. There the predictions
  F0 and the gradient G0 are known in full precision: ``forward(W) = F0 + A (W - W0)`` and
  ``adjoint(R) = G0 + A^T (R - R0)``. The errors are relative to the differences, which vanish as the iterates converge
  (iterative refinement).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.methods.fista import Acceleration, LinearMap, accelerated_step, prox_of, start
from jaxcvx.numerics.safe import divisor
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.program import FROBENIUS, evaluate_gated, gated_objective, zero_blocks

_GREEDY_STEPS = 3000  # with momentum 1; FISTA's momentum from then on, whose convergence is proved
_SOLVED = 0.3  # the phase gives up a full set if its gap is below this share of the gap over all cells
_SHRINK = 0.99  # factor on the estimated curvature at each step; measured from 0.8 to 1


class _Anchor(NamedTuple):
    """The point of the last check, and the operator of the chosen cells in the precision of the products."""

    cells: Array  # (k,) blocks iterated on
    Z: Array  # (N, p), entries of at most 1 where products are rounded
    masks: Array  # (k, N), numbers
    size: Array  # the divisor of Z
    W: Array  # (k, p, c)
    F: Array  # (n, c)
    R: Array  # (n, c) gradient of the loss at F
    G: Array  # (k, p, c)


class WorkingSetState(NamedTuple):
    """State of :class:`GatedWorkingSet`."""

    params: Array  # (P, p, c) at the last check
    fista: Acceleration
    anchor: _Anchor
    step: Array
    residual: Array
    objective: Array
    bound: Array
    stuck: Array  # the program of the working set is nearly solved, and the set cannot take another cell


def _product_type(dtype: Any) -> Any:
    return jnp.float32 if dtype == jnp.float64 else dtype


def _local(problem: Problem, anchor: _Anchor) -> CellOperator:
    return CellOperator(anchor.Z, anchor.masks, readout=problem.readout, max_bytes=problem.max_bytes)


def _linear(problem: Problem, anchor: _Anchor) -> LinearMap:
    """The linear map of the chosen cells, computed from differences from the anchor."""
    local = _local(problem, anchor)
    dtype = problem.dtype
    if anchor.Z.dtype == dtype:
        return LinearMap(local.forward, local.adjoint)

    def rounded(product, difference):
        scale = divisor(jnp.max(jnp.abs(difference)))  # keeps all numbers in the range of float32
        return product((difference / scale).astype(anchor.Z.dtype)).astype(dtype) * (scale * anchor.size)

    return LinearMap(
        lambda W: anchor.F + rounded(local.forward, W - anchor.W),
        lambda R: anchor.G + rounded(local.adjoint, R - anchor.R),
    )


@dataclasses.dataclass(frozen=True)
class GatedWorkingSet(Solver):
    """Accelerated proximal gradient on a working set of cells; any smooth loss.

    Attributes:
      capacity: cells in the working set; None for all of them.
    """

    tol: float = 1e-6
    max_steps: int = 20_000
    check_every: int = 20
    capacity: int | None = None

    keeps_better_start = True

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p c"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p c"]) -> WorkingSetState:
        operator, one, W = problem.operator, jnp.ones((), problem.dtype), params
        F = operator.forward(W)
        gradient = problem.loss.grad(F, problem.targets)
        G = operator.adjoint(gradient)
        anchor = self._anchor(operator, self._choose(group_norms(W) > 0, group_norms(G)), W, F, gradient, G)
        linear = _linear(problem, anchor)
        local = _local(problem, anchor)
        curvature = local.max_curvature(10).astype(one.dtype) * anchor.size**2 * problem.curvature
        fista = start(linear, anchor.W, curvature)
        return WorkingSetState(
            params, fista, anchor, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one, jnp.zeros((), bool)
        )

    def step(self, problem: Problem, state: WorkingSetState) -> WorkingSetState:
        linear, greedy = _linear(problem, state.anchor), state.step < _GREEDY_STEPS
        prox = prox_of(FROBENIUS, problem.beta)
        fista = accelerated_step(problem.loss, problem.targets, linear, prox, state.fista, greedy)
        fista = fista._replace(lipschitz=_SHRINK * fista.lipschitz)
        return state._replace(fista=fista, step=state.step + 1)

    def check(self, problem: Problem, state: WorkingSetState) -> WorkingSetState:
        """Objective and bound over all cells in full precision; a new working set and a new anchor."""
        operator, fista = problem.operator, state.fista
        empty, old = jnp.zeros_like(state.params), state.anchor.cells
        few = dataclasses.replace(operator, masks=operator.masks[old])
        # Before the first step the params are the given ones, which may have too many cells.
        W, F = jax.lax.cond(
            state.step == 0,
            lambda: (state.params, operator.forward(state.params)),
            lambda: (empty.at[old].set(fista.params), few.forward(fista.params)),
        )
        gradient = problem.loss.grad(F, problem.targets)
        G = operator.adjoint(gradient)
        live, dual_norms = group_norms(W) > 0, group_norms(G)
        objective = gated_objective(problem, W, F)
        bound = scaled_bound(problem, -gradient, jnp.max(dual_norms))
        inside = scaled_bound(problem, -gradient, jnp.max(dual_norms[old]))
        full, too_many = jnp.sum(live) >= old.shape[0], jnp.sum(live) > old.shape[0]
        anchor = self._anchor(operator, self._choose(live, dual_norms), W, F, gradient, G)
        point = empty.at[old].set(fista.point)[anchor.cells]
        renewed = fista._replace(
            params=anchor.W,
            point=point,
            F=F,
            F_point=_linear(problem, anchor).forward(point),
        )
        return state._replace(
            params=W,
            fista=renewed,
            anchor=anchor,
            residual=relative_gap(objective, bound),
            objective=objective,
            bound=bound,
            stuck=too_many | (full & (objective - inside < _SOLVED * (objective - bound))),
        )

    def move(self, state: WorkingSetState, W: Float[Array, "P p c"]) -> WorkingSetState:
        """Restart at other params of the same cells. The state is complete again after the next check."""
        W = W[state.anchor.cells]
        fista = state.fista._replace(params=W, point=W, momentum=jnp.ones_like(state.fista.momentum))
        return state._replace(fista=fista)

    def gives_up(self, problem: Problem, state: WorkingSetState) -> Bool[Array, ""]:
        return state.stuck

    def finish(self, problem: Problem, state: WorkingSetState) -> Outcome:
        return Outcome(state.params, None)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome)

    def _choose(self, live: Bool[Array, P], dual_norms: Float[Array, P]) -> Array:
        """The working set: the cells with weights, then those of the largest dual norm."""
        num = live.shape[0]
        if self.capacity is None or self.capacity >= num:
            return jnp.arange(num)
        return jnp.argsort(jnp.where(live, jnp.inf, dual_norms), descending=True)[: self.capacity]

    def _anchor(self, operator: CellOperator, cells: Array, W: Array, F: Array, gradient: Array, G: Array) -> _Anchor:
        dtype = _product_type(W.dtype)
        size = divisor(jnp.max(jnp.abs(operator.Z))) if dtype != W.dtype else jnp.ones((), W.dtype)
        Z = (operator.Z / size).astype(dtype)
        return _Anchor(cells, Z, operator.masks[cells].astype(dtype), size, W[cells], F, gradient, G[cells])
