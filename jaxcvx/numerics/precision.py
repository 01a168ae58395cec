"""Products in the full precision of their dtype, and float64 on the host.

Accelerators round the factors of float32 products, to TF32 on GPUs and to bfloat16 on TPUs, unless told otherwise.
Dual bounds and steps to a gap of 1e-5 need all digits, whatever precision the caller's own models run in.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

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


@contextlib.contextmanager
def double_precision():
    """Float64 on the host for the block inside: bounds are not left to an accelerator's float32."""
    if jnp.result_type(float) == jnp.float64 and jax.default_backend() == "cpu":
        yield  # as it is already; entering the contexts again would compile everything anew
        return
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def to_double(tree: Any) -> Any:
    """Copy of a pytree on the host with its floating leaves in float64; use inside double_precision."""

    def convert(x):
        host = np.asarray(x)
        return jnp.asarray(host.astype(np.float64) if jnp.issubdtype(host.dtype, jnp.floating) else host)

    return jax.tree.map(convert, tree)
