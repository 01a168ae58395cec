"""The facets of arrangement cells {u : (2 D_i - I) Z u >= 0}, and the width of the cell at each facet.

Only a few of the N constraints of a cell are needed, about 2 r in rank r. The others follow from these, the facets. Let
g be a direction inside the cell, and a_k the rows signed such that a_k^T g > 0. The cell is polar to the convex hull of
the points a_k / (a_k^T g) in the hyperplane {b : b^T g = 1}. So the facets are the vertices of this hull. In rank 2
they have a closed form. In ranks 3 to 5 Qhull computes the hull, and its extreme rays are used to check it. In higher
ranks, or if the check fails, one small non-negative least squares problem per row decides if the row is a facet.

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
_THIN = 64 * _EPS  # a gate with a smaller margin counts as lying on the row's hyperplane
_SLACK = 1e-11  # a hull is complete if its rays violate the cell's constraints by no more than this
_CHUNK = 1 << 22  # entries of a temporary (cells x rows) block


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Facets:
    """The rows that bound each cell.

    Attributes:
      index: (P, kmax) the facets' rows in Z, increasing, padded with -1.
      count: (P,) number of facets.
      width: (P, kmax) the largest value of ``a_k^T u`` over unit vectors u in the cell, where a_k is the signed row of
        norm 1. It is in (0, 1], and 1 in the padding. Division of the rows by it makes thin cells well conditioned.
    """

    index: Int[Array, "P kmax"]
    count: Int[Array, P]
    width: Float[Array, "P kmax"]


def facets_of(rows: Float[Array, "N p"], masks: Bool[Array, "P N"], gates: Float[Array, "P p"]) -> Facets:
    """The facets of every cell and the widths of the cells at them, computed on the host in float64.

    Zero rows are no facets. Of parallel rows only the first can be one. A row is also kept if rounding errors make it
    unclear whether it is a facet, so no facet is ever missing.

    Args:
      rows: (N, p) feature rows Z.
      masks: (P, N) activation patterns of the cells.
      gates: (P, p) one direction inside each cell, of any length.
    """
    index = facet_index(rows, masks, gates)
    unit = unit_rows(np.asarray(rows, np.float64))
    bits = np.asarray(masks)
    width = np.ones(index.shape)
    for i, facets in enumerate(index):
        facets = facets[facets >= 0]
        A = np.where(bits[i, facets], 1.0, -1.0)[:, None] * unit[facets]
        for slot, a in enumerate(A):
            width[i, slot] = np.linalg.norm(a + A.T @ _multipliers(A, -a))
    dtype = jnp.asarray(rows).dtype
    tiny = np.finfo(dtype).tiny
    return Facets(
        jnp.asarray(index), jnp.asarray((index >= 0).sum(axis=1)), jnp.asarray(np.clip(width, tiny, 1), dtype)
    )


def facet_index(rows: Any, masks: Any, gates: Any) -> np.ndarray:
    """The field ``index`` of :func:`facets_of`: (P, kmax) int32, a numpy array padded with -1."""
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
    groups = merge_parallel_rows(unit, 2 * eps + 64 * _EPS)
    reduced, basis = reduce_rank(unit[groups.first], eps)
    num, rank = reduced.shape
    chosen = alive[groups.first]
    if num == rank:  # independent rows are all facets
        all_rows = chosen if num else np.array([-1])
        return np.tile(all_rows.astype(np.int32), (len(bits), 1))
    inner = unit_rows((inner * scales) @ basis.T)
    signs = np.where(bits[:, chosen], 1.0, -1.0)
    if rank == 2:
        facets = _facets_of_plane(reduced, signs, inner)
    else:
        facets = [_facets_of_cell(s[:, None] * reduced, g) for s, g in zip(signs, inner, strict=True)]
    return _padded([chosen[f] for f in facets])


def _padded(facets: list[np.ndarray]) -> np.ndarray:
    """Stack lists of row numbers to one array, each sorted and padded with -1."""
    counts = np.array([len(f) for f in facets], int)
    index = np.full((len(facets), max(1, counts.max(initial=1))), -1, np.int32)
    for i, f in enumerate(facets):
        index[i, : len(f)] = np.sort(f)
    return index


def _facets_of_plane(unit: np.ndarray, signs: np.ndarray, gates: np.ndarray) -> list[np.ndarray]:
    """The facets in rank 2. The hull is an interval, so they are the two rows of extreme slope against the gate."""
    facets = []
    side = np.stack([-gates[:, 1], gates[:, 0]], axis=1)
    step = max(1, _CHUNK // len(unit))
    for start in range(0, len(signs), step):
        part = slice(start, start + step)
        margin = np.maximum(signs[part] * (gates[part] @ unit.T), _THIN)
        slope = signs[part] * (side[part] @ unit.T) / margin
        facets += list(np.stack([slope.argmin(axis=1), slope.argmax(axis=1)], axis=1))
    return facets


def _facets_of_cell(a: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """The facets of {u : a u >= 0} for unit rows a (L, r), no two of them parallel, with r >= 3.

    Rows whose hyperplanes contain the unit gate always count as facets. They are tilted by the size of rounding errors,
    so that the gate is inside the cell.
    """
    margin = a @ gate
    touching = margin < _THIN
    a = a + np.maximum(_THIN - margin, 0.0)[:, None] * gate
    margin = np.maximum(margin, _THIN)
    facets = _hull_facets(a, gate, margin) if a.shape[1] <= _MAX_HULL_RANK else None
    if facets is None:
        facets = _eliminate(a, gate, margin)
    return np.union1d(facets, np.flatnonzero(touching))


def _hull_facets(a: np.ndarray, gate: np.ndarray, margin: np.ndarray) -> np.ndarray | None:
    """The facets by polarity. None if Qhull fails, or if one of its rays is outside the cell."""
    from scipy.spatial import ConvexHull, QhullError

    side = np.linalg.svd(gate[None])[2][1:].T
    try:
        hull = ConvexHull((a @ side) / margin[:, None])
    except (QhullError, ValueError):
        return None
    rays = unit_rows(-(hull.equations[:, -1:] * gate + hull.equations[:, :-1] @ side.T))
    return hull.vertices if (rays @ a.T).min() >= -_SLACK else None


def _multipliers(A: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The minimiser of |A^T lambda - target| over lambda >= 0."""
    from scipy.optimize import nnls

    return nnls(A.T, target, maxiter=50 * len(A) + 100)[0]


def _eliminate(a: np.ndarray, gate: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """The facets, one row at a time.

    The known facets imply a row exactly if it is a non-negative combination of them. Otherwise the residual of the
    least squares gives a direction. The ray from the gate along it leaves the cell through a new facet.
    """
    known: list[int] = []
    for k in range(len(a)):
        while k not in known:
            A = a[known]
            try:
                direction = a[k] - A.T @ _multipliers(A, a[k]) if known else a[k]
            except RuntimeError:  # the least squares failed: keep the row
                known.append(k)
                break
            if np.linalg.norm(direction) <= _SLACK:
                break
            fall = a @ direction
            fall[known] = 0.0  # <= 0 up to rounding: along this ray no known facet is hit
            time = np.where(fall > 0, margin / divisor(fall), np.inf)
            new = int(time.argmin())
            known.append(k if new in known else new)  # the ray hits a known facet because of rounding: keep the row
    return np.array(known)
