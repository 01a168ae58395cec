"""Exact pricing in O(n log n) for neurons with one degree of freedom: a sweep over their kinks with running sums.

There are two cases.

* Samples on a line (one feature, or rank-one data) with free biases. A neuron is a sign and the position of its kink.
  Between samples its price is a convex function of this position, so the best kink is at a sample.
* Feature rows of rank two without free biases, for example one feature and a penalised bias. A neuron is an angle. The
  active rows change at 2N angles; between two of them the best neuron is a singular vector or an end of the arc.

Sorting is done once, on the host. Prices are then a few cumulative sums.

Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22 (2021),
lemma 6 and corollary 5, for the extreme points on a line.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcvx.pricing.base import Priced, neuron_values


class Line(NamedTuple):
    """Samples on a line, in order.

    Attributes:
      order: (n,) indices of the samples, by position on the line.
      place: (n,) positions in that order, centred.
      direction: (d,) unit vector of the line.
      middle: (d,) the samples' mean.
    """

    order: Int[Array, n]
    place: Float[Array, n]
    direction: Float[Array, d]
    middle: Float[Array, d]


class Plane(NamedTuple):
    """Rows of rank at most two, with the 2N angles at which a row becomes active or inactive.

    Attributes:
      basis: (p, 2) orthonormal basis of a plane that contains the rows.
      angle: (2N,) the angles in rising order.
      row: (2N,) the row that changes at each angle.
      change: (2N,) +1 if the row becomes active, -1 if it becomes inactive.
      first: (N,) 1 for the rows that are active on the arc between the last angle and the first.
    """

    basis: Float[Array, "p 2"]
    angle: Float[Array, M]
    row: Int[Array, M]
    change: Float[Array, M]
    first: Float[Array, N]


def rank_of(rows: np.ndarray) -> int:
    """Numerical rank in float64."""
    size = np.linalg.svd(rows, compute_uv=False)
    return int((size > max(rows.shape) * np.finfo(np.float64).eps * size.max(initial=0.0)).sum())


def sort_line(X: np.ndarray) -> Line:
    """Order samples (n, d) whose differences have rank at most one. Runs on the host."""
    middle = X.mean(axis=0)
    direction = np.linalg.svd(X - middle, full_matrices=False)[2][0]
    place = (X - middle) @ direction
    order = np.argsort(place, kind="stable")
    return Line(jnp.asarray(order), *(jnp.asarray(a) for a in (place[order], direction, middle)))


def sort_plane(Z: np.ndarray) -> Plane:
    """Order the angles of rows (N, p) of rank at most two. Runs on the host."""
    right = np.linalg.svd(Z, full_matrices=False)[2]
    other = np.eye(1, Z.shape[1])[0] if len(right) < 2 else right[1]
    basis = np.linalg.qr(np.stack([right[0], other], axis=1))[0] if Z.shape[1] > 1 else np.eye(1, 2)
    inner = Z @ basis
    turn = np.arctan2(inner[:, 1], inner[:, 0])
    events = np.concatenate([turn - np.pi / 2, turn + np.pi / 2]) % (2 * np.pi)
    order = np.argsort(events, kind="stable")
    num = len(Z)
    before = 0.5 * (events[order[0]] + events[order[-1]] - 2 * np.pi)  # inside the last arc
    on = inner @ np.array([np.cos(before), np.sin(before)]) > 0
    change = np.where(order < num, 1.0, -1.0)
    return Plane(*(jnp.asarray(a) for a in (basis, events[order], order % num, change, on.astype(np.float64))))


def _upper(best: Array, rows: Array, R: Array) -> Array:
    """The largest price with an allowance for the rounding of the sums."""
    eps = float(jnp.finfo(R.dtype).eps)
    return best * (1 + max(1e-10, 64 * eps)) + 32 * eps * jnp.linalg.norm(R) * jnp.linalg.norm(rows)


@functools.partial(jax.jit, static_argnames="num")
def price_line(line: Line, Z: Float[Array, "n p"], R: Float[Array, "n q"], *, num: int = 1) -> Priced:
    """The best neurons (u, b) with ||u|| = 1 and any b, one for each local maximum over the kinks.

    Args:
      line: the order of the samples, from :func:`sort_line`.
      Z: (n, d + 1) rows with their column of ones.
      R: (n, q) residual. Its columns must sum to zero, else the price is unbounded in b.
      num: number of neurons wanted.

    Returns:
      ``Priced``. Its ``upper`` is the maximum plus an allowance for rounding.
    """
    r = R[line.order]
    gap = jnp.diff(line.place)[:, None]
    zero = jnp.zeros((1, r.shape[1]), r.dtype)
    below = jnp.cumsum(r, axis=0)[:-1]  # sums over samples up to k
    left = jnp.concatenate([zero, jnp.cumsum(gap * below, axis=0)])  # sum_i r_i (t_k - t_i)_+
    above = jnp.cumsum(r[::-1], axis=0)[::-1][1:]
    right = jnp.concatenate([jnp.cumsum((gap * above)[::-1], axis=0)[::-1], zero])  # sum_i r_i (t_i - t_k)_+
    price = jnp.linalg.norm(jnp.stack([right, left]), axis=2)  # (2, n)
    edge = jnp.full((2, 1), -1.0, r.dtype)
    peak = (price > jnp.concatenate([edge, price[:, :-1]], axis=1)) & (
        price >= jnp.concatenate([price[:, 1:], edge], axis=1)
    )
    peaks, best = jax.lax.top_k(jnp.where(peak, price, 0.0).reshape(-1), min(num, price.size))
    sign = jnp.where(best < len(r), 1.0, -1.0).astype(r.dtype)[:, None]
    u = sign * line.direction
    b = -sign[:, 0] * (line.place[best % len(r)] + line.direction @ line.middle)
    directions = jnp.concatenate([u, b[:, None]], axis=1)
    values = jnp.where(peaks > 0, neuron_values(Z, R, directions), 0.0)
    apart = Z[:, :-1] - line.middle
    outside = jnp.linalg.norm(R) * jnp.linalg.norm(apart - jnp.outer(apart @ line.direction, line.direction))
    return Priced(directions, values, _upper(jnp.max(price), line.place, R) + 2 * outside * len(R) ** 0.5)


@functools.partial(jax.jit, static_argnames="num")
def price_plane(plane: Plane, Z: Float[Array, "N p"], R: Float[Array, "N q"], *, num: int = 1) -> Priced:
    """The best unit neurons, one for each local maximum over the angles.

    Args:
      plane: the angles of the rows, from :func:`sort_plane`.
      Z: (N, p) rows of rank at most two.
      R: (N, q) lifted residual.
      num: number of neurons wanted.

    Returns:
      ``Priced``. Its ``upper`` is the maximum plus an allowance for rounding.
    """
    inner = Z @ plane.basis
    terms = inner[:, :, None] * R[:, None, :]  # (N, 2, q)
    start = jnp.einsum("n,ndq->dq", plane.first, terms)
    G = start + jnp.cumsum(plane.change[:, None, None] * terms[plane.row], axis=0)  # of the arc after each angle
    width = jnp.diff(plane.angle, append=plane.angle[:1] + 2 * jnp.pi)
    top, size = _top_angle(G)
    inside = jnp.stack([(top - plane.angle) % (2 * jnp.pi), (top + jnp.pi - plane.angle) % (2 * jnp.pi)])
    inside = jnp.where(inside <= width, inside, jnp.inf)
    within = jnp.min(inside, axis=0)
    peak = jnp.where(jnp.isfinite(within), size, 0.0)
    ends = jnp.linalg.norm(jnp.einsum("kdq,kd->kq", G, _unit(plane.angle)), axis=1)
    around = jnp.maximum(jnp.roll(peak, 1), peak), jnp.maximum(jnp.roll(ends, 1), jnp.roll(ends, -1))
    kink = jnp.where((ends >= around[0]) & (ends >= around[1]), ends, 0.0)
    angles = jnp.concatenate([plane.angle + jnp.where(jnp.isfinite(within), within, 0.0), plane.angle])
    maxima, best = jax.lax.top_k(jnp.concatenate([peak, kink]), min(num, 2 * len(peak)))
    directions = _unit(angles[best]) @ plane.basis.T
    values = jnp.where(maxima > 0, neuron_values(Z, R, directions), 0.0)
    outside = jnp.linalg.norm(R) * jnp.linalg.norm(Z - inner @ plane.basis.T)  # rows outside the plane: rounding
    upper = _upper(jnp.maximum(jnp.max(peak), jnp.max(ends)), inner, R)
    return Priced(directions, values, upper + outside)


def _unit(angle: Float[Array, K]) -> Float[Array, "K 2"]:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def _top_angle(G: Float[Array, "K 2 q"]) -> tuple[Float[Array, K], Float[Array, K]]:
    """Angle (up to pi) of the top left singular vector of each G, and its singular value."""
    if G.shape[2] == 1:
        return jnp.arctan2(G[:, 1, 0], G[:, 0, 0]), jnp.linalg.norm(G[:, :, 0], axis=1)
    a, b = jnp.sum(G[:, 0] ** 2, axis=1), jnp.sum(G[:, 1] ** 2, axis=1)
    c = jnp.sum(G[:, 0] * G[:, 1], axis=1)
    largest = 0.5 * (a + b) + jnp.hypot(0.5 * (a - b), c)
    return 0.5 * jnp.arctan2(2 * c, a - b), jnp.sqrt(largest)
