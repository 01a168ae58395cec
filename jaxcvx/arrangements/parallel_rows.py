"""Groups of parallel rows: hyperplanes given more than once, neurons that point the same way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_EPS = float(np.finfo(np.float64).eps)


class ParallelRows(NamedTuple):
    """Row i is parallel to row ``first[owner[i]]``, of opposite direction where ``flip[i]``."""

    first: np.ndarray
    owner: np.ndarray
    flip: np.ndarray


def merge_parallel_rows(unit: np.ndarray, tol: float, *, oriented: bool = False) -> ParallelRows:
    """Group unit rows (n, p) that are parallel up to ``tol``; of the same direction only, if ``oriented``.

    Parallel rows have the same (absolute) projection on any direction, so only neighbours in that order are
    compared: n log n instead of n^2.
    """
    num, width = unit.shape
    probe = np.random.default_rng(0).standard_normal(width)
    key = unit @ (probe / np.linalg.norm(probe))
    key = key if oriented else np.abs(key)
    order = np.argsort(key, kind="stable")
    parent = np.arange(num)
    reach = np.sqrt(width) * tol + 4 * _EPS
    starts = np.flatnonzero(np.diff(key[order], prepend=-np.inf) > reach)
    sizes = np.diff(starts, append=num)
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        group = np.sort(order[start : start + size])
        while len(group):
            lead = unit[group[0]]
            gap = np.abs(unit[group] - lead).max(axis=1)
            if not oriented:
                gap = np.minimum(gap, np.abs(unit[group] + lead).max(axis=1))
            same = gap <= tol
            same[0] = True
            parent[group[same]] = group[0]
            group = group[~same]
    first, owner = np.unique(parent, return_inverse=True)
    return ParallelRows(first, owner.reshape(-1), np.einsum("np,np->n", unit, unit[parent]) < 0)
