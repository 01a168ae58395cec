"""Scaled rows for branch and bound on row signs. Host code in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxcvx.pricing.host import ascend, unit

EPS = 2.0**-52
_STARTS = 32
ASCENTS = 30
_NO_AXIS = 1e-12  # relative singular value of an axis that is left out
_LEAST_VALUE = 1e-3  # of M, relative to sum_i ||R_i|| ||z_i||, for the scale


class Scaled(NamedTuple):
    """Rows z_i of unit length in principal axes and weights R_i, scaled: M = scale * (M of these up to ``allowance``).

    ``allowance`` covers rounding, and axes and combinations of outputs that were left out. M is the largest
    ||sum_i R_i (z_i^T u)_+|| over unit u.
    """

    directions: np.ndarray  # (n, k)
    weights: np.ndarray  # (n, c)
    basis: np.ndarray  # (p, k) the axes
    scale: float
    allowance: float


def scaled_rows(Z: np.ndarray, R: np.ndarray) -> Scaled:
    """Unit rows in principal axes, without zero rows, equal rows merged. Residuals of rank one get one column.

    Rounding: let V be the computed axes, ||V^T V - I|| <= d = 8 p^(3/2) 2^-52. Any u is V w plus a rest orthogonal to
    V's span, with ||w|| <= (1 + d) ||u||, and z_i^T u differs from (z_i^T V) w by at most ||z_i - V V^T z_i|| ||u||,
    computed. Unit rows and weights have relative errors below 8 p 2^-52. (t)_+ has slope at most 1. So the sum changes
    by at most sum_i ||R_i|| (||z_i - V V^T z_i|| + (d + 32 p 2^-52) ||z_i||). A merged weight sums at most n others.
    """
    p = Z.shape[1]
    largest, heaviest = np.max(np.abs(Z), initial=0.0), np.max(np.abs(R), initial=0.0)
    if largest == 0 or heaviest == 0:
        return Scaled(np.zeros((0, p)), np.zeros((0, 1)), np.eye(p), 1.0, 0.0)
    Z, R = Z / largest, R / heaviest
    lost = len(R) * EPS * float(np.linalg.norm(R, axis=1) @ np.linalg.norm(Z, axis=1))
    Z, place = np.unique(Z, axis=0, return_inverse=True)
    merged = np.zeros((len(Z), R.shape[1]))
    np.add.at(merged, place.ravel(), R)
    peak = np.abs(Z).max(axis=1)
    kept = (peak > 0) & (merged != 0).any(axis=1)
    if not kept.any():
        return Scaled(np.zeros((0, p)), np.zeros((0, 1)), np.eye(p), largest * heaviest, lost)
    Z, weights = Z[kept] / peak[kept, None], merged[kept] * peak[kept, None]
    _, values, axes = np.linalg.svd(Z / np.linalg.norm(Z, axis=1, keepdims=True), full_matrices=False)
    axes = axes[values > _NO_AXIS * values[0]].T
    turned = Z @ axes
    rest = np.linalg.norm(Z - turned @ axes.T, axis=1)
    lengths, heavy = np.linalg.norm(turned, axis=1), np.linalg.norm(weights, axis=1)
    weights, spared = _one_column(weights)
    top = float(heavy @ np.linalg.norm(Z, axis=1))
    error = (8 * p**1.5 + 32 * p) * EPS
    lost += float(heavy @ rest + spared @ np.linalg.norm(Z, axis=1)) * (1 + len(Z) * EPS) + error * top
    lengths = np.where(lengths > 0, lengths, 1.0)
    found = Scaled(turned / lengths[:, None], weights * lengths[:, None] / top, axes, 1.0, 0.0)
    best = max(float(ascend(found.directions, found.weights, starts(found), ASCENTS)[0]), _LEAST_VALUE)
    return found._replace(
        weights=found.weights / best, scale=largest * heaviest * top * best, allowance=lost / (top * best)
    )


def _one_column(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same weights, as one column if their rank is one, and the lengths of what was left out."""
    _, values, combinations = np.linalg.svd(weights, full_matrices=False)
    if len(values) == 1 or values[1] > _NO_AXIS * values[0]:
        return weights, np.zeros(len(weights))
    column = weights @ combinations[:1].T
    rounding = 4 * (weights.shape[1] + 2) * EPS * np.linalg.norm(weights, axis=1)
    return column, np.linalg.norm(weights - column @ combinations[:1], axis=1) + rounding


def starts(scaled: Scaled) -> np.ndarray:
    """Unit neurons: the heaviest rows, their opposites, and random ones."""
    heavy = np.linalg.norm(scaled.weights, axis=1)
    rows = scaled.directions[np.argsort(-heavy, kind="stable")[: _STARTS // 2]]
    random = np.random.default_rng(0).standard_normal((_STARTS, rows.shape[1]))
    return unit(np.concatenate([rows, -rows, random]))
