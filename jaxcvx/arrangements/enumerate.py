"""Exact enumeration of all cells of a central hyperplane arrangement.

The rows z_i of ``features.matrix(X)`` cut weight space into cells, one per activation pattern
``1[Z u >= 0]``. After reduction to the rank r of the data every cell is a pointed cone, spanned by its
extreme rays, and every extreme ray is the null line of r-1 independent rows. So all cells are found by
visiting those lines and writing down the sign patterns next to them: all 2^(r-1) signs of the rows that
vanish there in general position; the cells of the arrangement of those rows, in rank r-1, where more of
them vanish (grids, collinear points). Rank 2 is a sort by angle.

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
    """All cells of the data, exact for its rank, whatever the dimension.

    Runs eagerly on the host in float64 (the number of cells depends on the values, so not under jit). Rows
    that are zero, or parallel to another row, add no hyperplane; degenerate positions are handled. Cells so
    thin that no direction clears all hyperplanes by more than rounding error in the dtype of X cannot be
    told from degenerate positions and are left out: give float64 data where that matters.

    Args:
      X: (n, d) inputs, real and finite, or the shape that ``features`` wants.
      features: ``"dense"``, ``jaxcvx.Dense(bias=...)``, or a convolution, whose cells are those of all patches (see
        :func:`jaxcvx.restrict_filters` for lowering their rank).
      max_cells: largest number of cells allowed.

    Returns:
      ``Arrangements(masks (P, N), gates (P, p), complete=True)`` in a deterministic order, each gate of unit
      norm and strictly inside its cell. Gates have the dtype of X if that is floating (float64 only if jax
      has it enabled).

    Raises:
      TooManyArrangements: the number of cells, which is bounded by ``max_num_cells(n', rank)`` for n'
        distinct hyperplanes, may exceed ``max_cells`` or the memory; raised before allocating.
      InvalidInputError: X is not a finite non-empty matrix, or max_cells is not a positive integer.
      InvalidTypeError: X is traced or not numeric.
    """
    if isinstance(max_cells, bool) or not isinstance(max_cells, (int, np.integer)) or max_cells < 1:
        raise invalid("max_cells", repr(max_cells), "a positive integer")
    data = host_rows(X, features)
    rows, num_rows, width = data.rows, *data.rows.shape
    tol = 2 * data.eps + 64 * _EPS
    alive = np.flatnonzero(np.any(rows != 0, axis=1))
    columns = column_scales(rows)
    unit = unit_rows(rows[alive] / columns)
    lines = merge_parallel_rows(unit, tol)
    reduced, basis = reduce_rank(unit[lines.first], data.eps)
    bound = max_num_cells(*reduced.shape)
    _refuse_if_too_many(bound, int(max_cells), num_rows, width, reduced.shape)

    masks = np.ones((1, num_rows), bool)
    gates = np.eye(1, width)
    if len(alive):
        signs, inner = _cells(reduced, tol)
        gates = unit_rows((inner @ basis) / columns)
        distinct = rows[alive[lines.first]]
        keep = _strictly_inside(distinct, signs, gates, max(data.eps, 4 * _EPS))
        signs = signs[keep]
        gates = _round_inside(distinct, signs, gates[keep], jnp.asarray(np.zeros(0, data.dtype)).dtype)
        masks = np.ones((len(signs), num_rows), bool)
        masks[:, alive] = signs[:, lines.owner] ^ lines.flip
    return Arrangements(jnp.asarray(masks), jnp.asarray(gates.astype(data.dtype)), complete=True)


def _refuse_if_too_many(count: int, max_cells: int, num_rows: int, width: int, shape: tuple[int, ...]) -> None:
    """Raise TooManyArrangements if ``count`` cells of (num_rows, width) data pass the limit or the memory."""
    shown = str(count) if count < 10**15 else f"about 1e{math.log10(count):.0f}"
    what = f"X has up to {shown} cells ({shape[0]} distinct hyperplanes in rank {shape[1]})"
    advice = "jaxcvx.sample_arrangements(key, X, num) draws some of them"
    if count > max_cells:
        raise TooManyArrangements(
            f"{what}, more than max_cells={max_cells}: {advice}; a larger max_cells allows them all.",
            count, max_cells,
        )  # fmt: skip
    memory = _memory_bytes()
    need = 2 * count * (num_rows + 8 * width)
    if memory is not None and need > memory:
        raise TooManyArrangements(
            f"{what}, whose masks and gates need {need / 2**30:.1f} GiB, more than the "
            f"{memory / 2**30:.1f} GiB that this machine can spare: {advice}.",
            count, max_cells,
        )  # fmt: skip


def _memory_bytes() -> int | None:
    """Half of the machine's memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _strictly_inside(rows: np.ndarray, signs: np.ndarray, gates: np.ndarray, tol: float) -> np.ndarray:
    """Whether gate k has the signs of cell k on every row by more than rounding, ``tol * |z_i| . |g_k|``."""
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
    """Gates in ``dtype``, those of cells thinner than its rounding shifted a little so as to stay inside.

    That is for float64 data where jax has float64 disabled: lengths of slightly different value round to
    different directions, one of which is inside unless the cell is far thinner than ``dtype`` resolves.
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
    """Signs (P, n) and gates (P, r) of all cells of n unit rows, pairwise not parallel, of full rank r."""
    num, rank = unit.shape
    if num == rank:  # independent rows: every pattern occurs, and X w = s has a solution for each
        signs = _all_patterns(num)
        return signs, unit_rows(np.linalg.solve(unit, np.where(signs, 1.0, -1.0).T).T)
    if rank == 1:  # rows that only rounding in a coarse dtype keeps from being parallel
        gates = np.array([[1.0], [-1.0]])
        return gates @ unit.T > 0, gates
    if rank == 2:
        return _cells_of_plane(unit)
    return _cells_from_rays(unit, tol)


def _all_patterns(num: int) -> np.ndarray:
    """All 2^num rows of booleans, the all-True row first."""
    return (np.arange(2**num)[:, None] >> np.arange(num)[::-1]) & 1 == 0


def _cells_of_plane(unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank 2: the 2n sectors between consecutive boundary lines, gates at their middle angles."""
    angles = np.sort(np.mod(np.arctan2(unit[:, 0], -unit[:, 1]), np.pi))
    middle = (angles + np.append(angles[1:], angles[0] + np.pi)) / 2
    middle = np.concatenate([middle, middle + np.pi])
    gates = np.stack([np.cos(middle), np.sin(middle)], axis=1)
    return gates @ unit.T > 0, gates


class _Table:
    """Distinct sign patterns with row 0 positive (packed), and the sum of the unit rays of each."""

    def __init__(self, num: int, rank: int):
        self.num = num
        self.packed, self.rays = np.zeros((0, (num + 7) // 8), np.uint8), np.zeros((0, rank))
        self.pending: list[tuple[np.ndarray, np.ndarray]] = []
        self.size = 0

    def add(self, signs: np.ndarray, rays: np.ndarray) -> None:
        """Record that ray k spans the cell with signs[k]; its antipode comes along. Overwrites ``signs``."""
        flip = ~signs[:, 0]
        signs ^= flip[:, None]
        self.pending.append((np.packbits(signs, axis=1), np.where(flip[:, None], -rays, rays)))
        self.size += len(signs)
        if self.size > 2 * len(self.packed) + (1 << 18):
            self.compress()

    def compress(self) -> None:
        """Fold what is pending into the table."""
        packed = np.concatenate([self.packed, *(p for p, _ in self.pending)])
        rays = np.concatenate([self.rays, *(r for _, r in self.pending)])
        self.pending, self.size = [], 0
        _, first, index = np.unique(mask_keys(packed), return_index=True, return_inverse=True)
        index = index.reshape(-1)
        self.packed = packed[first]
        self.rays = np.stack([np.bincount(index, column, len(first)) for column in rays.T], axis=1)

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Signs and unit gates of the recorded cells, in the order of their packed signs."""
        self.compress()
        order = np.lexsort(self.packed.T[::-1])
        return np.unpackbits(self.packed[order], axis=1, count=self.num) == 1, unit_rows(self.rays[order])


def _subsets(num: int, size: int, step: int) -> Iterator[np.ndarray]:
    """All ``size``-subsets of range(num) in blocks (at most step, size)."""
    stream = itertools.combinations(range(num), size)
    while block := list(itertools.islice(stream, step)):
        yield np.array(block)


def _cells_from_rays(unit: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Rank >= 3, n > r: every cell from its extreme rays (see the module's docstring)."""
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
        # To first order, errors of size tol in all rows change row k's value at the ray by tol * (1 + |c_k|),
        # where c_k are the coefficients of row k on the subset. Its own rows vanish by construction.
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
            flat = mask.tobytes()
            if flat not in seen:
                seen.add(flat)
                table.add(*_cells_at_flat(unit, np.flatnonzero(mask), tol))
    signs, gates = table.cells()
    keep = _strictly_inside(unit, signs, gates, tol / 2)
    signs, gates = signs[keep], gates[keep]
    found, bound = 2 * len(signs), max_num_cells(num, rank)
    if found > bound or (simple and keep.all() and found != bound):
        raise JaxcvxError(f"internal error: {found} cells where {bound} can be; please report the data.")
    return np.concatenate([signs, ~signs]), np.concatenate([gates, -gates])


def _cells_at_flat(unit: np.ndarray, zero: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Signs of the cells next to the line on which the rows ``zero`` vanish, and that ray for each.

    Those rows have rank r-1; their signs next to the ray are the cells of their own arrangement in the
    hyperplane orthogonal to it.
    """
    _, _, v = np.linalg.svd(unit[zero])
    rows = unit_rows(unit[zero] @ v[:-1].T)
    lines = merge_parallel_rows(rows, tol)
    inner, _ = _cells(rows[lines.first], tol)
    signs = np.repeat((unit @ v[-1] > 0)[None], len(inner), axis=0)
    signs[:, zero] = inner[:, lines.owner] ^ lines.flip
    return signs, np.repeat(v[-1:], len(inner), axis=0)
