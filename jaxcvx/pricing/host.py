"""Prices of neurons in numpy, for searches that run on the host: their values, and ascents to good ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_STARTS, _STEPS = 64, 40


def price_of(rows: Float[np.ndarray, "n p"], residual: Float[np.ndarray, "n q"], u: Float[np.ndarray, p]) -> float:
    """The price ||R^T (Z u)_+|| of a neuron u."""
    return float(np.linalg.norm(residual.T @ np.maximum(rows @ u, 0.0)))


def ascend_on_host(
    rows: Float[np.ndarray, "n p"],
    residual: Float[np.ndarray, "n q"],
    starts: Float[np.ndarray, "m p"] | None = None,
    seed: int = 0,
    steps: int = _STEPS,
) -> tuple[Float[np.ndarray, p], float]:
    """A unit neuron of large price by damped ascents ``u <- unit(u + g / |g|)``, and its price.

    The ascents begin at ``starts``, at random directions and at differences of random rows.
    """
    rng = np.random.default_rng(seed)
    p = rows.shape[1]
    largest = float(np.linalg.norm(rows, axis=1).max(initial=0.0)) or 1.0
    Z, R = rows / largest, residual / (float(np.abs(residual).max(initial=0.0)) or 1.0)
    given = np.zeros((0, p)) if starts is None else np.asarray(starts, np.float64)
    ends = Z[rng.integers(len(Z), size=(2, _STARTS // 2))]
    U = _unit(np.concatenate([given, rng.standard_normal((_STARTS // 2, p)), ends[0] - ends[1]]))
    best, highest = np.eye(1, p)[0], -1.0
    for step in range(steps + 1):
        inner = U @ Z.T
        V = np.maximum(inner, 0.0) @ R
        price = np.linalg.norm(V, axis=1)
        if price.max() > highest:
            best, highest = U[np.argmax(price)], float(price.max())
        if step < steps:
            U = _unit(U + _unit((np.where(inner > 0, _unit(V) @ R.T, 0.0)) @ Z))
    return best, price_of(rows, residual, best)


def _unit(a: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(a, axis=1, keepdims=True)
    return a / np.where(size > 0, size, 1.0)
