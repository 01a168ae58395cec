"""Pricing with a proved bound for rows of low rank: branch and bound over boxes on the faces of a cube.

The price of a neuron, ``|h(u)| / |u|`` with ``h(u) = sum_i r_i (z_i u)_+``, does not depend on the neuron's length.
So u ranges over the faces ``|u|_max = 1`` in the principal axes of the rows. A node is a box on a face, and a side of
the residual: +r or -r. For several outputs of rank two, ``||R^T (Z u)_+||`` is at most the largest of the sums with
weights ``R v_k``, where the v_k are the corners of a polygon around the unit circle.

:mod:`jaxcvx.pricing.vertex_bound` bounds h(u) - tau |u| in a box by a number F. So ``h(u) / |u| <= tau + F / |u|``,
with the smallest |u| in the box if F is positive, else the largest. The boxes of largest bound are halved first. The
bound on all prices is the largest bound of any box. It falls from step to step, and it is valid at any time.

Source: R. Horst and H. Tuy, "Global Optimization" (1996), for the search; the bounds are derived here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcvx.pricing.host import price_of
from jaxcvx.pricing.vertex_bound import bound_boxes, rows_without

MAX_RANK = 12  # of the rows: a box has 2^(rank - 1) vertices
MAX_BOXES = 4_000_000  # stored at a time; about 200 bytes each

_BATCH, _NUMBERS = 256, 1 << 21  # boxes bounded together: so many, or fewer so that times rows they are so many
_CAPACITIES = (64, 128, 256, 512, 1024, 2048)  # gathered rows of a batch; then multiples of 2048. Each is a program
_CHUNK, _SHARE = 4096, 64  # boxes between two sorts: at least so many, and this part of all
_FEWEST = 64  # rows of a program
_CORNERS = 32  # of the polygon for two outputs
_DROPPED = 1e-13  # singular values below this share of the largest one are left out
_NARROWEST = 2.0**-48  # half width below which a box is not halved: its ends must be exact in float64
_UP = 1 + 1e-14
_CLOSE = 2e-7  # relative distance of the bounds that counts as none


@dataclasses.dataclass
class Boxes:
    """The stored boxes. Rows from ``count`` on are free.

    Attributes:
      centre, width: (N, d); multiples of powers of two, so that halving is exact down to ``_NARROWEST``.
      side: (N,) side of the residual.
      live: (N,) bound on the number of live rows.
      bound: (N,) bound on the scaled price.
      count: number of boxes.
    """

    centre: Float[np.ndarray, "N d"]
    width: Float[np.ndarray, "N d"]
    side: Int[np.ndarray, N]
    live: Int[np.ndarray, N]
    bound: Float[np.ndarray, N]
    count: int

    def bounds(self) -> Float[np.ndarray, count]:
        """Bounds of the stored boxes."""
        return self.bound[: self.count]

    def keep(self, kept: np.ndarray) -> None:
        """Forget all boxes but these."""
        number = len(kept)
        for a in (self.centre, self.width, self.side, self.live, self.bound):
            a[:number] = a[kept]
        self.count = number

    def reserve(self, number: int) -> None:
        """Make room for so many more boxes."""
        size = len(self.bound)
        if self.count + number > size:
            size = max(2 * size, self.count + number)
            for name in ("centre", "width", "side", "live", "bound"):
                old = getattr(self, name)
                new = np.empty((size, *old.shape[1:]), old.dtype)
                new[: self.count] = old[: self.count]
                setattr(self, name, new)


@dataclasses.dataclass
class BoxTree:
    """State of a search. It holds numpy arrays only, so it can be pickled and go on later.

    Attributes:
      rows: (n, p) feature rows Z as given.
      residual: (n, q) lifted residual R as given.
      axes: (p, d) orthonormal principal axes.
      inner: (N, d) rows in these axes, scaled to a largest norm of 1, and rows of zeros.
      weights: (K, N) weights of each side, scaled.
      slack: (K,) allowance for rounding in float64, for each side.
      scale: prices over scaled ones.
      rest: bound on the scaled price of what is outside the axes, of rows and of outputs.
      boxes: the boxes.
      floor: largest scaled bound of the boxes that were forgotten.
      upper: proved bound on the price of every unit neuron.
      value: the largest price found.
      neuron: (p,) a unit neuron of this price.
      nodes: number of boxes bounded so far.
    """

    rows: Float[np.ndarray, "n p"]
    residual: Float[np.ndarray, "n q"]
    axes: Float[np.ndarray, "p d"]
    inner: Float[np.ndarray, "n d"]
    weights: Float[np.ndarray, "K n"]
    slack: Float[np.ndarray, K]
    scale: float
    rest: float
    boxes: Boxes
    floor: float
    upper: float
    value: float
    neuron: Float[np.ndarray, p]
    nodes: int = 0

    @property
    def open(self) -> int:
        """Number of boxes whose bound exceeds the largest price found."""
        return int(np.sum(self.boxes.bounds() > self.scaled(self.value)))

    def scaled(self, price: float) -> float:
        """The scaled bound that a box must not exceed for this price."""
        return float(np.sqrt(max((price / self.scale) ** 2 - self.rest**2, 0.0))) if self.scale else 0.0

    def tighten(self) -> None:
        """Take the largest bound of any box as the bound on all prices, if it is smaller."""
        largest = max(float(self.boxes.bounds().max(initial=0.0)), self.floor)
        self.upper = min(self.upper, max(self.scale * float(np.hypot(largest, self.rest)) * _UP, self.value))

    def offer(self, u: np.ndarray) -> None:
        """Take a neuron whose price is the largest so far."""
        size = float(np.linalg.norm(u))
        price = price_of(self.rows, self.residual, u / size) if size > 0 else 0.0
        if price > self.value:
            self.value, self.neuron = price, u / size


def suits_boxes(rows: np.ndarray, residual: np.ndarray) -> bool:
    """True if :func:`start_boxes` takes these rows and this lifted residual."""
    return _rank(rows) <= MAX_RANK and _rank(residual.reshape(len(residual), -1)) <= 2


def _rank(a: np.ndarray) -> int:
    size = float(np.abs(a).max(initial=0.0))
    values = np.linalg.svd(a / size, compute_uv=False) if size else np.zeros(1)
    return int(np.sum(values > _DROPPED * values[0]))


def start_boxes(rows: Float[np.ndarray, "n p"], residual: Float[np.ndarray, "n q"]) -> BoxTree:
    """The tree before the first box is bounded.

    Args:
      rows: feature rows of rank at most ``MAX_RANK``, in float64.
      residual: lifted residual of rank at most 2, in float64.

    Raises:
      ValueError: the rank of the rows or of the residual is too large.
    """
    if not suits_boxes(rows, residual):
        raise ValueError(f"rows {rows.shape}, residual {residual.shape}: ranks at most {MAX_RANK} and 2 are possible.")
    residual = residual.reshape(len(rows), -1)
    size, largest = float(np.linalg.norm(rows, axis=1).max(initial=0.0)), float(np.abs(residual).max(initial=0.0))
    usable = size > 0 and largest > 0
    X, R = (rows / size, residual / largest) if usable else (np.zeros_like(rows), np.zeros_like(residual))
    axes = _axes(X)
    inner = X @ axes
    corners, R_rest = _corners(R)
    weights = corners @ R.T
    X_rest, lengths = np.linalg.norm(X - inner @ axes.T, axis=1), np.linalg.norm(X, axis=1)
    R_norms = np.linalg.norm(R, axis=1)
    rest = float(np.hypot(R_norms @ X_rest, R_rest @ lengths)) * 1.001 + 2.0**-48 * float(R_norms @ lengths)
    d, K = axes.shape[1], len(corners)
    total = np.abs(weights) @ lengths * (1 + 1e-9)
    roundings = len(X) + 8 * X.shape[1] ** 1.5 + 8 * d + 64  # of sums over rows, of the axes, and of the rows in them
    slack = 2.0**-51 * roundings * d * total + 1e-290
    centre, width = np.zeros((2 * d, d)), np.ones((2 * d, d))
    for face in range(d):
        centre[2 * face : 2 * face + 2, face], width[2 * face : 2 * face + 2, face] = (-1, 1), 0
    live = np.repeat((weights > 0).sum(axis=1), 2 * d)
    side = np.repeat(np.arange(K), 2 * d)
    boxes = Boxes(np.tile(centre, (K, 1)), np.tile(width, (K, 1)), side, live, np.repeat(total, 2 * d), 2 * d * K)
    start = np.eye(1, rows.shape[1])[0]
    scale = size * largest if usable else 0.0
    inner, weights = _in_bucket(inner), _in_bucket(weights.T).T
    tree = BoxTree(rows, residual, axes, inner, weights, slack, scale, rest, boxes, 0.0, np.inf, 0.0, start)
    tree.offer(start)
    tree.tighten()
    return tree


def _in_bucket(a: np.ndarray) -> np.ndarray:
    """Rows of zeros are added up to a power of two, or to one and a half times it, so that programs are used again."""
    size = _FEWEST
    while size < len(a):
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return np.pad(a, ((0, size - len(a)), (0, 0)))


def _axes(X: np.ndarray) -> Float[np.ndarray, "p d"]:
    """Principal axes of the rows, at least two; a single column gets a second axis of zeros."""
    _, singular, axes = np.linalg.svd(X, full_matrices=X.shape[0] < X.shape[1])
    rank = int(np.sum(singular > _DROPPED * singular.max(initial=0.0)))
    axes = axes[: max(rank, 2)].T
    return axes.copy() if axes.shape[1] > 1 else np.pad(axes, ((0, 0), (0, 1)))


def _corners(R: np.ndarray) -> tuple[Float[np.ndarray, "K q"], Float[np.ndarray, n]]:
    """Directions whose convex hull contains the unit ball of the span of the rows of R; and what lies outside it."""
    if R.shape[1] == 1:
        return np.array([[1.0], [-1.0]]), np.zeros(len(R))
    axes = np.linalg.svd(R, full_matrices=False)[2][: min(_rank(R) or 1, 2)]
    rest = np.linalg.norm(R - R @ axes.T @ axes, axis=1)
    if len(axes) == 1:
        return np.concatenate([axes, -axes]), rest
    angle = 2 * np.pi * np.arange(_CORNERS) / _CORNERS
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return circle @ axes * (_UP / np.cos(np.pi / _CORNERS)), rest


def rebased(tree: BoxTree, residual: Float[np.ndarray, "n 1"], shift: float) -> BoxTree:
    """The tree for another residual of one output: no price moved by more than ``shift``, so bounds grow by so much.

    Args:
      tree: it is changed.
      residual: the new residual of the same rows.
      shift: bound on the price of every unit neuron at the difference of the residuals.
    """
    largest = float(np.linalg.norm(tree.rows, axis=1).max())
    R = residual / (tree.scale / largest)
    weights = np.array([[1.0], [-1.0]]) @ _in_bucket(R).T
    lengths = np.linalg.norm(_in_bucket(tree.rows / largest), axis=1)
    grown = (np.abs(weights) @ lengths) / np.maximum(np.abs(tree.weights) @ lengths, np.finfo(float).tiny)
    turned = ((weights > 0) & (tree.weights <= 0)).sum(axis=1)
    boxes = tree.boxes
    side = boxes.side[: boxes.count]
    boxes.live[: boxes.count] = np.minimum(boxes.live[: boxes.count] + turned[side], (weights > 0).sum(axis=1)[side])
    boxes.bound[: boxes.count] = (boxes.bounds() + shift / tree.scale) * _UP
    tree.residual, tree.weights = residual, weights
    tree.slack, tree.rest = tree.slack * np.maximum(grown, 1.0) * _UP, tree.rest * max(float(grown.max()), 1.0) * _UP
    tree.floor = (tree.floor + shift / tree.scale) * _UP
    tree.upper, tree.value = (tree.upper + shift) * _UP, price_of(tree.rows, residual, tree.neuron)
    tree.tighten()
    return tree


def grow_boxes(
    tree: BoxTree,
    level: float,
    deadline: float = np.inf,
    report: Callable[[BoxTree], bool] | None = None,
) -> BoxTree:
    """Halve boxes until no price can exceed ``level`` or the largest one found, or time is out.

    Boxes that are closed stay in store, so a later call with a smaller level goes on with them. If the store is full
    they are forgotten, and ``tree.floor`` says down to which bound. If open boxes alone fill it, those of the
    smallest bound are halved first, because they close soon. The batches go to all local devices in turn.

    Args:
      tree: from :func:`start_boxes`, or from an earlier call; it is changed.
      level: price at which the search stops.
      deadline: value of ``time.perf_counter()`` at which it stops.
      report: called with the tree after every sort; the search stops if it returns True.

    Returns:
      The tree.
    """
    if not tree.scale:
        tree.upper = tree.value
        return tree
    parts = (tree.inner, rows_without(tree.inner), tree.weights, tree.slack)
    constants = [[jax.device_put(a, device) for a in parts] for device in jax.local_devices()]
    while tree.upper > max(level, tree.value * (1 + _CLOSE)) and time.perf_counter() < deadline:
        tau = tree.scaled(max(level, tree.value * (1 + _CLOSE)))
        if not np.any(tree.boxes.bounds() > tau):
            break
        _halve(tree, tau, constants, deadline)
        tree.tighten()
        if report is not None and report(tree):
            break
    return tree


def _choose(tree: BoxTree, tau: float) -> Int[np.ndarray, k]:
    """Numbers of open boxes to bound and to halve."""
    boxes = tree.boxes
    bounds = boxes.bounds()
    if boxes.count > MAX_BOXES:
        tree.floor = max(tree.floor, float(bounds[bounds <= tau].max(initial=0.0)))
        boxes.keep(np.flatnonzero(bounds > tau))
        bounds = boxes.bounds()
    is_open = np.flatnonzero(bounds > tau)
    number = min(max(_CHUNK, len(is_open) // _SHARE), len(is_open))
    falling = bounds[is_open] if boxes.count > MAX_BOXES else -bounds[is_open]
    return is_open[np.argpartition(falling, number - 1)[:number]]


def _halve(tree: BoxTree, tau: float, constants: list[list[Array]], deadline: float) -> None:
    """Bound a number of open boxes; replace those that stay open by their halves."""
    chosen = _choose(tree, tau)
    chosen = chosen[np.argsort(tree.boxes.live[chosen], kind="stable")]
    size = max(min(_BATCH, _NUMBERS // len(tree.inner)), 1)
    batches = [chosen[k : k + size] for k in range(0, len(chosen), size)]
    ahead = 2 * len(constants)  # batches under way
    running: list[Any] = []
    for k in range(len(batches) + ahead):
        if k < len(batches) and time.perf_counter() < deadline:
            running.append((batches[k], _submit(tree, batches[k], size, tau, constants[k % len(constants)])))
        if running and (k >= ahead - 1 or k >= len(batches)):
            batch, answer = running.pop(0)
            _take(tree, batch, tau, jax.device_get(answer))
    for batch, answer in running:
        _take(tree, batch, tau, jax.device_get(answer))


def _submit(tree: BoxTree, batch: np.ndarray, size: int, tau: float, constants: list[Array]) -> Any:
    """Start bounding a batch, which is filled up to ``size`` by repeating its first box."""
    boxes = tree.boxes
    most = int(boxes.live[batch].max())
    larger = (c for c in _CAPACITIES if c >= most)
    capacity = next(larger, -(-most // _CAPACITIES[-1]) * _CAPACITIES[-1])
    filled = np.concatenate([batch, np.repeat(batch[:1], size - len(batch))])
    side, centre, width = boxes.side[filled], boxes.centre[filled], boxes.width[filled]
    inner, table, weights, slack = constants
    limit, rows = np.float64(tau), np.int64(most)
    return bound_boxes(inner, table, weights, limit, side, centre, width, slack, rows, capacity=capacity)


def _take(tree: BoxTree, batch: np.ndarray, tau: float, found: Any) -> None:
    """Store the bounds of a batch, and both halves of the boxes that stay open."""
    boxes, number = tree.boxes, len(batch)
    tree.nodes += number
    tree.offer(tree.axes @ found.point[np.argmax(found.value[:number])])
    centre, width, excess = boxes.centre[batch], boxes.width[batch], found.excess[:number]
    near = np.linalg.norm(np.maximum(np.abs(centre) - width, 0.0), axis=1) / _UP
    far = np.linalg.norm(np.abs(centre) + width, axis=1) * _UP
    bound = np.maximum(tau + excess / np.where(excess > 0, near, far), 0.0) * _UP
    bound = np.where(np.isnan(bound), np.inf, bound)
    boxes.bound[batch] = np.minimum(boxes.bound[batch], bound)
    boxes.live[batch] = found.live[:number]
    stays = boxes.bound[batch] > tau
    _replace_by_halves(tree, batch[stays], found.split[:number][stays])


def _replace_by_halves(tree: BoxTree, parent: Int[np.ndarray, m], split: Int[np.ndarray, m]) -> None:
    """Store both halves of boxes. A box too narrow to be halved exactly is closed, and its bound kept as a floor."""
    boxes = tree.boxes
    narrow = boxes.width[parent, split] < _NARROWEST
    if narrow.any():
        tree.floor = max(tree.floor, float(boxes.bound[parent[narrow]].max()))
        boxes.bound[parent[narrow]] = 0.0
        parent, split = parent[~narrow], split[~narrow]
    m = len(parent)
    boxes.reserve(m)
    child, row = slice(boxes.count, boxes.count + m), np.arange(m)
    half, centre = boxes.width[parent], boxes.centre[parent]
    half[row, split] /= 2
    step = np.zeros_like(half)
    step[row, split] = half[row, split]
    boxes.centre[child], boxes.centre[parent] = centre + step, centre - step
    boxes.width[child] = boxes.width[parent] = half
    for a in (boxes.side, boxes.live, boxes.bound):
        a[child] = a[parent]
    boxes.count += m
