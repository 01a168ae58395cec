"""Preparation of rows before their cells are enumerated: scaling of columns and reduction to the rank."""

from __future__ import annotations

import numpy as np

from jaxcvx.numerics.safe import divisor, unit_rows


def column_scales(rows: np.ndarray) -> np.ndarray:
    """Powers of two near the largest entries of the columns.

    To divide the columns by them is exact, and it changes the arrangement by a linear map only.
    """
    size = np.abs(rows).max(axis=0)
    return np.exp2(np.floor(np.log2(divisor(size))))


def reduce_rank(unit: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of unit rows in a basis of their row space.

    Args:
      unit: (n, p) rows of norm 1.
      eps: relative size of the errors in the rows.

    Returns:
      The coordinates (n, r), scaled to norm 1, and the basis (r, p), where r is the numerical rank.
    """
    if len(unit) == 0:
        return np.zeros((0, 0)), np.zeros((0, unit.shape[1]))
    _, s, basis = np.linalg.svd(unit, full_matrices=False)
    size = float(np.sqrt((s**2).sum()))
    rank = max(1, int((s > max(8, unit.shape[1]) * eps * size).sum()))
    return unit_rows(unit @ basis[:rank].T), basis[:rank]
