"""Exact enumeration of all cells of a central hyperplane arrangement.

The rows z_i of Z = features.matrix(X) divide weight space into cells, one for each activation pattern ``1[Z u >= 0]``.
After reduction to the rank r of the data every cell is a pointed cone, so it is spanned by its extreme rays. On every
extreme ray r - 1 independent rows vanish. So one finds all cells by visiting the lines on which r - 1 independent rows
vanish, and by listing the sign patterns of the cells next to each line. In general position exactly r - 1 rows vanish,
and they take all 2^(r-1) sign patterns. If more rows vanish, as for grids or collinear points, their patterns are those
of their own arrangement, which has rank r - 1. In rank 2 it suffices to sort the rows by angle.

Sources: counting formula, T. Cover, "Geometrical and statistical properties of systems of linear
inequalities" (1965) and R. Winder (1966); enumeration through vertices, H. Edelsbrunner, "Algorithms in
Combinatorial Geometry" (1987); cells as activation patterns, M. Pilanci and T. Ergen, "Neural networks are
convex regularizers" (2020).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcvx.arrangements.cells import Arrangements, host_rows, mask_keys, max_num_cells
from jaxcvx.arrangements.parallel_rows import merge_parallel_rows
from jaxcvx.arrangements.rows import column_scales, reduce_rank
from jaxcvx.errors import JaxcvxError, TooManyArrangements, invalid
from jaxcvx.features.dense import Features
from jaxcvx.numerics.safe import unit_rows

_EPS = float(np.finfo(np.float64).eps)
_CHUNK = 1 << 23  # bytes of a temporary block


def enumerate_arrangements(X: Any, *, features: str | Features = "dense", max_cells: int = 100_000) -> Arrangements:
    """Return all cells of the data. For n rows of rank r there are O(n^(r-1)), whatever their dimension.

    The number of cells depends on the values, so this runs on the host, in float64, and not under jit. Zero rows and
    rows that are parallel to another row add no hyperplane. Rows in degenerate positions are allowed. Some cells are so
    thin that no direction inside keeps a distance from all hyperplanes that is above rounding errors in the dtype of X.
    They are left out, because they look like degenerate positions. float64 data reveal more of them.

    Args:
      X: (n, d) inputs, real and finite, or the shape that ``features`` expects.
      features: ``"dense"``, ``jaxcvx.Dense(bias=...)``, or a convolution, whose cells are those of all patches. See
        :func:`jaxcvx.restrict_filters` to lower the rank of patches.
      max_cells: largest allowed number of cells.

    Returns:
      ``Arrangements(masks (P, N), gates (P, p), complete=True)`` in a deterministic order. Each gate has norm 1 and is
      strictly inside its cell. Gates have the dtype of X if that is floating (float64 only if jax has it enabled).

    Raises:
      TooManyArrangements: the number of cells may exceed ``max_cells`` or the memory. It is bounded by
        ``max_num_cells(n', rank)`` for n' distinct hyperplanes, so this is known before anything is allocated.
      InvalidInputError: X is not a finite non-empty matrix, or max_cells is not a positive integer.
      InvalidTypeError: X is traced or not numeric.

    >>> import jaxcvx
    >>> cells = jaxcvx.enumerate_arrangements([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> cells.num_cells, cells.complete  # three lines through the origin divide the plane into six sectors
    (6, True)
    """
    if isinstance(max_cells, bool) or not isinstance(max_cells, (int, np.integer)) or max_cells < 1:
        raise invalid("max_cells", repr(max_cells), "a positive integer")
    data = host_rows(X, features)
    rows, num_rows, width = data.rows, *data.rows.shape
    tol = 2 * data.eps + 64 * _EPS
    alive = np.flatnonzero(np.any(rows != 0, axis=1))
    columns = column_scales(rows)
    unit = unit_rows(rows[alive] / columns)
    groups = merge_parallel_rows(unit, tol)
    reduced, basis = reduce_rank(unit[groups.first], data.eps)
    bound = max_num_cells(*reduced.shape)
    _refuse_if_too_many(bound, int(max_cells), num_rows, width, reduced.shape)

    masks = np.ones((1, num_rows), bool)
    gates = np.eye(1, width)
    if len(alive):
        signs, inner = _cells(reduced, tol)
        gates = unit_rows((inner @ basis) / columns)
        distinct = rows[alive[groups.first]]
        keep = _strictly_inside(distinct, signs, gates, max(data.eps, 4 * _EPS))
        signs = signs[keep]
        gates = _round_inside(distinct, signs, gates[keep], jnp.asarray(np.zeros(0, data.dtype)).dtype)
        masks = np.ones((len(signs), num_rows), bool)
        masks[:, alive] = signs[:, groups.owner] ^ groups.flip
    return Arrangements(jnp.asarray(masks), jnp.asarray(gates.astype(data.dtype)), complete=True)


def _refuse_if_too_many(count: int, max_cells: int, num_rows: int, width: int, shape: tuple[int, ...]) -> None:
    """Raise TooManyArrangements if ``count`` cells are more than the limit or than memory holds.

    Args:
      count: upper bound on the number of cells.
      max_cells: the limit.
      num_rows: number N of rows.
      width: length p of a gate.
      shape: number of distinct hyperplanes, and their rank.
    """
    shown = str(count) if count < 10**15 else f"about 1e{math.log10(count):.0f}"
    finding = f"X has up to {shown} cells ({shape[0]} distinct hyperplanes in rank {shape[1]})"
    advice = "jaxcvx.sample_arrangements(key, X, num) draws some of them"
    if count > max_cells:
        raise TooManyArrangements(
            f"{finding}, more than max_cells={max_cells}: {advice}; a larger max_cells allows them all.",
            count, max_cells,
        )  # fmt: skip
    memory = _memory_bytes()
    need = 2 * count * (num_rows + 8 * width)
    if memory is not None and need > memory:
        raise TooManyArrangements(
            f"{finding}, whose masks and gates need {need / 2**30:.1f} GiB, more than the "
            f"{memory / 2**30:.1f} GiB that this machine can spare: {advice}.",
            count, max_cells,
        )  # fmt: skip


def _memory_bytes() -> int | None:
    """Half of the machine's memory, or None if the system does not tell it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _strictly_inside(rows: np.ndarray, signs: np.ndarray, gates: np.ndarray, tol: float) -> np.ndarray:
    """For each k, True if gate k has the signs of cell k on all rows, with margins above ``tol * |z_i| . |g_k|``."""
    keep = np.empty(len(gates), bool)
    step = max(1, _CHUNK // (16 * max(1, len(rows))))
    size = np.abs(rows).T
    for start in range(0, len(gates), step):
        part = slice(start, start + step)
        value = gates[part] @ rows.T
        value = np.where(signs[part], value, -value)
        keep[part] = (value > tol * (np.abs(gates[part]) @ size)).all(axis=1)
    return keep


def _round_inside(rows: np.ndarray, signs: np.ndarray, gates: np.ndarray, dtype: Any) -> np.ndarray:
    """Round gates to ``dtype`` such that they stay inside their cells.

    Rounding matters for float64 data if jax has float64 disabled. If it moves a gate out of a thin cell, then slightly
    different lengths of the gate are tried. They round to different directions. One of these is inside the cell, unless
    the cell is far thinner than ``dtype`` resolves.
    """
    rounded = gates.astype(dtype)
    outside = np.flatnonzero(~_strictly_inside(rows, signs, rounded.astype(np.float64), 4 * _EPS))
    for shift in range(1, 200):
        if not len(outside):
            break
        trial = (gates[outside] * (1 - 0.37 * shift * float(np.finfo(dtype).eps))).astype(dtype)
        good = _strictly_inside(rows, signs[outside], trial.astype(np.float64), 4 * _EPS)
        rounded[outside[good]] = trial[good]
        outside = outside[~good]
    return rounded


def _cells(unit: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Signs (P, n) and gates (P, r) of all cells of n unit rows of full rank r, no two of them parallel."""
    num, rank = unit.shape
    if num == rank:  # independent rows: for every pattern s the system Z u = s has a solution
        signs = _all_patterns(num)
        return signs, unit_rows(np.linalg.solve(unit, np.where(signs, 1.0, -1.0).T).T)
    if rank == 1:  # the rows would be parallel but for rounding errors of their dtype
        gates = np.array([[1.0], [-1.0]])
        return gates @ unit.T > 0, gates
    if rank == 2:
        return _cells_of_plane(unit)
    return _cells_from_rays(unit, tol)


def _all_patterns(num: int) -> np.ndarray:
    """All 2^num rows of booleans; the row of all True comes first."""
    return (np.arange(2**num)[:, None] >> np.arange(num)[::-1]) & 1 == 0


def _cells_of_plane(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells in rank 2: the 2n sectors between consecutive lines. Their gates are at the middle angles."""
    angles = np.sort(np.mod(np.arctan2(unit[:, 0], -unit[:, 1]), np.pi))
    middle = (angles + np.append(angles[1:], angles[0] + np.pi)) / 2
    middle = np.concatenate([middle, middle + np.pi])
    gates = np.stack([np.cos(middle), np.sin(middle)], axis=1)
    return gates @ unit.T > 0, gates


class _Table:
    """The distinct sign patterns seen so far, and for each the sum of the unit rays of its cell.

    A cell and its negative have opposite signs, so only the one with a positive sign on row 0 is stored. Signs are
    packed to bits. New entries are first kept in a list, and merged into the table when the list is long.
    """

    def __init__(self, num: int, rank: int):
        self.num = num
        self.packed, self.rays = np.zeros((0, (num + 7) // 8), np.uint8), np.zeros((0, rank))
        self.pending: list[tuple[np.ndarray, np.ndarray]] = []
        self.size = 0

    def add(self, signs: np.ndarray, rays: np.ndarray) -> None:
        """Record that ray k belongs to the cell with signs[k]. The array ``signs`` is overwritten."""
        flip = ~signs[:, 0]
        signs ^= flip[:, None]
        self.pending.append((np.packbits(signs, axis=1), np.where(flip[:, None], -rays, rays)))
        self.size += len(signs)
        if self.size > 2 * len(self.packed) + (1 << 18):
            self.compress()

    def compress(self) -> None:
        """Merge the pending entries into the table."""
        packed = np.concatenate([self.packed, *(p for p, _ in self.pending)])
        rays = np.concatenate([self.rays, *(r for _, r in self.pending)])
        self.pending, self.size = [], 0
        _, representatives, index = np.unique(mask_keys(packed), return_index=True, return_inverse=True)
        index = index.reshape(-1)
        self.packed = packed[representatives]
        self.rays = np.stack([np.bincount(index, column, len(representatives)) for column in rays.T], axis=1)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Signs and unit gates of the recorded cells, in the order of their packed signs."""
        self.compress()
        order = np.lexsort(self.packed.T[::-1])
        return np.unpackbits(self.packed[order], axis=1, count=self.num) == 1, unit_rows(self.rays[order])


def _subsets(num: int, size: int, step: int) -> Iterator[np.ndarray]:
    """All subsets of range(num) with ``size`` elements, in arrays of at most ``step`` subsets."""
    stream = itertools.combinations(range(num), size)
    while block := list(itertools.islice(stream, step)):
        yield np.array(block)


def _cells_from_rays(unit: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """The cells in rank r >= 3 for n > r rows, from their extreme rays; see the module's docstring."""
    num, rank = unit.shape
    patterns = _all_patterns(rank - 1)
    table, seen, simple = _Table(num, rank), set(), True
    step = max(1, _CHUNK // (len(patterns) * (num + 8 * rank) + 16 * rank * (num + rank)))
    for subset in _subsets(num, rank - 1, step):
        _, s, v = np.linalg.svd(unit[subset])
        independent = s[:, -1] > 4 * tol
        simple &= bool(independent.all())
        subset, s, rays = subset[independent], s[independent], v[independent, -1]
        value = v[independent] @ unit.T
        # Errors of size tol in all rows change the value of row k at the ray by tol * (1 + |c_k|), to first order.
        # Here c_k are the coefficients of row k on the subset. The rows of the subset vanish by construction.
        spread = np.sqrt(((value[:, :-1] / s[:, :, None]) ** 2).sum(axis=1))
        value = value[:, -1]
        zero = np.abs(value) <= tol * (1 + spread)
        np.put_along_axis(zero, subset, True, axis=1)
        plain = zero.sum(axis=1) == rank - 1
        simple &= bool(plain.all())
        signs = np.repeat(value[plain, None, :] > 0, len(patterns), axis=1)
        np.put_along_axis(signs, subset[plain, None, :], patterns[None], axis=2)
        table.add(signs.reshape(-1, num), np.repeat(rays[plain], len(patterns), axis=0))
        for mask in zero[~plain]:
            vanishing = mask.tobytes()
            if vanishing not in seen:
                seen.add(vanishing)
                table.add(*_cells_at_flat(unit, np.flatnonzero(mask), tol))
    signs, gates = table.cells()
    keep = _strictly_inside(unit, signs, gates, tol / 2)
    signs, gates = signs[keep], gates[keep]
    count, bound = 2 * len(signs), max_num_cells(num, rank)
    if count > bound or (simple and keep.all() and count != bound):
        raise JaxcvxError(f"internal error: {count} cells where {bound} can be; please report the data.")
    return np.concatenate([signs, ~signs]), np.concatenate([gates, -gates])


def _cells_at_flat(unit: np.ndarray, zero: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Signs of the cells that contain the ray on which the rows ``zero`` vanish, and the ray, once for each cell.

    These rows have rank r - 1. Their signs next to the ray are those of the cells of their own arrangement in the
    hyperplane orthogonal to the ray.
    """
    _, _, v = np.linalg.svd(unit[zero])
    rows = unit_rows(unit[zero] @ v[:-1].T)
    groups = merge_parallel_rows(rows, tol)
    inner, _ = _cells(rows[groups.first], tol)
    signs = np.repeat((unit @ v[-1] > 0)[None], len(inner), axis=0)
    signs[:, zero] = inner[:, groups.owner] ^ groups.flip
    return signs, np.repeat(v[-1:], len(inner), axis=0)
