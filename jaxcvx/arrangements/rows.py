"""Rows before their cells are counted: columns scaled, rank reduced."""

from __future__ import annotations

import numpy as np

from jaxcvx.numerics.safe import divisor, unit_rows


def column_scales(rows: np.ndarray) -> np.ndarray:
    """Powers of two near the columns' sizes: dividing by them is exact and keeps the arrangement."""
    size = np.abs(rows).max(axis=0)
    return np.exp2(np.floor(np.log2(divisor(size))))


def reduce_rank(unit: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n, r) of unit rows in a basis (r, p) of their row space, rows again of unit norm."""
    if len(unit) == 0:
        return np.zeros((0, 0)), np.zeros((0, unit.shape[1]))
    _, s, basis = np.linalg.svd(unit, full_matrices=False)
    size = float(np.sqrt((s**2).sum()))
    rank = max(1, int((s > max(8, unit.shape[1]) * eps * size).sum()))
    return unit_rows(unit @ basis[:rank].T), basis[:rank]
