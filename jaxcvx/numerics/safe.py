"""Divisions and norms that are defined at zero, with finite derivatives there, for numpy and for jax arrays.

The result for numpy arrays is a numpy array. So arrays of varying shapes can be used without compiling anything.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _module(*arrays: Any) -> Any:
    """jax.numpy if any argument is a jax array, otherwise numpy."""
    return jnp if any(isinstance(a, jax.Array) for a in arrays) else np


def divisor(b: Any) -> Any:
    """Replace the entries of ``b`` that are not positive by 1, so that one can divide by the result.

    >>> import numpy as np
    >>> divisor(np.array([2.0, 0.0]))
    array([2., 1.])
    """
    return _module(b).where(b > 0, b, 1)


def divide(a: Any, b: Any) -> Any:
    """``a / b`` where b > 0, and 0 elsewhere. The shapes broadcast.

    >>> import numpy as np
    >>> divide(np.array([3.0, 3.0]), np.array([2.0, 0.0]))
    array([1.5, 0. ])
    """
    return _module(a, b).where(b > 0, a / divisor(b), 0)


def norm(A: Any, axis: int | tuple[int, ...] | None = -1, keepdims: bool = False) -> Any:
    """Euclidean norm over ``axis``, or over all axes if it is None. Its derivative at zero is zero.

    >>> import jax, jax.numpy as jnp
    >>> print(jax.grad(norm)(jnp.zeros(2)))
    [0. 0.]
    """
    module = _module(A)
    squares = module.sum(A**2, axis=axis, keepdims=keepdims)
    return module.where(squares > 0, module.sqrt(divisor(squares)), 0)


def unit_rows(A: Any) -> Any:
    """Scale the rows of A (..., m, p) to norm 1. Zero rows stay zero, and no square overflows or underflows.

    >>> import numpy as np
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    module = _module(A)
    A = A / divisor(module.abs(A).max(axis=-1, keepdims=True, initial=0.0))
    return A / module.sqrt(divisor((A**2).sum(axis=-1, keepdims=True)))
