"""Irredundant facets of arrangement cells {u : (2 D_i - I) Z u >= 0}, and how wide a cell is above each.

Of the N constraints of a cell a handful is needed (about 2 r in rank r). With an interior direction g and
signed rows a_k, the cell is polar to the convex hull of the points a_k / (a_k^T g) in the hyperplane
{b : b^T g = 1}: the facets are that hull's vertices. Rank 2 is a closed form over all cells; in ranks 3 to 5
the hulls are computed by Qhull and checked by the extreme rays that come with them; elsewhere, or where the
check fails, one small non-negative least squares decides each row.

Sources: polarity of cones, G. Ziegler, "Lectures on Polytopes" (1995), chapter 2; the row-by-row elimination
against known facets with ray shooting, K. Clarkson, "More output-sensitive geometric algorithms" (1994).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcvx.arrangements.parallel_rows import merge_parallel_rows
from jaxcvx.arrangements.rows import column_scales, reduce_rank
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.numerics.safe import divisor, unit_rows

_EPS = float(np.finfo(np.float64).eps)
_MAX_HULL_RANK = 5
_THIN = 64 * _EPS  # margin of a gate below which it counts as on the row's hyperplane
_SLACK = 1e-11  # a ray may leave the cell by so much before a hull is called incomplete
_CHUNK = 1 << 22  # entries of a temporary (cells x rows) block


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Facets:
    """The rows that bound each cell.

    Attributes:
      index: (P, kmax) rows of Z, increasing; -1 where a cell has fewer than kmax facets.
      count: (P,) number of facets.
      width: (P, kmax) the largest ``a_k^T u`` over unit u in the cell, a_k the signed row of unit norm; 1
        in the padding. In (0, 1]; dividing a row by it makes thin cells well conditioned.
    """

    index: Int[Array, "P kmax"]
    count: Int[Array, P]
    width: Float[Array, "P kmax"]


def facets_of(rows: Float[Array, "N p"], masks: Bool[Array, "P N"], gates: Float[Array, "P p"]) -> Facets:
    """Facets of every cell and the widths of the cells above them; on the host, in float64.

    Zero rows bound nothing, of parallel rows (of either sign) the first stands for all. Nothing that bounds a
    cell is dropped: a row that cannot be told from a facet is kept.

    Args:
      rows: (N, p) feature rows Z.
      masks: (P, N) gate patterns.
      gates: (P, p) one direction inside each cell, of any length.
    """
    index = facet_index(rows, masks, gates)
    unit = unit_rows(np.asarray(rows, np.float64))
    bits = np.asarray(masks)
    width = np.ones(index.shape)
    for i, facets in enumerate(index):
        own = facets[facets >= 0]
        A = np.where(bits[i, own], 1.0, -1.0)[:, None] * unit[own]
        for slot, a in enumerate(A):
            width[i, slot] = np.linalg.norm(a + A.T @ _multipliers(A, -a))
    dtype = jnp.asarray(rows).dtype
    tiny = np.finfo(dtype).tiny
    return Facets(
        jnp.asarray(index), jnp.asarray((index >= 0).sum(axis=1)), jnp.asarray(np.clip(width, tiny, 1), dtype)
    )


def facet_index(rows: Any, masks: Any, gates: Any) -> np.ndarray:
    """The ``index`` of :func:`facets_of` alone: (P, kmax) int32 on the host, padded with -1."""
    if any(isinstance(a, jax.core.Tracer) for a in (rows, masks, gates)):
        raise InvalidTypeError("rows, masks, gates: got traced arrays; find the facets outside jit, vmap and grad.")
    Z = np.asarray(rows)
    eps = max(float(jnp.finfo(Z.dtype).eps), _EPS) if jnp.issubdtype(Z.dtype, jnp.floating) else _EPS
    Z, bits, inner = Z.astype(np.float64), np.asarray(masks, bool), np.asarray(gates, np.float64)
    if bits.shape != (len(inner), len(Z)) or inner.shape[1] != Z.shape[1]:
        raise invalid("masks", f"shape {bits.shape}", f"({len(inner)}, {len(Z)}), one row per gate")
    alive = np.flatnonzero(np.any(Z != 0, axis=1))
    scales = column_scales(Z)
    unit = unit_rows(Z[alive] / scales)
    lines = merge_parallel_rows(unit, 2 * eps + 64 * _EPS)
    reduced, basis = reduce_rank(unit[lines.first], eps)
    num, rank = reduced.shape
    chosen = alive[lines.first]
    if num == rank:  # independent rows all count
        every = chosen if num else np.array([-1])
        return np.tile(every.astype(np.int32), (len(bits), 1))
    inner = unit_rows((inner * scales) @ basis.T)
    signs = np.where(bits[:, chosen], 1.0, -1.0)
    if rank == 2:
        found = _facets_of_plane(reduced, signs, inner)
    else:
        found = [_facets_of_cell(s[:, None] * reduced, g) for s, g in zip(signs, inner, strict=True)]
    return _padded([chosen[f] for f in found])


def _padded(found: list[np.ndarray]) -> np.ndarray:
    """Lists of row numbers as one array, increasing, -1 behind."""
    counts = np.array([len(f) for f in found], int)
    index = np.full((len(found), max(1, counts.max(initial=1))), -1, np.int32)
    for i, f in enumerate(found):
        index[i, : len(f)] = np.sort(f)
    return index


def _facets_of_plane(unit: np.ndarray, signs: np.ndarray, gates: np.ndarray) -> list[np.ndarray]:
    """Rank 2: the hull is an interval, so the facets are the two rows of extreme slope against the gate."""
    found = []
    side = np.stack([-gates[:, 1], gates[:, 0]], axis=1)
    step = max(1, _CHUNK // len(unit))
    for start in range(0, len(signs), step):
        part = slice(start, start + step)
        margin = np.maximum(signs[part] * (gates[part] @ unit.T), _THIN)
        slope = signs[part] * (side[part] @ unit.T) / margin
        found += list(np.stack([slope.argmin(axis=1), slope.argmax(axis=1)], axis=1))
    return found


def _facets_of_cell(a: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """Facets of {u : a u >= 0} for unit rows a (L, r), no two parallel, r >= 3.

    Rows that the unit gate touches are kept for certain, and tilted by rounding error to make it interior.
    """
    margin = a @ gate
    touching = margin < _THIN
    a = a + np.maximum(_THIN - margin, 0.0)[:, None] * gate
    margin = np.maximum(margin, _THIN)
    found = _hull_facets(a, gate, margin) if a.shape[1] <= _MAX_HULL_RANK else None
    if found is None:
        found = _eliminate(a, gate, margin)
    return np.union1d(found, np.flatnonzero(touching))


def _hull_facets(a: np.ndarray, gate: np.ndarray, margin: np.ndarray) -> np.ndarray | None:
    """Facets by polarity; None if Qhull fails or its rays, which must lie in the cell, do not."""
    from scipy.spatial import ConvexHull, QhullError

    side = np.linalg.svd(gate[None])[2][1:].T
    try:
        hull = ConvexHull((a @ side) / margin[:, None])
    except (QhullError, ValueError):
        return None
    rays = unit_rows(-(hull.equations[:, -1:] * gate + hull.equations[:, :-1] @ side.T))
    return hull.vertices if (rays @ a.T).min() >= -_SLACK else None


def _multipliers(A: np.ndarray, target: np.ndarray) -> np.ndarray:
    """argmin over lambda >= 0 of |A^T lambda - target|."""
    from scipy.optimize import nnls

    return nnls(A.T, target, maxiter=50 * len(A) + 100)[0]


def _eliminate(a: np.ndarray, gate: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Facets row by row: what known facets do not imply leads, along a ray from the gate, to a new facet."""
    known: list[int] = []
    for k in range(len(a)):
        while k not in known:
            A = a[known]
            try:
                direction = a[k] - A.T @ _multipliers(A, a[k]) if known else a[k]
            except RuntimeError:  # undecided: keep the row
                known.append(k)
                break
            if np.linalg.norm(direction) <= _SLACK:
                break
            fall = a @ direction
            fall[known] = 0.0  # <= 0 up to rounding: going down the direction does not leave known facets
            time = np.where(fall > 0, margin / divisor(fall), np.inf)
            new = int(time.argmin())
            known.append(k if new in known else new)  # rounding leads nowhere new: keep the row
    return np.array(known)
