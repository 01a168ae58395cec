"""Move all neurons within their cells at once, by an interior-point method on the cone program of these cells.

For fixed unit output directions v_j the network is determined by x_j = u_j ||v_j||. In the cells of the given
neurons, with masks M and signs S = 2 M - 1, the training problem is convex:

    min over x, b   loss(lower(sum_j M_j (Z x_j) v_j^T) + 1 b^T, Y) + beta sum_j ||x_j||   subject to   S_j Z x_j >= 0.

First-order steps stall where neurons lie on kinks z_i^T x_j = 0, as they do at an optimum. This method does not. It is
a primal-dual method with slacks s = S Z x and multipliers y, where s y = mu falls to 0. The norms are smoothed by their
barrier: ``min_t beta t - mu log(t^2 - ||x||^2)``. The constraints couple nothing but the weights of one neuron, so
conjugate gradients with one p x p block for each neuron as preconditioner solve the Newton systems in few steps.

Sources: S. Boyd and L. Vandenberghe, "Convex Optimization" (2004), sections 11.6 and 11.7; M. Pilanci and T. Ergen,
"Neural networks are convex regularizers" (2020), for the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.losses.base import Loss
from jaxcvx.numerics.safe import divisor, norm
from jaxcvx.problems.training import Problem, counted_rows

_STEPS = 16  # of the interior-point method
_START, _END = 1e-2, 1e-9  # sum of all s y over the objective, at the first and at the last step
_TO_BOUNDARY = 0.95  # of the way to the boundary of s >= 0 and y >= 0
_LINEAR_STEPS, _LINEAR_TOL = 60, 1e-3  # of conjugate gradients: limit, and relative residual


class Weights(NamedTuple):
    """The unknowns: x (m, p) and the output bias b (c,)."""

    x: Float[Array, "m p"]
    b: Float[Array, c]


class _State(NamedTuple):
    weights: Weights
    slack: Float[Array, "N m"]
    dual: Float[Array, "N m"]
    mu: Float[Array, ""]


def solve_in_cells(
    problem: Problem, x: Float[Array, "m p"], towards: Float[Array, "m q"], b: Float[Array, c], free_bias: bool
) -> Weights:
    """Optimise all hidden weights within their cells, for fixed output directions.

    Args:
      problem: data, a smooth loss, beta.
      x: hidden weights times the norms of the output weights. Zero rows stay zero.
      towards: unit output directions.
      b: output bias.
      free_bias: optimise the bias too.

    Returns:
      The weights after a fixed number of steps. Their signs may differ from those of ``x`` by rounding.
    """
    Z, readout, loss, targets = problem.rows, problem.readout, problem.loss, problem.targets
    unit = counted_rows(problem)
    used = norm(x) > 0
    masks = (Z @ x.T >= 0).astype(Z.dtype)
    counted = norm(unit)[:, None] > 0
    signs = jnp.where(used & counted, 2 * masks - 1, 0.0)  # empty slots and zero rows have no constraints
    count = jnp.maximum(jnp.sum(jnp.abs(signs)), 1.0)

    def predict(w: Weights) -> Array:
        return readout.apply(masks * (Z @ w.x.T), towards) + w.b

    def adjoint(R: Array) -> Weights:
        inner = masks * (readout.lift(R) @ towards.T)
        b = jnp.where(free_bias, _determined(loss, jnp.sum(R, axis=0)), 0.0)
        return Weights(jnp.where(used[:, None], inner.T @ Z, 0.0), b)

    def inward(v: Array) -> Array:
        return signs * (unit @ v.T)

    def outward(y: Array) -> Array:
        return (signs * y).T @ unit

    def step(index: Array, state: _State) -> _State:
        w, s, y, mu = state
        F = predict(w)
        size = norm(w.x, keepdims=True)
        root = jnp.sqrt(mu**2 + (problem.beta * size) ** 2)
        t = (mu + root) / problem.beta
        gradient = adjoint(loss.grad(F, targets))
        slope = gradient.x + problem.beta * w.x / t - outward(y)
        gap = inward(w.x) - s
        right = Weights(-slope + outward((mu - s * y - y * gap) / s), -gradient.b)
        ratio = jnp.where(signs != 0, y / s, 0.0)
        # Hessian of the smoothed norm: a I - c x x^T.
        a, c = problem.beta / t, problem.beta**2 / (t**2 * root)

        def hessian(d: Weights) -> Weights:
            dF = readout.apply(masks * (Z @ d.x.T), towards) + d.b
            curved = adjoint(jax.jvp(lambda G: loss.grad(G, targets), (F,), (dF,))[1])
            normed = a * d.x - c * w.x * jnp.sum(w.x * d.x, axis=1, keepdims=True)
            held = (ratio * (unit @ d.x.T)).T @ unit
            return Weights(jnp.where(used[:, None], curved.x + normed + held, d.x), jnp.where(free_bias, curved.b, d.b))

        D = loss.diagonal_curvature(F, targets)
        rows = readout.gain * jnp.repeat(D, readout.positions, axis=0)  # (N, c)
        squares = jnp.max(towards.reshape(len(towards), -1, D.shape[1]) ** 2, axis=1)
        blocks = jnp.einsum("nm,np,nq->mpq", masks * (rows @ squares.T), Z, Z)
        blocks = blocks + jnp.einsum("nm,np,nq->mpq", ratio, unit, unit)
        blocks = blocks - c[:, :, None] * w.x[:, :, None] * w.x[:, None, :]
        factors = _factors(blocks, a, used)
        total = jnp.sum(D, axis=0)

        def precondition(r: Weights) -> Weights:
            x = jax.scipy.linalg.cho_solve((factors, True), r.x[:, :, None])[:, :, 0]
            return Weights(x, _determined(loss, r.b / divisor(total)))

        d = conjugate_gradients(hessian, precondition, right)
        ds = jnp.where(signs != 0, inward(d.x) + gap, 0.0)
        dy = jnp.where(signs != 0, (mu - s * y - y * ds) / s, 0.0)
        along_s, along_y = (_longest(v, dv) for v, dv in ((s, ds), (y, dy)))
        w = jax.tree.map(lambda v, dv: v + along_s * dv, w, d)
        s, y = s + along_s * ds, y + along_y * dy
        mean = jnp.sum(jnp.where(signs != 0, s * y, 0.0)) / count
        factor = jnp.where(jnp.minimum(along_s, along_y) > 0.7, 0.15, 0.5)
        return _State(w, s, y, jnp.maximum(factor * mean, last))

    value = loss.value(readout.apply(jax.nn.relu(Z @ x.T), towards) + b, targets) + problem.beta * jnp.sum(norm(x))
    first, last = (share * value / count for share in (_START, _END))
    return jax.lax.fori_loop(0, _STEPS, step, _interior(Weights(x, b), inward(x), signs, first)).weights


def _determined(loss: Loss, b: Array) -> Array:
    """Without a part that changes no prediction. There the cross-entropy is flat, and steps would have any length."""
    return b - jnp.mean(b) if loss.kind == "label" else b


def _interior(weights: Weights, inner: Array, signs: Array, mu: Array) -> _State:
    """A state with positive slacks, also for constraints that are tight, and multipliers mu / s."""
    least = 1e-3 * norm(weights.x) + jnp.finfo(inner.dtype).tiny
    slack = jnp.where(signs != 0, jnp.maximum(inner, least), 1.0)
    return _State(weights, slack, jnp.where(signs != 0, mu / slack, 1.0), mu)


def _factors(blocks: Array, a: Array, used: Array) -> Array:
    """Cholesky factors of ``blocks + a I`` (m, p, p), of the identity for empty slots."""
    eye = jnp.eye(blocks.shape[1], dtype=blocks.dtype)
    blocks = blocks + a[:, :, None] * eye
    shift = 1e-12 * jnp.trace(blocks, axis1=1, axis2=2)
    blocks = blocks + shift[:, None, None] * eye
    return jnp.linalg.cholesky(jnp.where(used[:, None, None], blocks, eye))


def _longest(v: Array, dv: Array) -> Array:
    """Length in (0, 1] of a step from v > 0 along dv that keeps v > 0."""
    limit = jnp.min(jnp.where(dv < 0, v / jnp.where(dv < 0, -dv, 1.0), jnp.inf))
    return jnp.minimum(1.0, _TO_BOUNDARY * limit)


def _dot(a: Weights, b: Weights) -> Array:
    return jnp.sum(a.x * b.x) + jnp.sum(a.b * b.b)


def conjugate_gradients(
    hessian: Callable[[Weights], Weights], precondition: Callable[[Weights], Weights], right: Weights
) -> Weights:
    """Solve ``hessian(d) = right`` by preconditioned conjugate gradients, to ``_LINEAR_TOL``."""

    def more(carry):
        _, r, _, rz, count = carry
        return (count < _LINEAR_STEPS) & (_dot(r, precondition(r)) > _LINEAR_TOL**2 * start_rz) & (rz > 0)

    def step(carry):
        d, r, p, rz, count = carry
        Hp = hessian(p)
        curvature = _dot(p, Hp)
        alpha = jnp.where(curvature > 0, rz / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        d = jax.tree.map(lambda a, b: a + alpha * b, d, p)
        r = jax.tree.map(lambda a, b: a - alpha * b, r, Hp)
        z = precondition(r)
        new = jnp.where(curvature > 0, _dot(r, z), 0.0)
        p = jax.tree.map(lambda a, b: a + new / divisor(rz) * b, z, p)
        return d, r, p, new, count + 1

    z = precondition(right)
    start_rz = _dot(right, z)
    start = (jax.tree.map(jnp.zeros_like, right), right, z, start_rz, 0)
    return jax.lax.while_loop(more, step, start)[0]
