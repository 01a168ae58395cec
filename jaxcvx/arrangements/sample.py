"""Random cells of an arrangement that has too many cells to enumerate."""

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
    """Draw random gates and return the distinct cells that contain them.

    The number of distinct cells depends on the values, so this does not work under jit. The same key gives the same
    cells.

    Args:
      key: a jax random key.
      X: (n, d) inputs, real and finite, or the shape that ``features`` expects.
      num: number of gates to draw. At most so many cells are returned.
      method: how gates are drawn.

        ``"gaussian"``: uniformly on the sphere. So the probability of a cell is proportional to its solid angle.

        ``"data"``: each gate separates a random pair of data points halfway. It is ``x_i/|x_i| - x_j/|x_j|``; with a
        bias it is the perpendicular bisector of the two points. A small random tilt keeps it from passing through a
        point. This method reaches thin cells between nearby points, and no gate points where there are no data. For
        convolutions the points are the patches.

        ``"conv"``: filters that respond to contrast but not to brightness. The gates alternate between a random patch
        and a Gaussian direction, both without their component along the mean row, and slightly tilted. Patches of
        images are nearly constant, so a filter with a mean would be active on most patches at once, or on hardly any.
      features: ``"dense"``, ``jaxcvx.Dense(bias=...)``, ``jaxcvx.ConvPool(...)`` or ``jaxcvx.ConvFlatten(...)``.

    Returns:
      Distinct cells in the order of drawing, each with the first gate that fell into it, scaled to norm 1. ``complete``
      is True only if the number of cells reaches ``max_num_cells``, which proves that none is missing.

    Raises:
      InvalidInputError: X is not finite or has a bad shape, or ``num`` or ``method`` is invalid.
      InvalidTypeError: X or the key is traced, or X is not numeric.

    >>> import jax, jaxcvx
    >>> cells = jaxcvx.sample_arrangements(jax.random.key(0), [[1.0, 2.0], [3.0, -1.0]], 50)
    >>> len(cells), cells.complete
    (4, True)
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
    # Gates are rounded first, because the masks must be those of the stored gates.
    gates = np.asarray(jnp.asarray(unit_rows(gates).astype(data.dtype)))
    gates = gates[_inside_cells(data.rows, gates.astype(np.float64))]
    masks = host_masks(data.rows, gates.astype(np.float64))
    kept = dedupe_masks(masks)
    complete = len(kept) == _max_num_cells_of(data)
    return Arrangements(jnp.asarray(masks[kept]), jnp.asarray(gates[kept]), complete)


def _normal(key: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.normal(key, shape, jnp.float32), np.float64)


def _inside_cells(rows: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """For each gate, True if it lies on no hyperplane. A gate on a hyperplane is inside no cell."""
    alive = rows[np.any(rows != 0, axis=1)]
    # z g = 0 exactly if z g >= 0 and -z g >= 0.
    return ~(host_masks(alive, gates) & host_masks(-alive, gates)).any(axis=1)


def _max_num_cells_of(data: HostRows) -> int:
    """Upper bound on the number of cells of the data, from its rank; attained in general position."""
    rows = data.rows[np.any(data.rows != 0, axis=1)]
    if not len(rows):
        return 1
    size = np.abs(rows).max(axis=0)
    s = np.linalg.svd(unit_rows(rows / divisor(size)), compute_uv=False)
    rank = int((s > max(8, rows.shape[1]) * data.eps * np.sqrt((s**2).sum())).sum())
    return max_num_cells(len(rows), rank)


def _contrast_gates(key: Any, rows: np.ndarray, num: int) -> np.ndarray:
    """Gates (num, p) for method "conv": alternately a random row and a Gaussian direction, without the mean row."""
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
    """Gates (num, p) for method "data". A pair of equal points gives a random direction."""
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
    # The tilt is at most half of the distance from the gate to the two points' hyperplanes.
    distances = [np.abs((gates * side).sum(1)) / np.linalg.norm(side, axis=1) for side in (left, right)]
    distance = np.minimum(*distances)
    equal = distance <= 64 * data.eps * size
    amount = np.minimum(1e-4 * size, distance / 2)
    return np.where(equal[:, None], tilt, gates + amount[:, None] * tilt)
