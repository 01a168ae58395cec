"""Interior-point method for a lasso with any loss that is a sum over entries: linear programs included.

    min_{w, c}  loss(A w + c 1, y) + beta ||w||_1         (c only with a free bias)

is solved through its dual ``max_R D(R)`` with D = -loss*(-R), subject to ``|A^T R| <= beta``, ``low <= R <= high``
and, with a free bias, ``1^T R = 0``: there interpolation and the hinge are linear programs, Huber's loss is a quadratic
one, the logistic loss a smooth one, and all are alike. The primal weights are the multipliers.

Source: S. Mehrotra, "On the implementation of a primal-dual interior point method" (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.losses.base import Loss

_PATIENCE = 5  # iterations without progress
_REFINE = 3  # steps of iterative refinement of each Newton system


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


class _Iterate(NamedTuple):
    R: Array
    slack: Array  # (2, m): of A^T R <= beta and -A^T R <= beta
    room: Array  # (2, n): R - low and high - R
    w: Array  # (2, m) multipliers of the slacks
    z: Array  # (2, n) multipliers of the rooms
    c: Array


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
    """Solve the lasso; works under jit and vmap. Zero columns of A get zero weights.

    Each step factorises one matrix of order min(n, m).

    Args:
      loss: with ``dual_interval``.
      A: (n, m) activations of unit neurons.
      y: (n,) targets.
      beta: positive.
      free_bias: static; whether there is a c.
      tol: relative gap to stop at.
      max_steps: limit on steps.
    """
    Y = y[:, None]
    low, high = (b[:, 0] for b in loss.dual_interval(Y))
    width = high - low
    dtype, (n, m) = A.dtype, A.shape
    eps = float(jnp.finfo(dtype).eps)
    curved = loss.curvature is not None

    def slope(R):
        return -jax.grad(lambda r: loss.dual_value(r[:, None], Y))(R)

    def measure(state: _Iterate, best: LassoFit) -> LassoFit:
        w, c = state.w[0] - state.w[1], state.c
        value = loss.value((A @ w + c)[:, None], Y) + beta * jnp.sum(jnp.abs(w))
        R = loss.center_dual(state.R[:, None], Y) if free_bias else state.R[:, None]
        limit = beta / jnp.maximum(jnp.max(jnp.abs(A.T @ R)), jnp.finfo(dtype).tiny)
        bound = loss.dual_value(loss.best_scaling(R, Y, limit) * R, Y)
        better, stronger = value < best.objective, bound > best.bound
        return LassoFit(
            jnp.where(better, w, best.weights),
            jnp.where(better, c, best.bias),
            jnp.where(stronger, R[:, 0], best.R),
            jnp.where(better, value, best.objective),
            jnp.where(stronger, bound, best.bound),
        )

    def newton(state: _Iterate) -> Callable[[Array, Array], _Iterate]:
        """A solver for the Newton system at ``state``: from targets of the complementarity products to a direction."""
        diagonal = state.z[0] / state.room[0] + state.z[1] / state.room[1]
        if curved:
            diagonal = diagonal + jax.jvp(slope, (state.R,), (jnp.ones_like(state.R),))[1]
        E = diagonal + jnp.finfo(dtype).tiny
        ratio = state.w / state.slack
        D = ratio[0] + ratio[1]
        B = (A * jnp.sqrt(D)) / jnp.sqrt(E)[:, None]
        gram = B @ B.T if n <= m else B.T @ B
        side = 1 / jnp.sqrt(1 + jnp.diagonal(gram))
        unit = side[:, None] * gram * side + jnp.diag(side**2 + len(gram) * eps)
        factor = cho_factor(unit)
        scale = side / jnp.sqrt(E) if n <= m else side * jnp.sqrt(D)

        def rough(g, h):
            if n <= m:
                x = scale * cho_solve(factor, scale * (g + A @ (D * h)))
                return x, D * (A.T @ x - h)
            q = scale * cho_solve(factor, scale * (A.T @ (g / E) - h))
            return (g - A @ q) / E, q

        def solve(g):
            """x and q with E x + A q = g and A^T x = q / D; refining both equations keeps digits where D is large."""
            x, q = rough(g, jnp.zeros(m, dtype))
            for _ in range(_REFINE):
                dx, dq = rough(g - E * x - A @ q, q / D - A.T @ x)
                x, q = x + dx, q + dq
            return x, q

        ones = solve(jnp.ones(n, dtype))
        price = A.T @ state.R
        gap = jnp.stack([price, -price]) + state.slack - beta  # residual of the slacks' definition
        dual = slope(state.R) + A @ (state.w[0] - state.w[1]) - state.z[0] + state.z[1] + state.c

        def direction(target_w, target_z):
            pull = target_w / state.slack - state.w + ratio * gap
            push = target_z / state.room - state.z
            dR, q = solve(-dual - A @ (pull[0] - pull[1]) + push[0] - push[1])
            dc = jnp.zeros((), dtype)
            if free_bias:
                dc = (jnp.sum(dR) + jnp.sum(state.R)) / jnp.sum(ones[0])
                dR, q = dR - dc * ones[0], q - dc * ones[1]
            moved = jnp.stack([q / D, -q / D])
            dw = pull + ratio * moved
            room = jnp.stack([dR, -dR])
            dz = push - state.z / state.room * room
            return _Iterate(dR, -gap - moved, room, dw, dz, dc)

        return direction

    def longest(now, change):
        """The largest step <= 1 that keeps positive numbers positive."""
        return jnp.minimum(1.0, jnp.min(jnp.where(change < 0, -now / jnp.where(change < 0, change, 1.0), jnp.inf)))

    def lengths(state, d):
        primal = jnp.minimum(longest(state.slack, d.slack), longest(state.room, d.room))
        dual = jnp.minimum(longest(state.w, d.w), longest(state.z, d.z))
        both = jnp.minimum(primal, dual)
        return (both, both) if curved else (primal, dual)

    def products(state):
        return jnp.sum(state.slack * state.w) + jnp.sum(state.room * state.z)

    def move(state, d, primal, dual):
        return _Iterate(
            state.R + primal * d.R,
            state.slack + primal * d.slack,
            state.room + primal * d.room,
            state.w + dual * d.w,
            state.z + dual * d.z,
            state.c + dual * d.c,
        )

    count = 2 * (n + m)

    def step(carry):
        state, best, number, stalled = carry
        direction = newton(state)
        mu = products(state) / count
        affine = direction(0.0 * state.w, 0.0 * state.z)
        ahead = products(move(state, affine, *lengths(state, affine))) / count
        sigma = jnp.clip((ahead / mu) ** 3, 1e-6, 1.0)
        d = direction(sigma * mu - affine.slack * affine.w, sigma * mu - affine.room * affine.z)
        primal, dual = (jnp.minimum(1.0, 0.995 * t) for t in lengths(state, d))
        new = move(state, d, primal, dual)
        new = new._replace(room=jnp.maximum(jnp.stack([new.R - low, high - new.R]), eps * eps * width))
        finite = jnp.all(jnp.isfinite(new.R)) & jnp.all(jnp.isfinite(new.w)) & jnp.isfinite(new.c)
        found = measure(new, best)
        # Early on the weights may miss the targets by much while the products still fall.
        early = (count * mu > tol * jnp.abs(best.objective)) & (jnp.maximum(primal, dual) > 1e-6)
        progress = early | ((best.objective - best.bound) > 1.1 * (found.objective - found.bound))
        stalled = jnp.where(finite, jnp.where(progress, 0, stalled + 1), _PATIENCE)
        new, found = (
            jax.tree.map(lambda a, b: jnp.where(finite, a, b), x, y) for x, y in ((new, state), (found, best))
        )
        return new, found, number + 1, stalled

    def unfinished(carry):
        _, best, number, stalled = carry
        gap = (best.objective - best.bound) / jnp.maximum(jnp.abs(best.objective), jnp.finfo(dtype).tiny)
        return (gap > tol) & (number < max_steps) & (stalled < _PATIENCE)

    R = 0.5 * (low + high)
    nothing = jnp.zeros(m, dtype)
    value = loss.value(0 * Y, Y)
    first = LassoFit(nothing, jnp.zeros((), dtype), 0 * y, value, loss.dual_value(0 * Y, Y))
    price = A.T @ R
    slack = jnp.maximum(beta - jnp.stack([price, -price]), 0.1 * beta)
    room = jnp.stack([R - low, high - R])
    mu = jnp.maximum(value - first.bound, jnp.finfo(dtype).tiny) / count
    start = _Iterate(R, slack, room, mu / slack, mu / room, jnp.zeros((), dtype))
    return jax.lax.while_loop(unfinished, step, (start, first, 0, 0))[1]
