"""Groups of parallel rows, such as repeated hyperplanes, or neurons of the same direction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_EPS = float(np.finfo(np.float64).eps)


class ParallelRows(NamedTuple):
    """Groups of rows. Row i is parallel to row ``first[owner[i]]``.

    Attributes:
      first: for each group the index of its first row, increasing.
      owner: for each row the index of its group.
      flip: for each row, True if it has the opposite direction of its group's first row.
    """

    first: np.ndarray
    owner: np.ndarray
    flip: np.ndarray


def merge_parallel_rows(unit: np.ndarray, tol: float, *, oriented: bool = False) -> ParallelRows:
    """Group the unit rows (n, p) that are parallel.

    Parallel rows have the same absolute projection on any direction. So the rows are sorted by their projections on a
    random direction, and only rows with nearly equal projections are compared. This takes O(n log n) instead of O(n^2).

    Args:
      unit: rows of norm 1.
      tol: largest difference of two entries of parallel rows.
      oriented: group only rows of the same direction.
    """
    num, width = unit.shape
    probe = np.random.default_rng(0).standard_normal(width)
    projection = unit @ (probe / np.linalg.norm(probe))
    projection = projection if oriented else np.abs(projection)
    order = np.argsort(projection, kind="stable")
    parent = np.arange(num)
    largest_gap = np.sqrt(width) * tol + 4 * _EPS
    starts = np.flatnonzero(np.diff(projection[order], prepend=-np.inf) > largest_gap)
    sizes = np.diff(starts, append=num)
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group = np.sort(order[start : start + size])
        while len(group):
            leader = unit[group[0]]
            difference = np.abs(unit[group] - leader).max(axis=1)
            if not oriented:
                difference = np.minimum(difference, np.abs(unit[group] + leader).max(axis=1))
            same = difference <= tol
            same[0] = True
            parent[group[same]] = group[0]
            group = group[~same]
    first, owner = np.unique(parent, return_inverse=True)
    return ParallelRows(first, owner.reshape(-1), np.einsum("np,np->n", unit, unit[parent]) < 0)
