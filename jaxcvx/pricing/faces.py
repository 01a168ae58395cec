"""Exact pricing in low rank: the best neuron over given cells, by enumeration of their faces.

Pricing maximises f(u) = ||Rl^T (Z u)_+|| over unit u. In cell i this is ||G_i^T u|| with G_i = Z^T D_i Rl, a
convex function. So the maximiser lies in the relative interior of one face of one cell, and there it is a
local maximum of a Rayleigh quotient on the face's span. Every local maximum of a Rayleigh quotient is global. Hence the
maximiser is, up to sign, the top eigenvector of N N^T G_i G_i^T N N^T, with N an orthonormal basis of the span. (If
that eigenvalue is repeated, its eigenspace reaches the face's boundary at the same value, or u is interior.)

The faces do not depend on the residual: :func:`face_table` lists them once. :func:`price_exact` then computes
the eigenvectors and evaluates f itself at each. It needs no test of whether an eigenvector lies in its face: every
candidate is a neuron with its true price, and the maximiser is among them. Faces whose bound ||N^T G_i||_2 is below the
largest price so far are skipped.

With free biases the rows end with a one, and ||u|| leaves the bias out. The same then holds for faces that lie on a
hyperplane: there the bias is a linear function of the other weights, and the projector N N^T becomes the root of the
inverse of the norm's quadratic form on the span. Faces that contain the bias's own axis can be left out: if the
residual sums to zero, some best neuron has its kink at a sample.

Sources: the cone-constrained PCA step of A. Sahiner, T. Ergen, J. Pauly and M. Pilanci, "Vector-output ReLU
neural network problems are copositive programs" (2021), after M. Asteris, D. Papailiopoulos and A. Dimakis,
"Nonnegative sparse PCA with provable guarantees" (2014), with redundant rows removed and shared faces merged.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcvx.arrangements.cells import mask_keys
from jaxcvx.arrangements.facets import facet_index
from jaxcvx.errors import TooManyArrangements
from jaxcvx.numerics.safe import divisor, unit_rows
from jaxcvx.pricing.base import Priced, distinct, neuron_values

_EPS = float(np.finfo(np.float64).eps)
_BLOCK = 1 << 20  # numbers in a temporary block on the host
_CHUNK = 1024  # faces evaluated together


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FaceTable:
    """All faces, of dimension 1 to r, of a set of cells of rows of rank r. No face is listed twice.

    Attributes:
      cell: (F,) index of a cell that the face belongs to.
      span: (F,) index of the subspace that the face spans.
      projectors: (S, r, r) orthogonal projectors on those subspaces, in coordinates of ``basis``. With free biases
        the maps T with T^2 = (N (N^T M N)^-1 N^T), M the norm's quadratic form: they take unit vectors to neurons.
      basis: (p, r) orthonormal basis of the row space of Z.

    If the rows are float32, the last two are float64 arrays of numpy, because bounds proved in float64 use them.
    """

    cell: Int[Array, F]
    span: Int[Array, F]
    projectors: Float[Array, "S r r"]
    basis: Float[Array, "p r"]

    @property
    def num_faces(self) -> int:
        """Number of faces F."""
        return self.cell.shape[0]


def face_table(
    rows: Float[Array, "N p"],
    masks: Bool[Array, "P N"],
    gates: Float[Array, "P p"],
    *,
    free_bias: bool = False,
    max_faces: int = 4_000_000,
) -> FaceTable:
    """List the faces of the cells. Runs on the host; one table serves all residuals.

    Args:
      rows: (N, p) feature rows Z.
      masks: (P, N) gate patterns.
      gates: (P, p) one direction inside each cell.
      free_bias: True if the last weight is a bias that norms leave out; the other columns must then be centred.
      max_faces: limit on ``sum_i sum_{s < r} C(k_i, s)`` for cells with k_i facets. This is the number of sets of
        facets to examine, and at least the number of faces.

    Raises:
      TooManyArrangements: the limit is exceeded; raised before allocating.
    """
    dtype = jnp.asarray(rows).dtype
    unit = unit_rows(np.asarray(rows, np.float64))
    eps = max(float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0, _EPS)
    basis = _row_space(unit, eps)
    rank = basis.shape[1]
    index = facet_index(rows, masks, gates)
    counts = (index >= 0).sum(axis=1)
    total = sum(int(math.comb(int(k), s)) for k in counts for s in range(rank))
    if total > max_faces:
        raise TooManyArrangements(
            f"{len(index)} cells of rank {rank} with up to {counts.max()} facets have up to {total} faces, more "
            f"than max_faces={max_faces}: exact pricing is for low rank; price by multi-start or by "
            "branch and bound.",
            total, max_faces,
        )  # fmt: skip
    inner = unit @ basis
    bits = np.asarray(masks, bool)
    cells, spans = [np.arange(len(index))], [np.zeros(len(index), int)]
    projectors, num_spans = [np.eye(rank)[None]], 1
    for dimension, (cell, facets) in enumerate(_proper_faces(inner, bits, index, rank), start=1):
        cell, facets = _merge_shared(cell, facets, index, bits)
        lines, span = np.unique(facets, axis=0, return_inverse=True)
        cells.append(cell)
        spans.append(span.reshape(-1) + num_spans)
        projectors.append(_null_projectors(inner[lines], dimension))
        num_spans += len(lines)
    as_index = functools.partial(jnp.asarray, dtype=jnp.int32)
    maps = np.concatenate(projectors)
    maps = _without_bias(maps, basis[-1]) if free_bias else maps
    kept: list[Any] = [jnp.asarray(a) if dtype == jnp.float64 else a for a in (maps, basis)]
    return FaceTable(as_index(np.concatenate(cells)), as_index(np.concatenate(spans)), *kept)


def _without_bias(projectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Maps for the norm that leaves out the component along ``axis`` (r,); zero if a span contains the axis itself."""
    part = projectors @ axis
    share = np.einsum("sr,sr->s", part, part)
    free = 1 - share
    inside = free > 1e-12
    stretch = np.where(inside, 1 / np.sqrt(np.where(inside, free, 1.0)) - 1, 0.0) / divisor(share)
    maps = projectors + stretch[:, None, None] * part[:, :, None] * part[:, None, :]
    return maps * inside[:, None, None]


def _row_space(unit: np.ndarray, eps: float) -> np.ndarray:
    """Orthonormal basis (p, r) of the span of unit rows; one column even if all rows are zero."""
    _, s, basis = np.linalg.svd(unit, full_matrices=False)
    rank = max(1, int((s > max(8, unit.shape[1]) * eps * np.sqrt((s**2).sum())).sum()))
    return basis[:rank].T


def _proper_faces(
    inner: np.ndarray, bits: np.ndarray, index: np.ndarray, rank: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Faces of each dimension k = 1 .. r-1, as a pair: cells (F_k,) and the facets through each face (F_k, r-k).

    A cell is spanned by its extreme rays. Each of them is the null line of r-1 independent facets, if this line lies
    in the cell. A set S of r-k facets cuts out a face of dimension k only if at least k extreme rays lie on it.
    """
    faces: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(1, rank)]
    counts = (index >= 0).sum(axis=1)
    for count in np.unique(counts) if rank > 1 else []:
        rays = _combinations(count, rank - 1)
        supports = [_combinations(count, rank - k) for k in range(1, rank)]
        through = [(s[:, :, None, None] == rays).any(axis=3).all(axis=1).T.astype(int) for s in supports]
        same = np.flatnonzero(counts == count)
        step = max(1, _BLOCK // max(1, rays.size * rank))
        for start in range(0, len(same), step):
            cell = same[start : start + step]
            own = index[cell, :count]
            A = np.where(np.take_along_axis(bits[cell], own, 1), 1.0, -1.0)[:, :, None] * inner[own]
            valid = _extreme_rays(A, rays)
            for k, (support, incident) in enumerate(zip(supports, through, strict=True), start=1):
                which, subset = np.nonzero(valid @ incident >= k)
                faces[k - 1].append((cell[which], own[which[:, None], support[subset]]))
    return [tuple(np.concatenate(part) for part in zip(*level, strict=True)) for level in faces]  # type: ignore[misc]


def _combinations(num: int, size: int) -> np.ndarray:
    """All ``size``-subsets of range(num), (C(num, size), size)."""
    return np.array(list(itertools.combinations(range(num), size)), int).reshape(-1, size)


def _extreme_rays(A: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """1 for each subset (M, r-1) of the facets A (C, k, r) whose rows meet in an extreme ray, else 0: (C, M) int."""
    _, s, v = np.linalg.svd(A[:, subsets])
    value = np.einsum("cmr,ckr->cmk", v[:, :, -1], A)
    smallest = s[:, :, -1:]
    slack = 1e4 * _EPS / np.maximum(smallest, 1e-8)
    inside = (value >= -slack).all(axis=2) | (value <= slack).all(axis=2)
    return (inside & (smallest[:, :, 0] > 16 * _EPS)).astype(int)


def _merge_shared(
    cell: np.ndarray, facets: np.ndarray, index: np.ndarray, bits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One cell for each face. Two faces are equal if their facets are equal and the other rows have equal signs there.

    Only rows that are a facet of some cell can distinguish faces.
    """
    lines = np.unique(index[index >= 0])
    position = np.searchsorted(lines, facets)
    packed = np.packbits(bits[:, lines], axis=1)[cell]
    for column in position.T:  # the signs of the face's own rows do not count
        packed[np.arange(len(cell)), column // 8] |= (128 >> (column % 8)).astype(np.uint8)
    names = np.ascontiguousarray(facets.astype(np.int32)).view(np.uint8)
    first = np.unique(mask_keys(np.concatenate([packed, names], axis=1)), return_index=True)[1]
    return cell[first], facets[first]


def _null_projectors(rows: np.ndarray, dimension: int) -> np.ndarray:
    """Projectors (S, r, r) on the null spaces, of the given dimension, of row sets (S, r - dimension, r)."""
    null = np.linalg.svd(rows)[2][:, -dimension:]
    return np.swapaxes(null, 1, 2) @ null


@functools.partial(jax.jit, static_argnames="num")
def price_exact(
    table: FaceTable,
    Z: Float[Array, "N p"],
    masks: Bool[Array, "P N"],
    Rl: Float[Array, "N q"],
    *,
    num: int = 1,
) -> Priced:
    """The largest price ||Rl^T (Z u)_+|| over unit u in the cells, and the best neurons of the best cells.

    Args:
      table: :func:`face_table` of the same rows and cells.
      Z: (N, p) feature rows.
      masks: (P, N) gate patterns.
      Rl: (N, q) lifted residual.
      num: number of neurons wanted, at most one for each cell; the best one attains the maximum.

    Returns:
      ``Priced``. Its ``upper`` is the maximum plus an allowance for rounding. If the cells are not complete, ``upper``
      covers the neurons in these cells only. Directions may lie outside them; their values are then the true prices.
    """
    projectors, basis = table.projectors.astype(Z.dtype), table.basis.astype(Z.dtype)
    inner = Z @ basis
    (N, r), q, P = inner.shape, Rl.shape[1], masks.shape[0]
    eps = float(jnp.finfo(Z.dtype).eps)
    G = (masks.astype(Z.dtype) @ (inner[:, :, None] * Rl[:, None, :]).reshape(N, -1)).reshape(P, r, q)

    def restricted(faces):
        """The matrices N N^T G_i of the given faces, (., r, q)."""
        return jnp.sum(projectors[table.span[faces], :, :, None] * G[table.cell[faces], None], axis=2)

    bounds = jnp.sqrt(_top_eigenvalue_bound(_small_gram(restricted(jnp.arange(table.num_faces)))))
    chunk = min(_CHUNK, table.num_faces)
    order = jnp.pad(jnp.argsort(-bounds), (0, (-table.num_faces) % chunk), mode="edge").reshape(-1, chunk)
    keep = min(2 * num, P)

    def promising(carry):
        k, best, _ = carry
        return (k < len(order)) & (bounds[order[k, 0]] > jax.lax.top_k(best, keep)[0][-1])

    def visit(carry):
        k, best, direction = carry
        cell = table.cell[order[k]]
        u = _top_left_vector(restricted(order[k]))
        u = jnp.einsum("frs,fs->fr", projectors[table.span[order[k]]], u)
        value = jnp.stack([neuron_values(inner, Rl, u), neuron_values(inner, Rl, -u)])
        u = jnp.where((value[1] > value[0])[:, None], -u, u)
        value = jnp.max(value, axis=0)
        best = best.at[cell].max(value)
        winner = jnp.where(value == best[cell], cell, P)
        return k + 1, best, direction.at[winner].set(u, mode="drop")

    start = (0, jnp.zeros(P, Z.dtype), jnp.zeros((P, r), Z.dtype).at[:, 0].set(1))
    _, best, direction = jax.lax.while_loop(promising, visit, start)
    values, cells = jax.lax.top_k(best, keep)
    best, values = distinct(direction[cells], values, num)
    # The rows lie in the span of the basis up to rounding in their original dtype.
    outside = jnp.linalg.norm(Z - inner @ basis.T)
    rounding = jnp.linalg.norm(Rl) * (8 * eps * jnp.linalg.norm(inner) + outside)
    upper = values[0] * (1 + max(1e-10, 64 * eps)) + rounding
    return Priced(direction[cells[best]] @ basis.T, values, upper)


def _small_gram(H: Float[Array, "F r q"]) -> Float[Array, "F m m"]:
    """H^T H or H H^T, whichever is smaller."""
    if H.shape[2] <= H.shape[1]:
        return jnp.sum(H[:, :, :, None] * H[:, :, None, :], axis=1)
    return jnp.sum(H[:, :, None, :] * H[:, None, :, :], axis=3)


def _top_eigenvalue_bound(M: Float[Array, "F m m"]) -> Float[Array, F]:
    """Upper bound (tr M^8)^(1/8) on the largest eigenvalue of positive semidefinite M, tight to m^(1/8)."""
    size = jnp.trace(M, axis1=1, axis2=2)
    if M.shape[1] == 1:
        return size * (1 + 16 * jnp.finfo(M.dtype).eps)
    power = M / divisor(size)[:, None, None]
    for _ in range(2):
        power = power @ power
    bound = jnp.sum(power**2, axis=(1, 2)) ** 0.125
    return size * bound * (1 + 64 * M.shape[1] * jnp.finfo(M.dtype).eps)


def _top_left_vector(H: Float[Array, "F r q"]) -> Float[Array, "F r"]:
    """Unit left singular vectors of the largest singular values; the first axis if H is zero."""
    if H.shape[2] == 1:
        u = H[:, :, 0]
    else:
        top = jnp.linalg.eigh(_small_gram(H))[1][:, :, -1]
        u = jnp.einsum("frq,fq->fr", H, top) if H.shape[2] <= H.shape[1] else top
    size = jnp.linalg.norm(u, axis=1, keepdims=True)
    axis = jnp.zeros(u.shape[1], u.dtype).at[0].set(1)
    return jnp.where(size > 0, u / divisor(size), axis)
