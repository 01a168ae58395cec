"""Interior-point method for a lasso with any loss that is a sum over entries: linear programs included.

    min_{w, c}  loss(A w + c 1, y) + beta ||w||_1         (c only with a free bias)

The method solves the dual ``max_R D(R)`` with D = -loss*(-R), subject to ``|A^T R| <= beta``, ``low <= R <= high``
and, with a free bias, ``1^T R = 0``. This program is linear for interpolation and the hinge, quadratic for Huber's
loss and smooth for the logistic loss. The weights w are the multipliers of ``|A^T R| <= beta``.

Source: S. Mehrotra, "On the implementation of a primal-dual interior point method" (1992).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.losses.base import Loss
from jaxcvx.numerics.safe import divisor

_PATIENCE = 5  # iterations without progress
_REFINE = 3  # steps of iterative refinement of each Newton system
_TO_BOUNDARY = 0.995  # fraction of the largest step that keeps everything positive


class LassoFit(NamedTuple):
    """Solution of the lasso, primal and dual.

    Attributes:
      weights: (m,) w.
      bias: scalar c, 0 without a free bias.
      R: (n,) dual feasible up to scaling by ``beta / max |A^T R|``.
      objective: of w and c.
      bound: dual value of the best feasible multiple of R.
    """

    weights: Float[Array, m]
    bias: Float[Array, ""]
    R: Float[Array, n]
    objective: Float[Array, ""]
    bound: Float[Array, ""]


class _Lasso(NamedTuple):
    """The program: the arguments of :func:`fit_lasso`, and the interval of the dual variables."""

    loss: Loss
    A: Float[Array, "n m"]
    Y: Float[Array, "n 1"]
    beta: Float[Array, ""]
    free_bias: bool
    low: Float[Array, n]
    high: Float[Array, n]

    @property
    def tiny(self) -> Any:
        """The smallest normal number of the dtype."""
        return jnp.finfo(self.A.dtype).tiny

    @property
    def num_products(self) -> int:
        """The number of complementarity products, of slack and multiplier."""
        return 2 * sum(self.A.shape)

    def slope(self, R: Float[Array, n]) -> Float[Array, n]:
        """The gradient of -D."""
        return -jax.grad(lambda r: self.loss.dual_value(r[:, None], self.Y))(R)

    def keep_best(self, iterate: _Iterate, best: LassoFit) -> LassoFit:
        """``best`` with its weights replaced where the iterate's cost less, and R where it proves more."""
        w, c = iterate.w[0] - iterate.w[1], iterate.c
        value = self.loss.value((self.A @ w + c)[:, None], self.Y) + self.beta * jnp.sum(jnp.abs(w))
        R = iterate.R[:, None]
        if self.free_bias:
            R = self.loss.center_dual(R, self.Y)
        limit = self.beta / jnp.maximum(jnp.max(jnp.abs(self.A.T @ R)), self.tiny)
        bound = self.loss.dual_value(self.loss.best_scaling(R, self.Y, limit) * R, self.Y)
        better, stronger = value < best.objective, bound > best.bound
        return LassoFit(
            jnp.where(better, w, best.weights),
            jnp.where(better, c, best.bias),
            jnp.where(stronger, R[:, 0], best.R),
            jnp.where(better, value, best.objective),
            jnp.where(stronger, bound, best.bound),
        )


class _Iterate(NamedTuple):
    """Primal and dual variables; also used for a direction."""

    R: Float[Array, n]
    slack: Float[Array, "2 m"]  # of A^T R <= beta and of -A^T R <= beta
    distance: Float[Array, "2 n"]  # R - low and high - R
    w: Float[Array, "2 m"]  # multipliers of the slacks
    z: Float[Array, "2 n"]  # multipliers of the distances
    c: Float[Array, ""]

    def mean_product(self, lasso: _Lasso) -> Float[Array, ""]:
        """The mean of the complementarity products: mu."""
        return (jnp.sum(self.slack * self.w) + jnp.sum(self.distance * self.z)) / lasso.num_products

    def moved(self, direction: _Iterate, lengths: tuple[Array, Array]) -> _Iterate:
        """The iterate after a step; ``lengths`` are those of R with its slacks, and of the multipliers."""
        primal, dual = lengths
        return _Iterate(
            self.R + primal * direction.R,
            self.slack + primal * direction.slack,
            self.distance + primal * direction.distance,
            self.w + dual * direction.w,
            self.z + dual * direction.z,
            self.c + dual * direction.c,
        )

    def longest_steps(self, direction: _Iterate, curved: bool) -> tuple[Array, Array]:
        """The largest steps up to 1 that keep slacks and multipliers positive; both the same if D is curved."""
        slack, distance, w, z = (
            jnp.min(jnp.where(change < 0, now / divisor(-change), jnp.inf))
            for now, change in zip(self[1:5], direction[1:5], strict=True)
        )
        primal, dual = jnp.minimum(jnp.minimum(slack, distance), 1.0), jnp.minimum(jnp.minimum(w, z), 1.0)
        return (jnp.minimum(primal, dual),) * 2 if curved else (primal, dual)


class _System(NamedTuple):
    """The Newton system at an iterate, ``E x + A q = g`` and ``A^T x - q / D = h``, factorised once.

    Attributes:
      lasso: the program.
      iterate: the point.
      E: diagonal of the block of R.
      D: sum over both signs of multiplier over slack.
      ratio: (2, m) multiplier over slack.
      factor: Cholesky factor of the scaled Gram matrix of order min(n, m), as of ``cho_factor``.
      scale: scaling of that matrix.
      slack_error: residual of the definition of the slacks.
      gradient: residual of the stationarity in R.
      ones: the solution for g = 1, which removes the free bias; None without one.
    """

    lasso: _Lasso
    iterate: _Iterate
    E: Float[Array, n]
    D: Float[Array, m]
    ratio: Float[Array, "2 m"]
    factor: Any
    scale: Array
    slack_error: Float[Array, "2 m"]
    gradient: Float[Array, n]
    ones: tuple[Array, Array] | None = None

    @classmethod
    def factorise(cls, lasso: _Lasso, iterate: _Iterate) -> _System:
        """The system at ``iterate``."""
        A, (n, m), eps = lasso.A, lasso.A.shape, float(jnp.finfo(lasso.A.dtype).eps)
        diagonal = iterate.z[0] / iterate.distance[0] + iterate.z[1] / iterate.distance[1]
        if lasso.loss.is_smooth:
            diagonal = diagonal + jax.jvp(lasso.slope, (iterate.R,), (jnp.ones_like(iterate.R),))[1]
        E = diagonal + lasso.tiny
        ratio = iterate.w / iterate.slack
        D = ratio[0] + ratio[1]
        B = (A * jnp.sqrt(D)) / jnp.sqrt(E)[:, None]
        gram = B @ B.T if n <= m else B.T @ B
        side = 1 / jnp.sqrt(1 + jnp.diagonal(gram))
        unit = side[:, None] * gram * side + jnp.diag(side**2 + len(gram) * eps)
        scale = side / jnp.sqrt(E) if n <= m else side * jnp.sqrt(D)
        correlation = A.T @ iterate.R
        slack_error = jnp.stack([correlation, -correlation]) + iterate.slack - lasso.beta
        gradient = lasso.slope(iterate.R) + A @ (iterate.w[0] - iterate.w[1]) - iterate.z[0] + iterate.z[1] + iterate.c
        system = cls(lasso, iterate, E, D, ratio, cho_factor(unit), scale, slack_error, gradient)
        return system._replace(ones=system.solve(jnp.ones_like(E))) if lasso.free_bias else system

    def solve_once(self, g: Float[Array, n], h: Float[Array, m]) -> tuple[Array, Array]:
        """x and q of the system, right to the digits that the factorisation leaves."""
        A, (n, m) = self.lasso.A, self.lasso.A.shape
        if n <= m:
            x = self.scale * cho_solve(self.factor, self.scale * (g + A @ (self.D * h)))
            return x, self.D * (A.T @ x - h)
        q = self.scale * cho_solve(self.factor, self.scale * (A.T @ (g / self.E) - h))
        return (g - A @ q) / self.E, q

    def solve(self, g: Float[Array, n]) -> tuple[Array, Array]:
        """x and q of the system for h = 0. Refining both equations keeps digits where D is large."""
        A = self.lasso.A
        x, q = self.solve_once(g, jnp.zeros_like(self.D))
        for _ in range(_REFINE):
            dx, dq = self.solve_once(g - self.E * x - A @ q, q / self.D - A.T @ x)
            x, q = x + dx, q + dq
        return x, q

    def direction(self, target_w: Array, target_z: Array) -> _Iterate:
        """Newton's direction towards ``slack * w = target_w`` and ``distance * z = target_z``."""
        A, now = self.lasso.A, self.iterate
        change_w = target_w / now.slack - now.w + self.ratio * self.slack_error
        change_z = target_z / now.distance - now.z
        dR, q = self.solve(-self.gradient - A @ (change_w[0] - change_w[1]) + change_z[0] - change_z[1])
        dc = jnp.zeros((), A.dtype)
        if self.ones is not None:
            x_ones, q_ones = self.ones
            dc = (jnp.sum(dR) + jnp.sum(now.R)) / jnp.sum(x_ones)
            dR, q = dR - dc * x_ones, q - dc * q_ones
        both_signs, distance = jnp.stack([q / self.D, -q / self.D]), jnp.stack([dR, -dR])
        dw = change_w + self.ratio * both_signs
        dz = change_z - now.z / now.distance * distance
        return _Iterate(dR, -self.slack_error - both_signs, distance, dw, dz, dc)


class _Progress(NamedTuple):
    """Variables of the loop."""

    iterate: _Iterate
    best: LassoFit
    number: Any  # of steps
    stalled: Any  # steps without progress, in a row


def fit_lasso(
    loss: Loss,
    A: Float[Array, "n m"],
    y: Float[Array, n],
    beta: Float[Array, ""],
    free_bias: bool,
    *,
    tol: float = 1e-12,
    max_steps: int = 100,
) -> LassoFit:
    """Solve the lasso. Works under jit and vmap. Zero columns of A get zero weights.

    Each step factorises one matrix of order min(n, m).

    Args:
      loss: with ``dual_interval``.
      A: (n, m) activations of unit neurons.
      y: (n,) targets.
      beta: positive.
      free_bias: static; True for a bias c without penalty.
      tol: relative gap to stop at.
      max_steps: limit on steps.
    """
    Y = y[:, None]
    low, high = (bound[:, 0] for bound in loss.dual_interval(Y))
    lasso = _Lasso(loss, A, Y, beta, free_bias, low, high)

    def unfinished(progress: _Progress) -> Array:
        best = progress.best
        gap = (best.objective - best.bound) / jnp.maximum(jnp.abs(best.objective), lasso.tiny)
        return (gap > tol) & (progress.number < max_steps) & (progress.stalled < _PATIENCE)

    return jax.lax.while_loop(unfinished, lambda progress: _step(lasso, progress, tol), _start(lasso)).best


def _start(lasso: _Lasso) -> _Progress:
    """The midpoint of the dual interval, with equal complementarity products."""
    A, Y, zero = lasso.A, lasso.Y, jnp.zeros((), lasso.A.dtype)
    R = 0.5 * (lasso.low + lasso.high)
    value = lasso.loss.value(0 * Y, Y)
    best = LassoFit(jnp.zeros(A.shape[1], A.dtype), zero, 0 * Y[:, 0], value, lasso.loss.dual_value(0 * Y, Y))
    correlation = A.T @ R
    slack = jnp.maximum(lasso.beta - jnp.stack([correlation, -correlation]), 0.1 * lasso.beta)
    distance = jnp.stack([R - lasso.low, lasso.high - R])
    mu = jnp.maximum(value - best.bound, lasso.tiny) / lasso.num_products
    return _Progress(_Iterate(R, slack, distance, mu / slack, mu / distance, zero), best, 0, 0)


def _step(lasso: _Lasso, progress: _Progress, tol: float) -> _Progress:
    """One predictor-corrector step. A step to numbers that are not finite is taken back and ends the loop."""
    now, best, number, stalled = progress
    curved, eps = lasso.loss.is_smooth, float(jnp.finfo(lasso.A.dtype).eps)
    system = _System.factorise(lasso, now)
    mu = now.mean_product(lasso)
    affine = system.direction(jnp.zeros_like(now.w), jnp.zeros_like(now.z))
    ahead = now.moved(affine, now.longest_steps(affine, curved)).mean_product(lasso)
    target = jnp.clip((ahead / mu) ** 3, 1e-6, 1.0) * mu
    chosen = system.direction(target - affine.slack * affine.w, target - affine.distance * affine.z)
    primal, dual = (jnp.minimum(1.0, _TO_BOUNDARY * t) for t in now.longest_steps(chosen, curved))
    new = now.moved(chosen, (primal, dual))
    distance = jnp.stack([new.R - lasso.low, lasso.high - new.R])
    new = new._replace(distance=jnp.maximum(distance, eps * eps * (lasso.high - lasso.low)))
    finite = jnp.all(jnp.isfinite(new.R)) & jnp.all(jnp.isfinite(new.w)) & jnp.isfinite(new.c)
    new_best = lasso.keep_best(new, best)
    # Early on the weights may miss the targets by much while the products still fall.
    early = (lasso.num_products * mu > tol * jnp.abs(best.objective)) & (jnp.maximum(primal, dual) > 1e-6)
    useful = early | ((best.objective - best.bound) > 1.1 * (new_best.objective - new_best.bound))
    now, best = jax.tree.map(lambda a, b: jnp.where(finite, a, b), (new, new_best), (now, best))
    return _Progress(now, best, number + 1, jnp.where(finite, jnp.where(useful, 0, stalled + 1), _PATIENCE))
