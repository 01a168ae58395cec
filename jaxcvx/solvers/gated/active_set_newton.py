"""ActiveNewton: the last digits of the gated program with squared loss, by Newton steps on the cells with weights.

Near a solution no cell gains or loses its weights. Then the objective is smooth in the nonzero blocks, with the Hessian

    H = A^T A + M - U U^T,    M_i = beta / ||W_i||_F,    U_i = W_i ||W_i||^-3/2 beta^1/2

where A is the map of those cells, and Newton's method gains three digits per step or more. Between two Newton steps,
accelerated proximal gradient steps decide which cells have weights.

Near a solution the method takes a third of the factorisations of the dual method
(:mod:`jaxcvx.solvers.gated.ssnal`), whose multipliers have to converge too. Far from a solution, or at tiny beta, only
the dual method converges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.numerics.conjugate_gradient import conjugate_gradients, float32_inverse
from jaxcvx.numerics.safe import divide, divisor
from jaxcvx.operators.cells import CellOperator, largest_penalty
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.gated.program import evaluate_gated, gated_bound, gated_objective, zero_blocks
from jaxcvx.solvers.gated.working_set import GatedWorkingSet, WorkingSetState

_RADIAL = 1e3  # assumed inverse curvature along a block, in units of the mean inverse curvature across
_HALVINGS = 8
_STOPS = 8


class _State(NamedTuple):
    params: Array  # (P, p, q)
    inner: WorkingSetState
    dual: Array  # (n, c) of the residuals that Newton steps predicted, the one with the best bound
    dual_bound: Array
    step: Array
    residual: Array
    objective: Array
    bound: Array
    stuck: Array  # the last Newton step had length zero


def _scaled_rows(operator: CellOperator) -> tuple[Float[Array, "N p"], Array]:
    """Z in float32 with entries of at most 1, and the number that it was divided by."""
    size = divisor(jnp.max(jnp.abs(operator.Z)))
    return (operator.Z / size).astype(jnp.float32), size


class _Curvature(NamedTuple):
    """C, about (M - U U^T)^-1 on the nonzero blocks: ``across`` in all directions, plus ``radial`` along each block."""

    across: Float[Array, P]
    radial: Float[Array, P]
    unit: Float[Array, "P p q"]  # W_i / ||W_i||, or 0 for a zero block

    def __call__(self, X: Array) -> Array:
        along = jnp.sum(self.unit * X, axis=(1, 2), keepdims=True)
        return self.across[:, None, None] * X + self.radial[:, None, None] * along * self.unit


def _curvature(problem: Problem, W: Float[Array, "P p q"], radial: Array) -> _Curvature:
    """C at W. With t = ``radial`` mean(1/M) it is (M + 1/t)^-1 across a block's own direction, and t along it."""
    norms, largest = group_norms(W), largest_penalty(problem.operator)
    on, beta = norms > 0, problem.beta
    across = jnp.minimum(norms / divisor(beta), largest)
    across = jnp.where(on, jnp.where(beta > 0, across, largest), 0.0)
    mean = jnp.sum(across) / jnp.maximum(jnp.sum(on), 1).astype(across.dtype)
    trusted = jnp.minimum(radial * mean, largest)
    across = across * divide(trusted, across + trusted)
    return _Curvature(across, jnp.where(on, trusted - across, 0.0), divide(W, norms[:, None, None]))


def _rough_inverse(problem: Problem, C: _Curvature) -> Callable[[Array], Array]:
    """An approximation of ``(I + A C A^T)^-1`` in float32.

    The matrix is ``I + K (x) I_c + L L^T`` with ``K = (sum_i s_i d_i d_i^T) * (Z Z^T)`` entrywise and one column of L
    per cell. For one output it is n x n for any number of cells, because the gates are diagonal.
    """
    Z, size = _scaled_rows(problem.operator)
    operator = dataclasses.replace(problem.operator, Z=Z, masks=problem.operator.masks.astype(Z.dtype))
    across = (C.across * size * size).astype(Z.dtype)
    lines = (jnp.sqrt(C.radial)[:, None, None] * size * C.unit).astype(Z.dtype)
    L = jnp.swapaxes(operator.each_block(lines), 1, 2)  # (n, c, P)
    K = operator.gram(weights=across)
    if problem.num_outputs == 1:
        return float32_inverse(K + L[:, 0] @ L[:, 0].T)
    # Several outputs: Woodbury's formula for L.
    inverse = float32_inverse(K)
    solved = inverse(L.reshape(len(L), -1)).reshape(L.shape)
    small = float32_inverse(jnp.einsum("ncq,ncr->qr", L, solved))

    def with_lines(x):
        z = inverse(x)
        return z - (solved @ small(jnp.einsum("ncq,nc->q", L, z.astype(L.dtype)))).astype(z.dtype)

    return with_lines


def newton_direction(
    problem: Problem,
    W: Float[Array, "P p q"],
    F: Float[Array, "n c"],
    radial: Array | float = _RADIAL,
    accuracy: float = 1e-2,
    max_steps: int = 20,
) -> tuple[Float[Array, "P p q"], Float[Array, "n c"]]:
    """``D = -(A^T A + C^-1)^-1 g`` on the blocks that are not zero, with g the slope there, and ``A D``.

    It is ``D = -C (g + A^T x)`` with ``(I + A C A^T) x = -A C g``, whose solution is ``x = A D``. Conjugate gradients
    solve this system of n c unknowns. They stop by ``A^T r``, which their residual r leaves in the system for D.

    Args:
      problem: with squared loss.
      W: blocks.
      F: their predictions.
      radial: inverse curvature assumed along a block, over the mean of those across.
      accuracy: of the residual, relative to g.
      max_steps: of the conjugate gradients.
    """
    operator, C = problem.operator, _curvature(problem, W, jnp.asarray(radial))
    on = jnp.any(W != 0, axis=(1, 2), keepdims=True)

    def pull(R):
        return jnp.where(on, operator.adjoint(R), 0.0)

    g = pull(problem.loss.grad(F, problem.targets)) + problem.beta * C.unit
    tolerable = accuracy * jnp.linalg.norm(g)
    x = conjugate_gradients(
        lambda x: x + operator.forward(C(pull(x))),
        _rough_inverse(problem, C),
        -operator.forward(C(g)),
        max_steps=max_steps,
        enough=lambda r: jnp.linalg.norm(pull(r)) <= tolerable,
    )
    return -C(g + pull(x)), x


def newton_step(
    problem: Problem, W: Float[Array, "P p q"]
) -> tuple[Float[Array, "P p q"], Float[Array, ""], Float[Array, "n c"]]:
    """The best point along the Newton direction, its step length, and the predicted residual.

    The predicted residual is ``R - x`` for the full step. It loses no digits where it is much smaller than the targets,
    because x has absorbed the rounding of R = Y - F along A. In float32 it still gives a bound where Y - F does not.

    A block stops at zero if the direction would reverse it. The candidate lengths are halved lengths, and the first few
    lengths at which a block stops: a tiny block that has to vanish would otherwise block every step.
    """
    F = problem.operator.forward(W)
    D, change = newton_direction(problem, W, F)
    D = jnp.where(jnp.all(jnp.isfinite(D)), D, 0.0)
    slope = jnp.sum(W * D, axis=(1, 2))
    ends = jnp.where(slope < 0, divide(jnp.sum(W * W, axis=(1, 2)), -slope), jnp.inf)
    stops = jnp.minimum(jnp.sort(ends)[:_STOPS], 1.0)
    lengths = jnp.concatenate([0.5 ** jnp.arange(_HALVINGS, dtype=W.dtype), stops, jnp.zeros(1, W.dtype)])
    each, change_each = problem.operator.each_block(W), problem.operator.each_block(D)

    def value(t):
        going = t < ends
        F = jnp.einsum("q,nqc->nc", going.astype(W.dtype), each + t * change_each)
        return gated_objective(problem, jnp.where(going[:, None, None], W + t * D, 0.0), F)

    values = jax.lax.map(value, lengths)
    values = jnp.where(jnp.isnan(values), jnp.inf, values)
    # Among values that differ by rounding only, the first has the longest step.
    least = jnp.min(values)
    chosen = jnp.argmax(values <= least + 16 * jnp.finfo(W.dtype).eps * jnp.abs(least))
    t = lengths[chosen]
    return jnp.where((t < ends)[:, None, None], W + t * D, 0.0), t, -problem.loss.grad(F, problem.targets) - change


@dataclasses.dataclass(frozen=True)
class ActiveNewton(Solver):
    """The phase of :class:`ProximalGradient` near a solution; needs the squared loss and n x n memory in float32.

    A step of the loop is a few accelerated proximal gradient steps and, if these do not reach ``tol``, a Newton step.
    All of them count as steps.

    Attributes:
      first_order: accelerated steps before each Newton step.
      near: relative gap above which the phase gives up.
    """

    tol: float = 1e-8
    max_steps: int = 66
    check_every: int = 1
    first_order: int = 10
    near: float = 0.05

    keeps_better_start = True

    @property
    def _inner(self) -> GatedWorkingSet:
        return GatedWorkingSet(self.tol)

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p q"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p q"]) -> _State:
        zero = jnp.zeros((), jnp.int32)
        inner = self._inner.init(problem, key, params)
        dual, dual_bound = jnp.zeros_like(problem.Y), jnp.full_like(inner.bound, -jnp.inf)
        return _State(
            params, inner, dual, dual_bound, zero, inner.residual, inner.objective, inner.bound, jnp.zeros((), bool)
        )

    def step(self, problem: Problem, state: _State) -> _State:
        fast = self._inner
        inner = jax.lax.fori_loop(0, self.first_order, lambda _, s: fast.step(problem, s), state.inner)
        inner = fast.check(problem, inner)

        state = state._replace(inner=inner, step=state.step + self.first_order)

        def newton():
            W, length, R = newton_step(problem, inner.params)
            bound = gated_bound(problem, R)
            better = bound > state.dual_bound
            return state._replace(
                inner=fast.move(inner, W),
                dual=jnp.where(better, R, state.dual),
                dual_bound=jnp.where(better, bound, state.dual_bound),
                step=state.step + 1,
                stuck=length == 0,
            )

        return jax.lax.cond(self._gap(state) <= self.tol, lambda: state, newton)

    def _gap(self, state: _State) -> Float[Array, ""]:
        return relative_gap(state.inner.objective, jnp.maximum(state.inner.bound, state.dual_bound))

    def check(self, problem: Problem, state: _State) -> _State:
        state = state._replace(inner=self._inner.check(problem, state.inner))
        return state._replace(
            params=state.inner.params,
            residual=self._gap(state),
            objective=state.inner.objective,
            bound=jnp.maximum(state.inner.bound, state.dual_bound),
        )

    def gives_up(self, problem: Problem, state: _State) -> Bool[Array, ""]:
        return state.stuck | (state.residual > self.near)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.dual)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome)
