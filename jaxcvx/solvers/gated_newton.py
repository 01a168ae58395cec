"""GatedNewton: the last digits of the gated program with squared loss, by Newton steps on the cells with weights.

Where no cell is about to gain or lose its weights the objective is smooth in those that have some, with the Hessian

    H = A^T A + M - U U^T,    M_i = beta / ||W_i||_F,    U_i = W_i ||W_i||^-3/2 beta^1/2

(A is the map of those cells), and Newton's method gains three digits a step or more. Which cells have weights is the
business of the accelerated proximal gradient steps between two Newton steps.

The dual semismooth Newton method of :mod:`jaxcvx.solvers.lasso_newton` takes three times as many factorisations here,
because its multipliers have to converge too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.operators.masked import CellOperator
from jaxcvx.operators.prox import group_norms
from jaxcvx.problems.relu import Problem
from jaxcvx.solvers.base import Outcome, Parts, Solver
from jaxcvx.solvers.gated import evaluate_gated, gated_objective, zero_blocks
from jaxcvx.solvers.lasso_newton import largest_penalty
from jaxcvx.solvers.newton_system import conjugate_gradients, float32_inverse
from jaxcvx.solvers.working_set import GatedWorkingSet, WorkingSetState

_RADIAL = 1e3  # at most: inverse curvature along a block, where it has none, over the mean of those across
_HALVINGS = 8
_STOPS = 8
_SHORT = 0.1  # length of a step below which the model is trusted less


class _State(NamedTuple):
    params: Array  # (P, p, q)
    inner: WorkingSetState
    step: Array
    residual: Array
    objective: Array
    bound: Array
    radial: Array  # how far to trust the model along a block, where it has no curvature of its own
    failures: Array  # Newton steps in a row that led nowhere


def _scaled_rows(operator: CellOperator) -> tuple[Float[Array, "N p"], Array]:
    """Z in float32 with entries of at most 1, and what it was divided by."""
    largest = jnp.max(jnp.abs(operator.Z))
    size = jnp.where(largest > 0, largest, 1.0)
    return (operator.Z / size).astype(jnp.float32), size


class _Curvature(NamedTuple):
    """C ~ (M - U U^T)^-1 on the blocks with weights: ``across`` everywhere, and ``radial`` more along each block."""

    across: Float[Array, P]
    radial: Float[Array, P]
    unit: Float[Array, "P p q"]  # W_i / ||W_i||, zero without weights

    def __call__(self, X: Array) -> Array:
        along = jnp.sum(self.unit * X, axis=(1, 2), keepdims=True)
        return self.across[:, None, None] * X + self.radial[:, None, None] * along * self.unit


def _curvature(problem: Problem, W: Float[Array, "P p q"], radial: Array) -> _Curvature:
    """C at W: the inverse of M + 1/t off the blocks' own directions and t along them, t = ``radial`` mean(1/M)."""
    norms, largest = group_norms(W), largest_penalty(problem.operator)
    on, beta = norms > 0, problem.beta
    across = jnp.minimum(norms / jnp.where(beta > 0, beta, 1.0), largest)
    across = jnp.where(on, jnp.where(beta > 0, across, largest), 0.0)
    mean = jnp.sum(across) / jnp.maximum(jnp.sum(on), 1)
    trusted = jnp.minimum(radial * mean, largest)
    across = across * (trusted / jnp.where(on, across + trusted, 1.0))
    return _Curvature(across, jnp.where(on, trusted - across, 0.0), W / jnp.where(on, norms, 1.0)[:, None, None])


def _rough_inverse(problem: Problem, C: _Curvature) -> Callable[[Array], Array]:
    """Roughly ``(I + A C A^T)^-1``, in float32.

    The matrix is ``I + K (x) I_c + L L^T`` with ``K = (sum_i s_i d_i d_i^T) * (Z Z^T)`` entrywise and one column of L
    per cell: n x n for one output however many cells there are, because the gates are diagonal.
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
) -> Float[Array, "P p q"]:
    """``-(A^T A + C^-1)^-1 g`` on the blocks that are not zero, with g the slope there.

    It is ``D = -C (g + A^T x)`` with ``(I + A C A^T) x = -A C g``, and what a residual r there leaves of the system for
    D is ``A^T r``. So the conjugate gradients, which have n c unknowns, know when to stop.

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

    g = pull(problem.loss.grad(F, problem.Y)) + problem.beta * C.unit
    tolerable = accuracy * jnp.linalg.norm(g)
    x = conjugate_gradients(
        lambda x: x + operator.forward(C(pull(x))),
        _rough_inverse(problem, C),
        -operator.forward(C(g)),
        max_steps=max_steps,
        enough=lambda r: jnp.linalg.norm(pull(r)) <= tolerable,
    )
    return -C(g + pull(x))


def newton_step(
    problem: Problem, W: Float[Array, "P p q"], radial: Array | float = _RADIAL
) -> tuple[Float[Array, "P p q"], Float[Array, ""]]:
    """The best point on the way along the Newton direction, and how much of the way it is, 0 to 1.

    A block is stopped at zero where the way would turn it around. The candidates are halved lengths, and the first few
    lengths at which another block stops: a block that has to vanish may have next to no weights, and be in the way.
    """
    F = problem.operator.forward(W)
    D = newton_direction(problem, W, F, radial)
    D = jnp.where(jnp.all(jnp.isfinite(D)), D, 0.0)
    slope = jnp.sum(W * D, axis=(1, 2))
    ends = jnp.where(slope < 0, -jnp.sum(W * W, axis=(1, 2)) / jnp.where(slope < 0, slope, 1.0), jnp.inf)
    stops = jnp.minimum(jnp.sort(ends)[:_STOPS], 1.0)
    lengths = jnp.concatenate([0.5 ** jnp.arange(_HALVINGS, dtype=W.dtype), stops, jnp.zeros(1, W.dtype)])
    each, moved = problem.operator.each_block(W), problem.operator.each_block(D)

    def value(t):
        going = t < ends
        F = jnp.einsum("q,nqc->nc", going.astype(W.dtype), each + t * moved)
        return gated_objective(problem, jnp.where(going[:, None, None], W + t * D, 0.0), F)

    values = jax.lax.map(value, lengths)
    values = jnp.where(jnp.isnan(values), jnp.inf, values)
    # Of values that rounding does not tell apart, the first: the longest step.
    least = jnp.min(values)
    chosen = jnp.argmax(values <= least + 16 * jnp.finfo(W.dtype).eps * jnp.abs(least))
    t = lengths[chosen]
    return jnp.where((t < ends)[:, None, None], W + t * D, 0.0), t


@dataclasses.dataclass(frozen=True)
class GatedNewton(Solver):
    """The last phase of :class:`ProximalGradient`; needs the squared loss and n x n memory in float32.

    A step of the loop is a few accelerated proximal gradient steps and, where these do not reach ``tol``, a Newton
    step; all of them count.

    Attributes:
      first_order: accelerated steps before each Newton step.
      patience: Newton steps in a row that may lead nowhere before it gives up.
    """

    tol: float = 1e-8
    max_steps: int = 1200
    check_every: int = 1
    first_order: int = 10
    patience: int = 5

    keeps_better_start = True

    @property
    def _inner(self) -> GatedWorkingSet:
        return GatedWorkingSet(self.tol)

    def initial_params(self, problem: Problem, key: Any) -> Float[Array, "P p q"]:
        return zero_blocks(problem)

    def init(self, problem: Problem, key: Any, params: Float[Array, "P p q"]) -> _State:
        zero = jnp.zeros((), jnp.int32)
        inner, radial = self._inner.init(problem, key, params), jnp.asarray(_RADIAL, problem.dtype)
        return _State(params, inner, zero, inner.residual, inner.objective, inner.bound, radial, zero)

    def step(self, problem: Problem, state: _State) -> _State:
        fast = self._inner
        inner = jax.lax.fori_loop(0, self.first_order, lambda _, s: fast.step(problem, s), state.inner)
        inner = fast.check(problem, inner)

        def newton():
            W, length = newton_step(problem, inner.params, state.radial)
            factor = jnp.where(length >= 0.5, 10.0, jnp.where(length < _SHORT, 0.1, 1.0))
            radial = jnp.minimum(factor * state.radial, _RADIAL)
            return fast.move(inner, W), radial, jnp.where(length > 0, 0, state.failures + 1)

        enough = inner.residual <= self.tol
        inner, radial, failures = jax.lax.cond(
            enough, lambda: (inner, state.radial, state.failures), newton
        )
        step = state.step + self.first_order + jnp.where(enough, 0, 1).astype(jnp.int32)
        return state._replace(params=inner.params, inner=inner, step=step, radial=radial, failures=failures)

    def check(self, problem: Problem, state: _State) -> _State:
        inner = self._inner.check(problem, state.inner)
        return state._replace(
            params=inner.params,
            inner=inner,
            residual=inner.residual,
            objective=inner.objective,
            bound=inner.bound,
        )

    def gives_up(self, problem: Problem, state: _State) -> Bool[Array, ""]:
        return state.failures >= self.patience

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, None)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_gated(problem, outcome)
