"""Barrier method for the reduced relaxation of the pricing problem, in a subspace of neurons. Runs on the host.

With u = P w, U = P H P^T for orthonormal columns P, fixed signs f_j^T u >= 0 and open rows i, it approaches

  max  sum_{f_j = z_j} r_j z_j^T u + sum_{r_i > 0} r_i/2 (z_i^T u + sqrt(z_i^T U z_i)) + sum_{r_i < 0} r_i (z_i^T u)_+
  s.t. [[1, u^T], [u, U]] semidefinite, tr U <= 1, f_j^T u >= 0, f_j^T U f_k >= 0, ||U f_j|| <= f_j^T u.

The three families of sign constraints are penalised by a multiple of their violation, so every point with a
definite matrix is feasible. Kinks t_- = max(-t, 0) are smoothed to (sqrt(t^2 + tau^2) - t) / 2. The semidefinite
constraint has a multiplier S with S Y = eps I, and Newton steps follow the decreasing eps and tau (primal-dual interior
point method, Helmberg et al. 1996, Kojima et al. 1997). The slopes at the last point are the multipliers of
:func:`jaxcvx.pricing.reduced_relaxation.ball_bound`. That bound is valid for all multipliers, so nothing here needs to
converge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_SATURATED = 0.9  # share of a multiplier's limit at which the limit counts as too small
_LEAST = 1e-5  # sqrt(z^T U z) is smoothed to sqrt(z^T U z + _LEAST^2)


class Rows(NamedTuple):
    """Rows of about unit length, and weights r_i ||z_i|| scaled so that M is near 1."""

    directions: np.ndarray  # (n, p)
    weights: np.ndarray  # (n,)


class Signs(NamedTuple):
    """Fixed signs of a node."""

    row: np.ndarray  # (f,) numbers of rows
    sign: np.ndarray  # (f,) +1 or -1


class Multipliers(NamedTuple):
    """Multipliers of a node. kappa belongs to the open rows with r > 0, mu to those with r < 0."""

    kappa: np.ndarray
    mu: np.ndarray
    a: np.ndarray  # (f,) of f_j^T u >= 0
    pairs: np.ndarray  # (f (f - 1) / 2,) of f_j^T U f_k >= 0, in the order of numpy.triu_indices
    y: np.ndarray  # (f, p) of ||U f_j|| <= f_j^T u


class Moments(NamedTuple):
    """A point u = P w, U = P H P^T of the relaxation."""

    P: np.ndarray  # (p, k) orthonormal columns
    w: np.ndarray  # (k,)
    H: np.ndarray  # (k, k)
    S: np.ndarray  # (k + 1, k + 1) multiplier of [[1, w^T], [w, H]]


class Schedule(NamedTuple):
    """Accuracy and limits of :func:`climb`."""

    eps: float  # last weight of the barriers
    tau: float  # last smoothing of kinks
    error: float  # norm of the Lagrangian's gradient at which it ends
    penalty: float  # limit on the multipliers of fixed signs
    steps: int


class _State(NamedTuple):
    x: np.ndarray
    S: np.ndarray  # multiplier of the semidefinite matrix Y
    lam: float  # multiplier of the trace
    v: np.ndarray  # slopes of the kinks: between -1 and 1


class _Cone(NamedTuple):
    """The relaxation in a subspace, in m variables x = (w, upper triangle of H). Y has x at (row, column)."""

    row: np.ndarray
    column: np.ndarray
    double: np.ndarray  # 1 on the diagonal of Y, else 2
    linear: np.ndarray  # (k,)
    above: np.ndarray  # weights of the open rows with r > 0
    squares: np.ndarray  # (., m) z^T U z of these rows as products with x
    hinges: np.ndarray  # (., m) forms whose negative parts cost: open rows with r < 0, fixed rows, pairs of fixed rows
    cost: np.ndarray
    below: int  # number of open rows with r < 0
    penalty: float  # the cost of all but the first of these
    fixed: np.ndarray  # (f, k) f_j in the subspace
    images: np.ndarray  # (f, k, m) H f_j as a product with x


def split_rows(rows: Rows, signs: Signs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Open rows with r > 0, those with r < 0, fixed rows f_j, and r_j where f_j = z_j, else 0."""
    is_open = np.ones(len(rows.weights), bool)
    is_open[signs.row] = False
    fixed = signs.sign[:, None] * rows.directions[signs.row]
    counted = np.where(signs.sign > 0, rows.weights[signs.row], 0.0)
    return is_open & (rows.weights > 0), is_open & (rows.weights < 0), fixed, counted


def _cone(rows: Rows, signs: Signs, P: np.ndarray, penalty: float) -> _Cone:
    positive, negative, fixed, counted = split_rows(rows, signs)
    G, fixed = rows.directions @ P, fixed @ P
    k, f = P.shape[1], len(fixed)
    row, column = (indices[1:] for indices in np.triu_indices(k + 1))
    double = np.where(row == column, 1.0, 2.0)
    m = len(row)
    i, j, numbers = row[k:] - 1, column[k:] - 1, np.arange(k, m)

    def products(E: np.ndarray, F: np.ndarray) -> np.ndarray:
        forms = np.zeros((len(E), m))
        forms[:, k:] = (E[:, i] * F[:, j] + E[:, j] * F[:, i]) * (double[k:] / 2)
        return forms

    below = int(negative.sum())
    first, second = np.triu_indices(f, 1)
    hinges = np.zeros((below + f, m))
    hinges[:below, :k] = -G[negative]
    hinges[below:, :k] = fixed
    images = np.zeros((f, k, m))
    images[:, i, numbers] = fixed[:, j]
    images[:, j, numbers] = fixed[:, i]
    return _Cone(
        row=row,
        column=column,
        double=double,
        linear=(rows.weights[positive] / 2) @ G[positive] + counted @ G[signs.row],
        above=rows.weights[positive],
        squares=products(G[positive], G[positive]),
        hinges=np.concatenate([hinges, products(fixed[first], fixed[second])]),
        cost=np.concatenate([-rows.weights[negative], np.full(2 * f + len(first), penalty)]),
        below=below,
        penalty=penalty,
        fixed=fixed,
        images=images,
    )


def _matrix(cone: _Cone, x: np.ndarray) -> np.ndarray:
    k = cone.linear.size
    Y = np.empty((k + 1, k + 1))
    Y[0, 0] = 1.0
    Y[cone.row, cone.column] = x
    Y[cone.column, cone.row] = x
    return Y


def _kappa(cone: _Cone, x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(cone.squares @ x, 0.0) + _LEAST**2)


def _value(cone: _Cone, x: np.ndarray) -> float:
    """The penalised objective."""
    t = _kinks(cone, x)[0]
    return float(cone.linear @ x[: cone.linear.size] + cone.above @ _kappa(cone, x) / 2 + cone.cost @ np.minimum(t, 0))


def _kinks(cone: _Cone, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All arguments of hinges: the linear ones, then f_j^T u - ||U f_j||; and the vectors U f_j over their lengths."""
    t = cone.hinges @ x
    if not len(cone.fixed):
        return t, np.zeros((0, cone.linear.size))
    images = cone.images @ x
    length = np.sqrt((images * images).sum(axis=1) + _LEAST**2)
    return np.concatenate([t, cone.fixed @ x[: cone.linear.size] - length]), images / length[:, None]


def _smooth_part(cone: _Cone, state: _State, tau: float) -> tuple[np.ndarray, ...]:
    """The objective without barriers: its gradient, that with v as slopes, about minus the Hessian; kinks and theirs.

    The curvature of sqrt(t^2 + tau^2) is (1 - v t / root) / root with v = t / root. Here v is a variable of its own.
    """
    k, x, v = cone.linear.size, state.x, state.v
    gradient = np.zeros_like(x)
    gradient[:k] = cone.linear
    kappa = _kappa(cone, x)
    slope = cone.above / (4 * kappa)
    gradient += slope @ cone.squares
    curvature = (cone.squares * (slope / (2 * kappa**2))[:, None]).T @ cone.squares
    t, units = _kinks(cone, x)
    forms = cone.hinges
    if len(cone.fixed):
        f = len(units)
        pull = np.einsum("fk,fkm->fm", units, cone.images)  # gradient of the length
        gap = -pull
        gap[:, :k] += cone.fixed
        forms = np.concatenate([forms, gap])
        slope = cone.penalty * (1 - v[-f:]) / (2 * (cone.fixed @ x[:k] - t[-f:]))
        flat = cone.images.reshape(-1, len(x))
        curvature += (flat * np.repeat(slope, k)[:, None]).T @ flat - (pull * slope[:, None]).T @ pull
    root = np.sqrt(t * t + tau * tau)
    curvature += (forms * (cone.cost * (1 - v * t / root) / (2 * root))[:, None]).T @ forms
    slopes = np.stack([cone.cost * (1 - t / root) / 2, cone.cost * (1 - v) / 2]) @ forms
    return gradient + slopes[0], gradient + slopes[1], curvature, t, forms


def _newton(cone: _Cone, state: _State, eps: float, tau: float) -> tuple[_State, float, float]:
    """A step of the primal-dual method, the lesser of its two lengths, and the norm of the gradient of the Lagrangian.

    It solves the linearised S Y = eps I, lam room = eps and v sqrt(t^2 + tau^2) = t, with the symmetric part of
    Y^{-1} dY S. The primal point, S with lam, and v have step lengths of their own, short of their boundaries.
    """
    i, j = cone.row, cone.column
    Y, S, lam = _matrix(cone, state.x), state.S, state.lam
    room = 2.0 - np.trace(Y)
    inverse = np.linalg.inv(Y)
    inverse = (inverse + inverse.T) / 2
    gradient, residual, curvature, t, forms = _smooth_part(cone, state, tau)
    diagonal = (i == j).astype(float)
    error = float(np.linalg.norm(residual / cone.double + S[i, j] - lam * diagonal))
    gradient += eps * (cone.double * inverse[i, j] - diagonal / room)
    Yi, Yj, Si, Sj = inverse[i], inverse[j], S[i], S[j]
    scaling = Yi[:, i] * Sj[:, j] + Yj[:, j] * Si[:, i] + Yi[:, j] * Sj[:, i] + Yj[:, i] * Si[:, j]
    curvature += scaling * (cone.double[:, None] * (cone.double / 4))
    curvature += np.outer(diagonal, diagonal * (lam / room))
    dx = np.linalg.solve(curvature, gradient)
    dY = _matrix(cone, dx)
    dY[0, 0] = 0.0
    product = inverse @ dY @ S
    dS = eps * inverse - S - (product + product.T) / 2
    growth = float(np.trace(dY))
    dlam = eps / room - lam + lam * growth / room
    root = np.sqrt(t * t + tau * tau)
    dv = t / root - state.v + (1 - state.v * t / root) / root * (forms @ dx)
    primal = min(_step(Y, dY), _reach(room, -growth))
    dual = min(_step(S, dS), _reach(lam, dlam))
    left = np.maximum(np.where(dv > 0, 1 - state.v, 1 + state.v), 1e-15)  # way to 1 or -1
    turn = _reach(1.0, -float(np.max(np.abs(dv) / left, initial=0.0)))
    new = _State(state.x + primal * dx, S + dual * dS, lam + dual * dlam, state.v + turn * dv)
    return new, min(primal, dual), error


def _reach(value: float, change: float) -> float:
    """Step length at most 1 that leaves a positive value positive."""
    return 1.0 if value + change > 0.05 * value else 0.95 * value / -change


def _step(X: np.ndarray, change: np.ndarray) -> float:
    """Step length at most 1 that leaves X definite."""
    factor = np.linalg.inv(np.linalg.cholesky(X))
    return _reach(1.0, float(np.linalg.eigvalsh(factor @ change @ factor.T)[0]))


def _multipliers(cone: _Cone, P: np.ndarray, x: np.ndarray, v: np.ndarray) -> Multipliers:
    f = len(cone.fixed)
    slope = np.clip((1 - v) / 2, 0.0, 1.0)
    _, units = _kinks(cone, x)
    slope, rho = np.split(slope, [len(slope) - f])
    spare = rho * np.maximum(1 - np.linalg.norm(units, axis=1), 0.0)  # of rho: y is shorter where U f_j is near zero
    return Multipliers(
        kappa=_kappa(cone, x),
        mu=slope[: cone.below],
        a=cone.penalty * (slope[cone.below : cone.below + f] + spare),
        pairs=cone.penalty * slope[cone.below + f :],
        y=-cone.penalty * rho[:, None] * (units @ P.T),
    )


class Climbed(NamedTuple):
    """Result of :func:`climb`: a point, its multipliers, its penalised objective, and if ``penalty`` was too small."""

    moments: Moments
    multipliers: Multipliers
    value: float
    saturated: bool


def climb(rows: Rows, signs: Signs, start: Moments, schedule: Schedule) -> Climbed:
    """A point of the relaxation in the subspace of ``start``, near the optimum if the steps suffice.

    Args:
      rows: scaled rows.
      signs: fixed signs.
      start: a definite point: [[1, w^T], [w, H]] definite, tr H < 1, and a definite S.
      schedule: accuracy and limits.
    """
    P = start.P
    k = P.shape[1]
    cone = _cone(rows, signs, P, schedule.penalty)
    Y = np.zeros((k + 1, k + 1))
    Y[0, 0], Y[0, 1:], Y[1:, 0], Y[1:, 1:] = 1.0, start.w, start.w, start.H
    x = Y[cone.row, cone.column]
    room = 2.0 - np.trace(Y)
    mu = float(np.sum(start.S * Y)) / (k + 1)
    t = _kinks(cone, x)[0]
    ratio = schedule.tau / schedule.eps
    state = _State(x, start.S, mu / room, t / np.sqrt(t * t + (ratio * mu) ** 2))
    share = 0.3
    for _ in range(schedule.steps):
        eps = max(share * mu, schedule.eps)
        try:
            following, length, error = _newton(cone, state, eps, ratio * eps)
        except np.linalg.LinAlgError:
            break
        if not all(np.isfinite(part).all() for part in following):
            break
        state = following
        Y = _matrix(cone, state.x)
        mu = (float(np.sum(state.S * Y)) + state.lam * (2.0 - np.trace(Y))) / (k + 2)
        share = 0.1 if length > 0.8 else 0.3 if length > 0.4 else 0.6
        if mu < 1.5 * schedule.eps and error < schedule.error and length > 0.9:
            break
    moments = Moments(P, state.x[:k], _matrix(cone, state.x)[1:, 1:], state.S)
    saturated = bool(np.any(state.v[cone.below :] < 1 - 2 * _SATURATED))
    return Climbed(moments, _multipliers(cone, P, state.x, state.v), _value(cone, state.x), saturated)
