"""Products in the full precision of their dtype.

Accelerators round the factors of float32 products, to TF32 on GPUs and to bfloat16 on TPUs, unless told otherwise.
Dual bounds and steps to a gap of 1e-5 need all digits, whatever precision the caller's own models run in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def with_full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function with every product in it, traced or not, at the highest precision.

    On CPUs products have it already; there nothing is set, as settings are part of what jax's caches look at.
    """

    @functools.wraps(function)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if jax.default_backend() == "cpu":
            return function(*args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapped
