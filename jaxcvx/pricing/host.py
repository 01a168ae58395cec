"""Prices of neurons in numpy, for searches that run on the host: their values, and ascents to good ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_STARTS, _STEPS = 64, 40


def price_of(rows: Float[np.ndarray, "n p"], residual: Float[np.ndarray, "n q"], u: Float[np.ndarray, p]) -> float:
    """The price ||R^T (Z u)_+|| of a neuron u."""
    return float(np.linalg.norm(residual.T @ np.maximum(rows @ u, 0.0)))


def ascend(
    rows: Float[np.ndarray, "n p"], residual: Float[np.ndarray, "n q"], U: Float[np.ndarray, "m p"], steps: int
) -> tuple[float, Float[np.ndarray, p]]:
    """The largest price on the way of damped ascents ``u <- unit(u + g / |g|)`` from unit neurons, and its neuron."""
    highest, best = -1.0, U[0]
    for step in range(steps + 1):
        inner = U @ rows.T
        V = np.maximum(inner, 0.0) @ residual
        price = np.linalg.norm(V, axis=1)
        if price.max() > highest:
            highest, best = float(price.max()), U[np.argmax(price)]
        if step < steps:
            U = unit(U + unit(np.where(inner > 0, unit(V) @ residual.T, 0.0) @ rows))
    return highest, best


def ascend_on_host(
    rows: Float[np.ndarray, "n p"],
    residual: Float[np.ndarray, "n q"],
    starts: Float[np.ndarray, "m p"] | None = None,
    seed: int = 0,
) -> tuple[Float[np.ndarray, p], float]:
    """A unit neuron of large price, and its price. Ascents begin at ``starts``, at random and between rows."""
    rng = np.random.default_rng(seed)
    p = rows.shape[1]
    largest = float(np.linalg.norm(rows, axis=1).max(initial=0.0)) or 1.0
    Z, R = rows / largest, residual / (float(np.abs(residual).max(initial=0.0)) or 1.0)
    given = np.zeros((0, p)) if starts is None else np.asarray(starts, np.float64)
    ends = Z[rng.integers(len(Z), size=(2, _STARTS // 2))]
    fresh = unit(np.concatenate([given, rng.standard_normal((_STARTS // 2, p)), ends[0] - ends[1]]))
    best = ascend(Z, R, fresh, _STEPS)[1]
    return best, price_of(rows, residual, best)


def unit(a: Float[np.ndarray, "m p"]) -> Float[np.ndarray, "m p"]:
    """The rows scaled to length 1; rows of zeros stay."""
    size = np.linalg.norm(a, axis=1, keepdims=True)
    return a / np.where(size > 0, size, 1.0)
