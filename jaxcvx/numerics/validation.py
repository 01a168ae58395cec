"""Checks of arguments: arrays, beta, numbers and random keys. Each error names the argument."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import InvalidTypeError, invalid, shown, wrong_type
from jaxcvx.numerics.arrays import is_real, plain_array
from jaxcvx.numerics.trees import is_traced


def check_key(key: Any) -> None:
    """Raise unless ``key`` is a single jax random key.

    Typed keys and old keys (vectors of uint32) are accepted, and all traced values are.

    Raises:
      InvalidTypeError: the key is of another kind.
    """
    if isinstance(key, jax.core.Tracer):
        return
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return
        if key.dtype == np.uint32 and key.ndim == 1:
            return
    raise wrong_type("key", key, "one jax random key, such as jax.random.key(0)")


def as_host_array(name: str, value: Any, ndim: int | tuple[int, ...] = 2) -> np.ndarray:
    """Return a concrete value as a finite real numpy array in its own dtype.

    Args:
      name: the argument's name, for messages.
      value: anything that :func:`jaxcvx.numerics.arrays.plain_array` takes; not traced.
      ndim: the number of axes, or several allowed numbers of axes.

    Raises:
      InvalidTypeError: the value is not numeric, complex, sparse, or not an array at all.
      InvalidInputError: the number of axes is wrong, the array is empty, or an entry is masked, missing or not finite.
    """
    host = plain_array(name, value)
    check_axes(name, host.shape, ndim)
    wide = host.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise invalid(name, f"{wide[where]} at index {where}", "finite numbers only")
    return host


def as_real_matrix(name: str, value: Any, ndim: int | tuple[int, ...] = 2) -> jax.Array:
    """Return a value as a finite real jax array with a floating dtype.

    float32 and float64 are kept where jax allows them. Other dtypes become jax's default float. Of a traced value
    only the shape and the dtype are checked.

    Args:
      name: the argument's name, for messages.
      value: anything that :func:`jaxcvx.numerics.arrays.plain_array` takes, or a traced array.
      ndim: the number of axes, or several allowed numbers of axes.

    Raises:
      InvalidTypeError: the value is not numeric, complex, sparse, or not an array at all.
      InvalidInputError: the number of axes is wrong, the array is empty, or an entry is masked, missing or not finite.
    """
    if is_traced(value):
        _check_real(name, value.dtype)
        check_axes(name, value.shape, ndim)
        return value.astype(_floating(value.dtype))
    host = as_host_array(name, value, ndim)
    target = _floating(host.dtype)
    if np.abs(host.astype(np.float64)).max() > float(jnp.finfo(target).max):
        raise invalid(name, f"numbers beyond the range of {target}", "numbers that fit it")
    return value.astype(target) if isinstance(value, jax.Array) else jax.device_put(host.astype(target))


def check_axes(name: str, shape: tuple[int, ...], ndim: int | tuple[int, ...]) -> None:
    """Raise InvalidInputError unless a shape has ``ndim`` axes (or one of several numbers of axes), none empty."""
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if len(shape) not in allowed:
        raise invalid(name, f"shape {tuple(shape)}", f"{' or '.join(map(str, allowed))} axes")
    if 0 in shape:
        raise invalid(name, f"shape {tuple(shape)}", "at least one row and one column")


def _check_real(name: str, dtype: Any) -> None:
    if not is_real(dtype):
        raise InvalidTypeError(f"{name}: got dtype {dtype}, expected real numbers.")


def _floating(dtype: Any) -> np.dtype:
    """The floating dtype in which the library computes with data of this dtype."""
    narrow = not jnp.issubdtype(dtype, jnp.floating) or np.dtype(dtype).itemsize < 4
    return jax.dtypes.canonicalize_dtype(jnp.result_type(float) if narrow else dtype)


def as_beta(beta: Any, dtype: Any) -> jax.Array:
    """Return beta as a scalar array of the given dtype. Of a traced value only the shape is checked.

    Raises:
      InvalidTypeError: beta is not a number.
      InvalidInputError: beta is negative, not finite, out of the dtype's range, or not a scalar.
    """
    if not is_traced(beta):
        try:
            number = float("x" if isinstance(beta, str | bytes) else beta)
        except (TypeError, ValueError) as err:
            raise InvalidTypeError(f"beta: got {shown(repr(beta))}, expected a non-negative number.") from err
        if not 0 <= number <= float(jnp.finfo(dtype).max):
            raise invalid("beta", number, f"a number >= 0 in the range of {np.dtype(dtype)}")
    if jnp.shape(beta) != ():
        raise invalid("beta", f"shape {jnp.shape(beta)}", "a scalar (use jax.vmap over problem.replace(beta=...))")
    return jnp.asarray(beta, dtype) if isinstance(beta, jax.Array) else jax.device_put(np.asarray(beta, dtype))


def check_number(name: str, value: Any, positive: bool = False, dtype: Any = float) -> None:
    """Raise unless a value is a single finite number >= 0. Traced values are accepted.

    Args:
      name: the argument's name, for messages.
      value: the value.
      positive: refuse 0 too.
      dtype: the dtype in which the number must be finite (and positive).

    Raises:
      InvalidTypeError: the value is not a single real number.
      InvalidInputError: the number is negative, not finite, or 0 where it must be positive.
    """
    if isinstance(value, jax.core.Tracer):
        return
    expected = "a positive number" if positive else "a number >= 0"
    if np.ndim(value) or np.asarray(value).dtype.kind not in "fiub":
        raise wrong_type(name, value, expected)
    with np.errstate(over="ignore", under="ignore"):
        number = float(np.asarray(value, dtype))
    if not 0 <= number < float("inf") or (positive and number == 0):
        raise invalid(name, value, expected)
