"""Upper bounds on a concave-convex function over boxes, from the values of its convex part at all vertices.

For weights a_i of both signs and rows x_i, let ``h(u) = sum_i a_i (x_i u)_+ = P(u) - C(u) + tau |u|`` with

    P(u) = sum over a_i > 0 of a_i (x_i u)_+,      C(u) = sum over a_i < 0 of |a_i| (x_i u)_+ + tau |u|.

C is convex and positively homogeneous. So ``C(u) >= g u`` for every gradient g of C, wherever it is taken, and for
every mean of such gradients. P is convex. Therefore

    max over a box of h(u) - tau |u|  <=  max over its vertices v of P(v) - g v.

The bound is computed for a batch of boxes. Rows whose sign is the same in the whole box go into a linear part. The
others, the live rows, are gathered. The coordinates are split into two halves: the activation of a live row at a vertex
is a sum of two numbers, one for each half. The plane g starts as the gradient at the centre. It then moves two times
towards the gradient at a point nearer to the worst vertex.

The sums over live rows run in float32, everything else in float64. An activation of a live row is at most twice
``D_i = sum_j |x_ij| w_j`` for half widths w, so the allowance for rounding in float32 shrinks with the box.

Source: derived here; R. Horst and H. Tuy, "Global Optimization" (1996), treats such functions.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_ROWS = 16  # live rows summed at a time; XLA compiles fewer to slow code
_STEPS = (1.0, 0.5, 0.25)  # parts of the way from the best plane to a new gradient
_WIDTH = 1e-3  # weight of the width where the error of the plane chooses the coordinate to split


class Bounded(NamedTuple):
    """What is known of a batch of boxes.

    Attributes:
      excess: (B,) bound on h(u) - tau |u| in the box, rounding included.
      value: (B,) the largest h(u) / |u| at the points that were looked at.
      point: (B, d) where.
      split: (B,) the coordinate to split.
      live: (B,) number of live rows.
    """

    excess: Float[Array, B]
    value: Float[Array, B]
    point: Float[Array, "B d"]
    split: Int[Array, B]
    live: Int[Array, B]


def corner_signs(k: int) -> Float[np.ndarray, "V k"]:
    """The 2^k vertices of the cube: bit j of the row's number is coordinate j."""
    return np.where((np.arange(1 << k)[:, None] >> np.arange(k)) & 1, 1.0, -1.0).reshape(1 << k, k)


def rows_without(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "d n+1 d-1"]:
    """The rows without coordinate 0, 1, ..., in float32, with a row of zeros at the end."""
    padded = np.concatenate([rows, np.zeros((1, rows.shape[1]))])
    return np.stack([np.delete(padded, j, axis=1) for j in range(rows.shape[1])]).astype(np.float32)


def _other_coordinates(d: int) -> tuple[np.ndarray, np.ndarray]:
    """For each face: its d - 1 other coordinates; and the place of each coordinate among these, d - 1 for its own."""
    others = np.array([[j for j in range(d) if j != face] for face in range(d)], int)
    places = np.array([[d - 1 if j == face else j - (j > face) for j in range(d)] for face in range(d)], int)
    return others, places


def _sum_of_live(first: Float[Array, "B m a"], second: Float[Array, "B m b"], blocks: Array) -> Float[Array, "B b a"]:
    """The sum over the rows m of the first ``blocks`` blocks of ``(first[:, m, a] + second[:, m, b])_+``."""
    B = len(first)

    def body(i, total):
        a, b = (jax.lax.dynamic_slice_in_dim(x, i * _ROWS, _ROWS, 1) for x in (first, second))
        terms = [jnp.maximum(a[:, j, None, :] + b[:, j, :, None], 0) for j in range(_ROWS)]
        return total + functools.reduce(jnp.add, terms)

    return jax.lax.fori_loop(0, blocks, body, jnp.zeros((B, second.shape[2], first.shape[2]), first.dtype))


_Plane = tuple[Array, ...]  # at the centre, and what each half of the coordinates adds


class _Part(NamedTuple):
    """h(u) - tau |u| split into a convex and a concave part, for a batch of boxes."""

    rows: Float[Array, "n d"]
    convex: Float[Array, "B n"]  # positive weights
    concave: Float[Array, "B n"]  # absolute values of the negative ones
    tau: Float[Array, ""]

    def gradient(self, u: Float[Array, "B d"]) -> tuple[Float[Array, "B d"], Float[Array, B]]:
        """The gradient of the concave part's negative at u, and h(u) / |u|."""
        inner, length = u @ self.rows.T, jnp.linalg.norm(u, axis=1)
        g = jnp.where(inner > 0, self.concave, 0.0) @ self.rows
        value = jnp.sum(jnp.maximum(inner, 0) * self.convex, axis=1) - jnp.sum(g * u, axis=1)
        return g + (self.tau / length)[:, None] * u, value / length


class _Vertices(NamedTuple):
    """What the bound needs of the vertices of a batch of boxes."""

    centre: Float[Array, "B d"]
    free: Int[Array, "B d-1"]  # the coordinates that are not the face's
    place: Int[Array, "B d"]  # of each coordinate among these
    width: Float[Array, "B d-1"]  # of the free coordinates
    linear: Float[Array, "B d"]  # sum of the rows that are active in the whole box
    sums: Float[Array, "B b a"]  # of the live rows at the vertices
    first: Float[Array, "a k"]  # signs of the first free coordinates
    second: Float[Array, "b k"]  # of the others

    def plane(self, g: Float[Array, "B d"]) -> _Plane:
        """The plane g minus the linear part: at the centre, and what each half of the coordinates adds."""
        e = g - self.linear
        at_free = (jnp.take_along_axis(e, self.free, axis=1) * self.width).astype(jnp.float32)
        k = self.first.shape[1]
        return jnp.sum(e * self.centre, axis=1), at_free[:, :k] @ self.first.T, at_free[:, k:] @ self.second.T

    def worst(self, plane: _Plane) -> Float[Array, B]:
        """The largest value over the plane at any vertex."""
        above = self.sums - plane[1][:, None, :] - plane[2][:, :, None]
        return jnp.max(above, axis=(1, 2)).astype(jnp.float64) - plane[0]

    def worst_vertex(self, plane: _Plane) -> Float[Array, "B d"]:
        """The vertex of the largest value."""
        value = (self.sums - plane[1][:, None, :] - plane[2][:, :, None]).reshape(len(self.sums), -1)
        is_worst = value == jnp.max(value, axis=1, keepdims=True)
        number = jnp.max(jnp.where(is_worst, jnp.arange(value.shape[1]), 0), axis=1)
        bits = ((number[:, None] >> jnp.arange(self.width.shape[1])) & 1) * 2.0 - 1.0
        offset = jnp.pad(bits * self.width, ((0, 0), (0, 1)))
        return self.centre + jnp.take_along_axis(offset, self.place, axis=1)


def _vertices(
    part: _Part, table: Array, centre: Array, width: Array, capacity: int, blocks: Array
) -> tuple[_Vertices, Int[Array, B], Float[Array, B]]:
    """Sums at the vertices; the number of live rows; and a bound on their activations in float32."""
    (_, d), n, rows, convex = centre.shape, len(part.rows), part.rows, part.convex
    k = d // 2
    first, second = (jnp.asarray(corner_signs(j), jnp.float32) for j in (k, d - 1 - k))
    others, places = (jnp.asarray(a) for a in _other_coordinates(d))
    face = jnp.argmin(width, axis=1)
    at_centre, reach = centre @ rows.T, width @ jnp.abs(rows).T
    live = (jnp.abs(at_centre) < reach) & (convex > 0)
    linear = jnp.where(at_centre >= reach, convex, 0.0) @ rows
    seen = jnp.cumsum(live, axis=1, dtype=jnp.int32)
    order = jnp.arange(1, capacity + 1, dtype=jnp.int32)
    index = jax.vmap(lambda s: jnp.searchsorted(s, order, method="scan_unrolled"))(seen)  # n where there is none
    taken = jnp.take_along_axis(jnp.pad(convex, ((0, 0), (0, 1))), index, axis=1)
    middle = jnp.take_along_axis(jnp.pad(at_centre, ((0, 0), (0, 1))), index, axis=1) * taken
    w = jnp.take_along_axis(width, others[face], axis=1)
    gathered = table.reshape(-1, d - 1)[face[:, None] * (n + 1) + index] * taken.astype(jnp.float32)[:, :, None]
    gathered = gathered * w.astype(jnp.float32)[:, None, :]
    halves = jnp.einsum("bmj,sj->bms", gathered[:, :, :k], first) + middle.astype(jnp.float32)[:, :, None]
    sums = _sum_of_live(halves, jnp.einsum("bmj,sj->bms", gathered[:, :, k:], second), blocks)
    vertices = _Vertices(centre, others[face], places[face], w, linear, sums, first, second)
    return vertices, jnp.sum(live, axis=1), 2 * jnp.sum(jnp.where(live, convex * reach, 0.0), axis=1)


@functools.partial(jax.jit, static_argnames=("capacity", "planes"))
def bound_boxes(
    rows: Float[Array, "n d"],
    table: Float[Array, "d n+1 d-1"],
    weights: Float[Array, "K n"],
    tau: Float[Array, ""],
    side: Int[Array, B],
    centre: Float[Array, "B d"],
    width: Float[Array, "B d"],
    slack: Float[Array, K],
    most: Int[Array, ""],
    *,
    capacity: int,
    planes: int = 3,
) -> Bounded:
    """Bound boxes on faces of the cube, in float64.

    Args:
      rows: feature rows.
      table: ``rows_without(rows)``.
      weights: the weights a of each side.
      tau: weight of |u|.
      side: the side of each box.
      centre: centres of the boxes.
      width: half widths; 0 for the coordinate of the face.
      slack: allowance for rounding in float64, for each side.
      most: a number that no box's live rows exceed; the sums take as many rows.
      capacity: a multiple of 16, at least ``most``. Each capacity is a program of its own.
      planes: gradients from which the plane is made.
    """
    a = weights[side]
    part = _Part(rows, jnp.maximum(a, 0.0), jnp.maximum(-a, 0.0), tau)
    blocks = (most + _ROWS - 1) // _ROWS
    vertices, count, size = _vertices(part, table, centre, width, capacity, blocks)
    u = point = centre
    best, value = part.gradient(u)
    plane = vertices.plane(best)
    excess = vertices.worst(plane)
    for turn in range(1, planes):
        u = u + (vertices.worst_vertex(plane) - u) / (turn + 1)
        new, found = part.gradient(u)
        point, value = jnp.where((found > value)[:, None], u, point), jnp.maximum(found, value)
        there, old, start = vertices.plane(new), plane, best
        for t in _STEPS:
            mixed = tuple(x + t * (y - x) for x, y in zip(old, there, strict=True))
            tried = vertices.worst(mixed)
            better = tried < excess
            excess = jnp.where(better, tried, excess)
            best = jnp.where(better[:, None], start + t * (new - start), best)
            choose = (better.reshape(-1, *[1] * (x.ndim - 1)) for x in plane)
            plane = tuple(jnp.where(b, y, x) for b, x, y in zip(choose, plane, mixed, strict=True))
    plane = vertices.plane(best)
    excess, vertex = vertices.worst(plane), vertices.worst_vertex(plane)
    new, found = part.gradient(vertex)
    point, value = jnp.where((found > value)[:, None], vertex, point), jnp.maximum(found, value)
    error = jnp.maximum((new - best) * (vertex - centre), 0.0) + _WIDTH * width
    split = jnp.argmax(jnp.where(width > 0, error, -1.0), axis=1)
    # Roundings in float32 on the way to a vertex value: the gathered products, sums of coordinates, sums of rows.
    size = size + jnp.sum(jnp.abs(best - vertices.linear) * width, axis=1)
    roundings = 2 * rows.shape[1] + 12 + _ROWS + blocks
    return Bounded(excess + 1.01 * roundings * 2.0**-24 * size + slack[side], value, point, split, count)
