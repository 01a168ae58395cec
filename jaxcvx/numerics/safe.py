"""Divisions and norms that are defined at zero, and whose derivatives are too: for numpy and for jax arrays.

numpy arrays stay on the host, so that sizes that vary compile nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _module(*arrays: Any) -> Any:
    """numpy where no argument is a jax array, else jax.numpy."""
    return jnp if any(isinstance(a, jax.Array) for a in arrays) else np


def divisor(b: Any) -> Any:
    """``b`` where it is positive, else 1: what may be divided by."""
    return _module(b).where(b > 0, b, 1)


def divide(a: Any, b: Any) -> Any:
    """``a / b`` where b > 0, else 0. The shapes broadcast."""
    return _module(a, b).where(b > 0, a / divisor(b), 0)


def norm(A: Any, axis: int | tuple[int, ...] | None = -1, keepdims: bool = False) -> Any:
    """Euclidean norm over ``axis`` (over all axes if None); its derivative at zero is zero."""
    module = _module(A)
    squares = module.sum(A**2, axis=axis, keepdims=keepdims)
    return module.where(squares > 0, module.sqrt(divisor(squares)), 0)


def unit_rows(A: Any) -> Any:
    """Rows of A (..., m, p) scaled to norm 1 without overflow or underflow; zero rows stay zero."""
    module = _module(A)
    A = A / divisor(module.abs(A).max(axis=-1, keepdims=True, initial=0.0))
    return A / module.sqrt(divisor((A**2).sum(axis=-1, keepdims=True)))
