"""Sampled cells: some of the arrangement, for data whose cells are too many to enumerate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxcvx.arrangements.cells import (
    Arrangements,
    HostRows,
    dedupe_masks,
    host_masks,
    host_rows,
    max_num_cells,
)
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.features.dense import Features, resolve_features
from jaxcvx.numerics.safe import divisor, unit_rows
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key

METHODS = ("gaussian", "data", "conv")


def sample_arrangements(
    key: PRNGKeyArray,
    X: Any,
    num: int,
    *,
    method: str = "gaussian",
    features: str | Features = "dense",
) -> Arrangements:
    """Distinct cells hit by ``num`` random gates.

    Runs eagerly (the number of distinct cells depends on the values) and is deterministic in ``key``.

    Args:
      key: a jax random key.
      X: (n, d) inputs, real and finite, or the shape that ``features`` wants.
      num: number of gates drawn; at most so many distinct cells come back.
      method: ``"gaussian"``: directions uniform on the sphere, so that a cell is drawn in proportion to its
        solid angle. ``"data"``: hyperplanes that separate random pairs of data points halfway,
        ``x_i/|x_i| - x_j/|x_j|``, or with a bias the perpendicular bisector of the two points, each tilted a
        little so that it passes through no point: thin cells between nearby points are reached, and no
        gate wastes itself on directions without data. (Of a convolution the points are its patches.) ``"conv"``:
        filters that answer to contrast and not to brightness, by turns a random patch and a Gaussian
        direction, both without their component along the mean row, tilted a little: patches of images are nearly
        constant, so filters with a mean switch most of them on, or off, together.
      features: ``"dense"``, ``jaxcvx.Dense(bias=...)``, ``jaxcvx.ConvPool(...)`` or ``jaxcvx.ConvFlatten(...)``.

    Returns:
      Cells in the order drawn, the first gate of each cell kept, unit norm. ``complete=True`` only if their
      number reaches the counting formula of the data's rank, which proves that none is missing.

    Raises:
      InvalidInputError: bad X, num or method.
      InvalidTypeError: X or key is traced, or X is not numeric.
    """
    if isinstance(num, bool) or not isinstance(num, (int, np.integer)) or num < 1:
        raise invalid("num", repr(num), "a positive integer")
    if method not in METHODS:
        raise invalid("method", repr(method), "one of " + ", ".join(repr(m) for m in METHODS))
    features = resolve_features(features)
    data = host_rows(X, features)
    if is_traced(key):
        raise InvalidTypeError("key: got a traced key, expected a concrete one: sample outside jit and vmap.")
    check_key(key)
    if method == "gaussian":
        gates = _normal(key, (int(num), data.rows.shape[1]))
    elif method == "data":
        gates = _pair_gates(key, data, int(num), features.bias)
    else:
        gates = _contrast_gates(key, data.rows, int(num))
    # Round first: masks are those of the gates as stored.
    gates = np.asarray(jnp.asarray(unit_rows(gates).astype(data.dtype)))
    exact = gates.astype(np.float64)
    inside = _off_the_boundaries(data.rows, exact)
    gates, exact = gates[inside], exact[inside]
    masks = host_masks(data.rows, exact)
    first = dedupe_masks(masks)
    complete = len(first) == _bound(data)
    return Arrangements(jnp.asarray(masks[first]), jnp.asarray(gates[first]), complete)


def _normal(key: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.normal(key, shape, jnp.float32), np.float64)


def _off_the_boundaries(rows: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """Whether a gate lies on no hyperplane; on one it is in no cell, whatever its mask says."""
    alive = rows[np.any(rows != 0, axis=1)]
    # z g >= 0 and -z g >= 0 together mean z g = 0.
    return ~(host_masks(alive, gates) & host_masks(-alive, gates)).any(axis=1)


def _bound(data: HostRows) -> int:
    """Counting formula for the data's rank (an upper bound, attained in general position)."""
    rows = data.rows[np.any(data.rows != 0, axis=1)]
    if not len(rows):
        return 1
    size = np.abs(rows).max(axis=0)
    s = np.linalg.svd(unit_rows(rows / divisor(size)), compute_uv=False)
    rank = int((s > max(8, rows.shape[1]) * data.eps * np.sqrt((s**2).sum())).sum())
    return max_num_cells(len(rows), rank)


def _contrast_gates(key: Any, rows: np.ndarray, num: int) -> np.ndarray:
    """Gates (num, p): random rows and Gaussian directions by turns, orthogonal to the mean row up to a tilt."""
    alive = rows[np.any(rows != 0, axis=1)]
    draw_key, choice_key, tilt_key = jax.random.split(key, 3)
    gates = _normal(draw_key, (num, rows.shape[1]))
    if len(alive):
        chosen = np.asarray(jax.random.randint(choice_key, (num,), 0, len(alive)))
        gates[::2] = alive[chosen[::2]]
    mean = unit_rows(rows.mean(axis=0, keepdims=True))
    gates = unit_rows(gates - (gates @ mean.T) * mean)
    return gates + 1e-4 * unit_rows(_normal(tilt_key, gates.shape))


def _pair_gates(key: Any, data: HostRows, num: int, bias: bool) -> np.ndarray:
    """Gates (num, p) halfway between random pairs of points, slightly tilted; random for equal points."""
    pair_key, tilt_key = jax.random.split(key)
    tilt = unit_rows(_normal(tilt_key, (num, data.rows.shape[1])))
    rows = data.rows
    points = rows[:, :-1] if bias else unit_rows(rows[np.any(rows != 0, axis=1)])
    if len(points) < 2:
        return tilt
    first_key, gap_key = jax.random.split(pair_key)
    i = np.asarray(jax.random.randint(first_key, (num,), 0, len(points)))
    j = (i + np.asarray(jax.random.randint(gap_key, (num,), 1, len(points)))) % len(points)
    gates = points[i] - points[j]
    if bias:
        middle = (points[i] + points[j]) / 2
        gates = np.concatenate([gates, -(gates * middle).sum(axis=1, keepdims=True)], axis=1)
        left, right = (np.concatenate([points[k], np.ones((num, 1))], axis=1) for k in (i, j))
    else:
        left, right = points[i], points[j]
    size = np.linalg.norm(gates, axis=1)
    # Distance of the two points' hyperplanes from the gate: half of it may be tilted away.
    reach = [np.abs((gates * side).sum(1)) / np.linalg.norm(side, axis=1) for side in (left, right)]
    room = np.minimum(reach[0], reach[1])
    equal = room <= 64 * data.eps * size
    amount = np.minimum(1e-4 * size, room / 2)
    return np.where(equal[:, None], tilt, gates + amount[:, None] * tilt)
