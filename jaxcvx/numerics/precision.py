"""Products in the full precision of their dtype, and float64 on the host.

By default accelerators round the factors of float32 products: GPUs to TF32, TPUs to bfloat16. A proved bound, or a gap
of 1e-5, needs all digits of float32. So the library sets the precision itself, whatever the caller's models use.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.numerics.arrays import plain_array

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def with_full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function so that all matrix products inside it use the highest precision, and ranks broadcast.

    On CPUs products have full precision anyway. There the setting is left alone, because every change of it makes jax
    compile again. The caller's flag that forbids to broadcast ranks is about the caller's code: it is off inside.
    """

    @functools.wraps(function)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with contextlib.ExitStack() as settings:
            if jax.default_backend() != "cpu":
                settings.enter_context(jax.default_matmul_precision("highest"))
            if jax.config.jax_numpy_rank_promotion != "allow":  # type: ignore[attr-defined]
                settings.enter_context(jax.numpy_rank_promotion("allow"))
            return function(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def double_precision():
    """Run the block with float64 on the host's CPU. Bounds are computed here, not in an accelerator's float32."""
    if jnp.result_type(float) == jnp.float64 and jax.default_backend() == "cpu":
        yield  # already so; entering the contexts again would make jax compile everything again
        return
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


@contextlib.contextmanager
def default_promotion():
    """Run code of other libraries under jax's default promotion of types and ranks.

    Optimisers of optax and jaxopt mix types, which jax refuses if the caller has set its strict flags. This library's
    own code needs no promotion.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def to_double(tree: Any) -> Any:
    """Copy a pytree to the host and its floating leaves to float64. Call it inside ``double_precision()``."""

    def convert(x):
        host = np.asarray(x)
        return jax.device_put(host.astype(np.float64) if jnp.issubdtype(host.dtype, jnp.floating) else host)

    return jax.tree.map(convert, tree)


def widened(name: str, value: Any) -> Any:
    """Floats as a numpy array in float64, so that no digit is lost; integers as they are; None stays None.

    Raises:
      InvalidTypeError, InvalidInputError: not an array of real numbers; ``name`` is the argument's.
    """
    if value is None:
        return None
    host = plain_array(name, value)
    return host.astype(np.float64) if jnp.issubdtype(host.dtype, jnp.floating) else host
