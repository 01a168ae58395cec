"""An upper bound on the pricing problem of one output by a semidefinite relaxation of order p, under row signs.

    h(u) = sum_i r_i (z_i^T u)_+ ,   M = max h(u) over ||u|| <= 1 and f_j^T u >= 0 for all j in S

S holds rows whose sign is fixed, f_j = +-z_j. The other rows are open. For all numbers kappa_i > 0, 0 <= mu_i <= 1,
a_j >= 0, lambda_jk >= 0, and vectors y_j with ||y_j|| <= rho_j, these inequalities hold on the node:

    r_i > 0:  (t)_+ = (t + |t|) / 2 <= t / 2 + t^2 / (4 kappa_i) + kappa_i / 4,  as 2 |t| <= t^2 / kappa_i + kappa_i,
    r_i < 0:  (t)_+ >= mu_i t,
    0 <= a_j f_j^T u,   0 <= lambda_jk (f_j^T u) (f_k^T u),   0 <= (f_j^T u) (rho_j + y_j^T u).

Their sum bounds h by a quadratic c_0 + b^T u + u^T A u. The maximum of the quadratic over the ball is at most

    c_0 + lam + b^T (lam I - A)^{-1} b / 4    for every lam >= 0 above the largest eigenvalue of A.

So every choice of the multipliers gives a bound. The best bound is the value of a semidefinite program in (u, U),
where [[1, u^T], [u, U]] is semidefinite, tr U <= 1 and kappa_i^2 = z_i^T U z_i. Its solutions have a small rank
(measured: 2 or 3 without fixed signs). Therefore :mod:`jaxcvx.pricing.reduced_barrier` solves it in a subspace, which
follows the leading eigenvectors of A until the bound meets the value in the subspace.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcvx.pricing.reduced_barrier import Moments, Multipliers, Rows, Schedule, Signs, climb, split_rows
from jaxcvx.pricing.row_scaling import EPS

TOLERANCE = 4e-3  # distance between bound and value at which the rounds end, for M near 1
_BARRIER, _KINK, _ERROR = 0.075, 0.5, 5.0  # accuracies of a round over the tolerance; these and the next are measured
_PENALTY = 1.0  # first limit on the multipliers of fixed signs
_HARDER = 4.0  # its factor in the next round where it is too small
_STEPS = 25  # Newton steps of a round
_ROUNDS = 6
_SURPLUS = 0.2  # distance of bound and value that is enough, over the value's distance from the level
_SHARE = 0.5  # of the tolerance that inaccuracy may take, and neurons outside of the subspace
_FINER = 0.2  # factor of the accuracies of the next round where the inaccuracy takes more
_MIX = 0.05  # share of the uniform distribution in the point at which a round starts
_LIFT = 0.01  # added to the eigenvalues of its multiplier
_WIDTH = 5  # of the first subspace
_NARROW = 8  # dimension of a parent's subspace above which directions of little mass are dropped
_MORE = 3  # eigenvectors of A in every later subspace
_CONCAVE = 0.2  # weight of rows with r < 0 in the choice of the row to split on
_LEAST_MASS = 1e-3  # of an eigenvector of U that stays in the subspace
_FAR = 5.0  # the share of neurons outside of the subspace, over the tolerance, above which all eigenvectors stay


class Ball(NamedTuple):
    """A proved bound, and the eigenvalues and eigenvectors of A behind it."""

    bound: float
    constant: float  # the bound's part that does not depend on A and b
    values: np.ndarray  # (p,) ascending
    vectors: np.ndarray  # (p, p) columns
    along: np.ndarray  # (p,) b in these coordinates
    u: np.ndarray  # (p,) maximiser of the quadratic, up to directions of A's largest eigenvalue


class NodeBound(NamedTuple):
    """Result of :func:`bound_node`.

    Attributes:
      bound: proved bound on max h over the unit ball and the fixed signs.
      moments: solution of the relaxation in its last subspace.
      value: objective of the relaxation there. More rounds cannot bring the bound below about this number.
      neurons: (k, p) neurons worth trying.
    """

    bound: float
    moments: Moments
    value: float
    neurons: np.ndarray


def ball_bound(rows: Rows, signs: Signs, given: Multipliers) -> Ball:
    """Proved bound from any multipliers: kappa > 0, 0 <= mu <= 1, a >= 0, pairs >= 0 and all y.

    Rounding: an entry of the computed A sums at most N = n + f^2 + 2 f products, and computed eigenvalues are those of
    a matrix at a distance below 10 p 2^-52 ||A||_F. So with e = (N + 20 p + 50) 2^-52, the exact A is below
    V diag(values) V^T + e T I, where T sums the norms of A's terms and V is orthogonal. The error of V^T b is below
    e B in every entry, where B sums the lengths of b's terms. Hence lam + e T and |V^T b| + e B replace lam and V^T b.
    All terms of the last sum are >= 0, and its rounding is below (n + p + 10) 2^-52 times the sum.
    """
    positive, negative, F, counted = split_rows(rows, signs)
    Z, r = rows.directions, rows.weights
    (n, p), f = Z.shape, len(F)
    above, below = r[positive], -r[negative]
    quadratic = above / (4 * given.kappa)
    A = (Z[positive] * quadratic[:, None]).T @ Z[positive]
    b = (above / 2) @ Z[positive] - (below * given.mu) @ Z[negative] + counted @ Z[signs.row]
    total = quadratic.sum()
    size = above.sum() / 2 + below.sum() + np.abs(counted).sum()
    if f:
        rho = np.linalg.norm(given.y, axis=1) * (1 + 4 * (p + 4) * EPS)
        halves = np.zeros((f, f))
        halves[np.triu_indices(f, 1)] = given.pairs / 2
        half = F.T @ ((halves + halves.T) @ F / 2 + given.y / 2)
        A = A + half + half.T
        b = b + (given.a + rho) @ F
        total += given.pairs.sum() + rho.sum()
        size += given.a.sum() + rho.sum()
    values, vectors = np.linalg.eigh(A)
    allowance = (n + f * f + 2 * f + 20 * p + 50) * EPS
    along = vectors.T @ b
    beta = np.abs(along) + allowance * size
    lam = _minimiser(values, beta / 2)
    constant = float(above @ given.kappa / 4 + allowance * total)
    bound = constant + lam + np.sum(beta**2 / (lam - values)) / 4
    u = vectors @ (along / (2 * (lam - values)))
    return Ball(float(bound) * (1 + 2 * (n + p + 10) * EPS), constant, values, vectors, along, u)


def _minimiser(values: np.ndarray, half: np.ndarray) -> float:
    """About the least lam >= 0 above the last (largest) value with ||half / (lam - values)|| <= 1."""
    top = max(float(values[-1]), 0.0)
    least = top + max(1e-13 * float(np.abs(values).max()), 1e-200)
    lam = max(least, float(np.max(values + half)))  # left of it, a single entry exceeds 1
    for _ in range(30):  # Newton's method for 1 / ||half / (lam - values)|| = 1; it rises monotonically
        q = half / (lam - values)
        square = float(q @ q)
        if square <= 1:
            break
        step = (np.sqrt(square) - 1) * square / float(np.sum(q * q / (lam - values)))
        lam += step
        if step <= 1e-9 * lam:
            break
    return lam


def _inside(ball: Ball, P: np.ndarray) -> float:
    """About the bound that the same multipliers would give if all neurons were in the span of P."""
    turn = P.T @ ball.vectors
    values, vectors = np.linalg.eigh((turn * ball.values) @ turn.T)
    half = np.abs(vectors.T @ (turn @ ball.along)) / 2
    lam = _minimiser(values, half)
    return float(ball.constant + lam + np.sum(half**2 / (lam - values)))


def plain_multipliers(rows: Rows, signs: Signs) -> Multipliers:
    """Multipliers of the uniform distribution, without use of the fixed signs."""
    positive, negative, F, _ = split_rows(rows, signs)
    f, p = F.shape
    return Multipliers(
        kappa=np.full(positive.sum(), p**-0.5),
        mu=np.full(negative.sum(), 0.5),
        a=np.zeros(f),
        pairs=np.zeros(f * (f - 1) // 2),
        y=np.zeros((f, p)),
    )


def _next_start(moments: Moments | None, ball: Ball, width: int, least: float = 0.0) -> Moments:
    """A definite point in the span of U's eigenvectors above ``least``, the ball's u, and ``width`` of A's."""
    p = len(ball.u)
    columns = [ball.u[:, None], ball.vectors[:, : -width - 1 : -1]]
    if moments is not None:
        mass, Q = np.linalg.eigh(moments.H)
        columns.insert(0, moments.P @ Q[:, mass > least])
    basis = np.concatenate(columns, axis=1)
    P = np.eye(p) if basis.shape[1] >= p else _orthonormal(basis)
    k = P.shape[1]
    if moments is not None:
        return _moved(moments, P)
    return Moments(P, np.zeros(k), np.eye(k) / (2 * k), np.eye(k + 1))


def _orthonormal(basis: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the columns' span, without directions that depend on others."""
    size = np.linalg.norm(basis, axis=0)
    left, values, _ = np.linalg.svd(basis / np.where(size > 0, size, 1.0), full_matrices=False)
    return left[:, values > 1e-3]


def bound_node(
    rows: Rows, signs: Signs, parent: Moments | None = None, level: float = 0.0, tolerance: float = TOLERANCE
) -> NodeBound:
    """Bound max h over the unit ball and the fixed signs.

    Args:
      rows: scaled rows.
      signs: fixed signs.
      parent: solution of a node without the last of these signs, to start from.
      level: the rounds end as soon as the bound is at most this. Far above a positive level, less accuracy is enough.
      tolerance: distance of the bound from the relaxation's value at which they end.
    """
    if parent is None:
        ball = ball_bound(rows, signs, plain_multipliers(rows, signs))
        start, bound = _next_start(None, ball, _WIDTH), ball.bound
    else:
        start, bound = _widened(parent, rows, signs), np.inf
    schedule = Schedule(_BARRIER * tolerance, _KINK * tolerance, _ERROR * tolerance, _PENALTY, _STEPS)
    for _ in range(_ROUNDS):
        moments, multipliers, value, saturated = climb(rows, signs, start, schedule)
        ball = ball_bound(rows, signs, multipliers)
        bound = min(bound, ball.bound)
        enough = max(tolerance, _SURPLUS * (value - level) if level > 0 else 0.0)
        if bound <= level or (not saturated and bound <= value + enough):
            break
        inside = _inside(ball, moments.P)
        inaccuracy, outside = inside - value, ball.bound - inside
        if outside > _SHARE * tolerance:
            start = _next_start(moments, ball, _MORE, 0.0 if outside > _FAR * tolerance else _LEAST_MASS)
        else:
            start = _moved(moments, moments.P)
        if saturated and outside <= _FAR * tolerance:  # otherwise a larger subspace may be what is needed
            schedule = schedule._replace(penalty=schedule.penalty * _HARDER)
        elif inaccuracy > _SHARE * tolerance:
            eps, tau, error = (_FINER * accuracy for accuracy in (schedule.eps, schedule.tau, schedule.error))
            schedule = schedule._replace(eps=eps, tau=tau, error=error)
        elif outside <= _SHARE * tolerance:
            break
    Q = np.linalg.eigh(moments.H)[1]
    neurons = np.stack([moments.P @ moments.w, moments.P @ Q[:, -1], ball.u])
    return NodeBound(bound, moments, value, neurons)


def _widened(parent: Moments, rows: Rows, signs: Signs) -> Moments:
    """The parent's solution, in a subspace of its main directions and the last fixed row."""
    P = parent.P
    if P.shape[1] > _NARROW:
        mass, Q = np.linalg.eigh(parent.H)
        P = P @ Q[:, mass > min(_LEAST_MASS, float(mass[-_NARROW]))]
    if P.shape[1] < len(P):
        P = _orthonormal(np.concatenate([P, rows.directions[signs.row[-1:]].T], axis=1))
    return _moved(parent, P)


def _moved(moments: Moments, P: np.ndarray) -> Moments:
    """A definite point near the given one, in another subspace."""
    k, turn = P.shape[1], P.T @ moments.P
    H = (1 - _MIX) * (turn @ moments.H @ turn.T) + (_MIX / (2 * k)) * np.eye(k)
    whole = np.zeros((k + 1, len(moments.S)))
    whole[0, 0], whole[1:, 1:] = 1.0, turn
    typical = float(np.trace(moments.S)) / len(moments.S)
    outside = np.eye(k + 1) - whole @ whole.T
    S = whole @ moments.S @ whole.T + typical * (outside + outside.T) / 2 + _LIFT * np.eye(k + 1)
    return Moments(P, (1 - _MIX) * (turn @ moments.w), H, S)


def split_row(rows: Rows, signs: Signs, moments: Moments) -> tuple[int, float]:
    """The open row to split on, and the error of the relaxation there.

    A row with r > 0 errs by r (q - |t|) / 2, where q = sqrt(z_i^T U z_i) and t = z_i^T u. The factor q prefers rows
    with large values, and rows with r < 0 count less because only the products of their signs help (measured: half of
    the nodes).
    """
    G = rows.directions @ moments.P
    spread = np.sqrt(np.maximum(np.einsum("ij,ij->i", G @ moments.H, G), 0.0))
    error = np.abs(rows.weights) * (spread - np.abs(G @ moments.w)) / 2
    score = error * spread * np.where(rows.weights > 0, 1.0, _CONCAVE)
    score[signs.row] = -np.inf
    row = int(score.argmax())
    return row, float(error[row]) if np.isfinite(score[row]) else 0.0
