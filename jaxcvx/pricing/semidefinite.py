"""An upper bound on the pricing problem over ALL neurons, without cells, by a semidefinite relaxation.

    M = max_{||u|| <= 1} ||R^T s||,   s = (Z u)_+

With a = s - Z u, the rectifier is equivalent to s >= 0, a >= 0 and s_i a_i = 0. Replace x = (u, s) by the matrix
X = x x^T, let the rows of L be the linear forms s_i and a_i, and keep the constraints that are linear in X:

    max <R R^T, X_ss>   s.t.   X >= 0 (semidefinite),  tr X_uu <= 1,  L X L^T >= 0 (entrywise),  s_i a_i = 0.

For one output, +R and -R are bounded separately. This allows another form in L, +-R^T s >= 0, which makes the bound
exact or nearly exact on small data. (The copositive view of the training problem: Prakhya, Birdal and Yurtsever 2025.)

Every multiplier matrix gives a valid bound. For Lambda symmetric, >= 0 except on the pairs (s_i, a_i):

    ||R^T s||^2 <= x^T (C + L^T Lambda L) x <= t ||u||^2    if   S = t E_u - C - L^T Lambda L is semidefinite,

Because mu (s_i^2 - s_i z_i u) = 0 for the pairs, this term can be added until S_ss is definite; then the least t is an
eigenvalue of a p x p Schur complement. So ADMM supplies Lambda, and the bound is the least t for it. A negative
smallest eigenvalue of S at that t, and its rounding, are added to t, times the trace bound ||x||^2 <= 1 + ||Z||^2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divisor

Scalar = Float[Array, ""]

MAX_ORDER = 220  # of the semidefinite matrix; each ADMM step solves an eigenvalue problem of this order

_RELAX = 1.6
_CHECK_EVERY = 25
_PATIENCE = 10


class _Lift(NamedTuple):
    """Scaled data: rows of unit norm divided by ||Z||, so that ||s|| <= 1, and C of norm 1."""

    rows: Float[Array, "N p"]
    C: Float[Array, "N N"]
    forms: Float[Array, "k pN"]  # L
    scale: Scalar  # M of the data over M of the scaled data


class _State(NamedTuple):
    semidefinite: Float[Array, "pN pN"]
    nonnegative: Float[Array, "k k"]
    dual_semidefinite: Float[Array, "pN pN"]  # scaled multipliers
    dual_nonnegative: Float[Array, "k k"]
    rho: Scalar


class _Best(NamedTuple):
    t: Scalar
    multipliers: Float[Array, "k k"]
    shift: Scalar


def _lift(Z: Array, R: Array, signed: bool) -> _Lift:
    norms = jnp.linalg.norm(Z, axis=1)
    R = R * norms[:, None]
    unit = Z / divisor(norms)[:, None]
    top, size = jnp.linalg.norm(unit, ord=2), jnp.linalg.norm(R, ord=2)
    rows = unit / divisor(top)
    R = R / divisor(size)
    N, p = Z.shape
    eye = jnp.eye(N, dtype=Z.dtype)
    forms = jnp.block([[jnp.zeros_like(rows), eye], [-rows, eye]])
    if signed:
        forms = jnp.concatenate([forms, jnp.pad(R.T, ((0, 0), (p, 0)))])
    return _Lift(rows, R @ R.T, forms, top * size)


def _pairs(lift: _Lift) -> Array:
    """True at the entries of L X L^T that the rectifier sets to zero: s_i a_i."""
    N, k = lift.rows.shape[0], lift.forms.shape[0]
    i = jnp.arange(N)
    return jnp.zeros((k, k), bool).at[i, i + N].set(True).at[i + N, i].set(True)


def _slack(lift: _Lift, multipliers: Array, t: Array, shift: Array) -> Float[Array, "pN pN"]:
    """S = t E_u - C - L^T Lambda L, with ``shift`` times s_i^2 - s_i z_i u added for every i."""
    N, p = lift.rows.shape
    cross = -0.5 * shift * lift.rows.T
    added = jnp.block([[t * jnp.eye(p), cross], [cross.T, shift * jnp.eye(N) - lift.C]])
    return added - lift.forms.T @ multipliers @ lift.forms


def _repair(lift: _Lift, multipliers: Array) -> tuple[Scalar, Scalar]:
    """The least t over a few shifts such that S is semidefinite up to rounding, and its shift."""
    p = lift.rows.shape[1]
    zero = jnp.zeros((), lift.C.dtype)
    S = _slack(lift, multipliers, zero, zero)
    values, vectors = jnp.linalg.eigh(S[p:, p:])
    cross, rows = S[:p, p:] @ vectors, lift.rows.T @ vectors
    needed = jnp.maximum(-values[0], 0.0)
    smallest = 0.5 * jnp.log10(jnp.finfo(S.dtype).eps)

    def least(extra):
        shift = needed * (1 + 1e-6) + extra
        side = cross - 0.5 * shift * rows
        return jnp.linalg.eigvalsh((side / (values + shift)) @ side.T - S[:p, :p])[-1], shift

    t, shifts = jax.vmap(least)(10.0 ** jnp.linspace(smallest, 1.0, 14))
    best = jnp.nanargmin(t)
    return t[best], shifts[best]


def _proved(lift: _Lift, best: _Best) -> Scalar:
    """A valid bound: t plus the most that a negative smallest eigenvalue of S, and rounding in S, can add."""
    S = _slack(lift, best.multipliers, best.t, best.shift)
    size = jnp.linalg.norm(S) + jnp.linalg.norm(lift.forms, ord=2) ** 2 * jnp.linalg.norm(best.multipliers)
    rounding = 4 * S.shape[0] * jnp.finfo(S.dtype).eps * size
    return best.t + 2.0 * jnp.maximum(rounding - jnp.linalg.eigvalsh(S)[0], 0.0)


def _bound_square(lift: _Lift, floor: Scalar, max_steps: int, tol: float) -> Scalar:
    """Bound on M^2 of the scaled data. The iteration stops at ``floor``, or when the bound no longer falls."""
    L, dtype = lift.forms, lift.C.dtype
    p = lift.rows.shape[1]
    pairs = _pairs(lift)
    curvature, basis = jnp.linalg.eigh(L.T @ L)
    denominator = 1 + curvature[:, None] * curvature[None, :]

    def solve(T):  # X + (L^T L) X (L^T L) = T
        return basis @ ((basis.T @ T @ basis) / denominator) @ basis.T

    C = jnp.pad(lift.C, ((p, 0), (p, 0)))
    trace_form = solve(jnp.diag((jnp.arange(C.shape[0]) < p).astype(dtype)))

    def step(state: _State) -> tuple[_State, Scalar, Scalar]:
        Q, W, A, B, rho = state
        X = solve(Q - A + L.T @ (W - B) @ L + C / rho)
        excess = jnp.trace(X[:p, :p]) - 1
        X = X - excess / jnp.trace(trace_form[:p, :p]) * trace_form
        forms = L @ X @ L.T
        A = _RELAX * X + (1 - _RELAX) * Q + A
        B = _RELAX * forms + (1 - _RELAX) * W + B
        values, vectors = jnp.linalg.eigh(0.5 * (A + A.T))
        Q_new = (vectors * jnp.maximum(values, 0.0)) @ vectors.T
        W_new = jnp.where(pairs, 0.0, jnp.maximum(B, 0.0))
        primal = jnp.sum((X - Q_new) ** 2) + jnp.sum((forms - W_new) ** 2)
        dual = rho**2 * (jnp.sum((Q_new - Q) ** 2) + jnp.sum((W_new - W) ** 2))
        return _State(Q_new, W_new, A - Q_new, B - W_new, rho), primal, dual

    def block(carry):
        state, best, stalled, count = carry
        state = jax.lax.fori_loop(0, _CHECK_EVERY - 1, lambda _, s: step(s)[0], state)
        state, primal, dual = step(state)
        signed = -state.rho * state.dual_nonnegative
        multipliers = jnp.where(pairs, signed, jnp.maximum(signed, 0.0))
        t, shift = _repair(lift, 0.5 * (multipliers + multipliers.T))
        better = t < best.t
        stalled = jnp.where(t < best.t * (1 - tol), 0, stalled + 1)
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), _Best(t, multipliers, shift), best)
        factor = jnp.where(primal > 100 * dual, 2.0, jnp.where(dual > 100 * primal, 0.5, 1.0))
        factor = jnp.where(count < max_steps // 2, factor, 1.0)
        state = state._replace(
            dual_semidefinite=state.dual_semidefinite / factor,
            dual_nonnegative=state.dual_nonnegative / factor,
            rho=state.rho * factor,
        )
        return state, best, stalled, count + _CHECK_EVERY

    def going(carry):
        _, best, stalled, count = carry
        return (count < max_steps) & (stalled < _PATIENCE) & (best.t > floor * (1 + tol))

    forms, lifted = jnp.zeros_like(pairs, dtype), jnp.zeros_like(C)
    start = _State(lifted, forms, lifted, forms, jnp.full((), 2.0, dtype))
    t, shift = _repair(lift, forms)
    best = _Best(t, forms, shift)
    return _proved(lift, jax.lax.while_loop(going, block, (start, best, 0, 0))[1])


def relaxation_order(num_rows: int, num_weights: int) -> int:
    """Order of the semidefinite matrix for Z of that shape."""
    return num_rows + min(num_rows, num_weights)


def semidefinite_dual_norm(
    Z: Float[Array, "N p"],
    R: Float[Array, "N q"],
    *,
    floor: Scalar | float = 0.0,
    max_steps: int = 1_000,
    tol: float = 1e-3,
) -> Scalar:
    """Upper bound on ``max ||R^T (Z u)_+||`` over ALL unit u. It is valid after any number of steps; more tighten it.

    A step costs an eigenvalue problem of order N + min(N, p) and a few products of that size. One output costs twice as
    much, because its two signs are bounded separately. Meant for orders up to MAX_ORDER on a CPU. Works under jit.

    Args:
      Z: (N, p) feature rows.
      R: (N, q) lifted residual.
      floor: a known lower bound on the maximum; the iteration stops when the bound reaches it.
      max_steps: limit on ADMM steps.
      tol: relative precision (of the square) at which the iteration stops.
    """
    signed = R.shape[1] == 1
    if Z.shape[1] > Z.shape[0]:  # only the part of u in the span of the rows counts
        Z = jnp.linalg.qr(Z.T)[1].T

    def bound_of(R):
        lift = _lift(Z, R, signed)
        square = _bound_square(lift, (floor / divisor(lift.scale)) ** 2, max_steps, tol)
        return lift.scale * jnp.sqrt(jnp.maximum(square, 0.0))

    bound = jnp.max(jax.lax.map(bound_of, jnp.stack([R, -R]))) if signed else bound_of(R)
    return bound * (1 + 64 * jnp.finfo(R.dtype).eps)
