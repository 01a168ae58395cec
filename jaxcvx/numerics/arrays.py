"""Arrays of any library as plain numpy arrays of numbers, or one error that names the argument."""

from __future__ import annotations

import warnings
from decimal import Decimal
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import InvalidTypeError, invalid, shown, wrong_type


def plain_array(name: str, value: Any) -> np.ndarray:
    """Return a concrete value as a plain numpy array of real numbers, in the machine's byte order.

    Integers, booleans and floats of up to 64 bits keep their type. Longer floats become float64. Arrays of objects
    become float64 if every entry is a real number; so do the nullable columns of pandas. Nothing is dropped: a masked
    or a missing entry is an error, because the number behind it is not data.

    Args:
      name: the argument's name, for messages.
      value: nested sequences, or an array of any library that numpy can read; not traced.

    Raises:
      InvalidTypeError: the value is not numeric, complex, sparse, or not an array at all.
      InvalidInputError: an entry is masked or missing.
    """
    if isinstance(value, np.ma.MaskedArray) or _holds_masked(value):
        value = unmasked(name, value if isinstance(value, np.ma.MaskedArray) else _stacked(value))
    if _is_sparse(value):
        raise InvalidTypeError(f"{name}: got a sparse matrix, expected a dense array (value.toarray() is one).")
    host = _as_numpy(name, value)
    if host.dtype.kind == "O":
        host = _numbers(name, host, value)
    if not is_real(host.dtype):
        raise InvalidTypeError(f"{name}: got dtype {host.dtype}, expected real numbers.")
    if host.dtype.kind == "f" and host.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            return host.astype(np.float64)
    return host.astype(host.dtype.newbyteorder("=")) if not host.dtype.isnative else host


def is_real(dtype: Any) -> bool:
    """True for booleans, integers and floats, those of machine learning included."""
    if jnp.issubdtype(dtype, jnp.floating):
        return True
    if jnp.issubdtype(dtype, jax.dtypes.extended):  # random keys
        return False
    dtype = np.dtype(dtype)
    return dtype.kind == "b" or (jnp.issubdtype(dtype, jnp.integer) and dtype.kind != "m")  # numpy counts timedelta64


def _as_numpy(name: str, value: Any) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.VisibleDeprecationWarning)
            if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
                return np.from_dlpack(value)
            host = np.asarray(value)
    except Exception as err:  # other libraries raise what they like, such as RuntimeError for a tensor with gradients
        raise InvalidTypeError(
            f"{name}: got {type(value).__name__}, expected a real array ({shown(err) or type(err).__name__})."
        ) from err
    if host.dtype.kind == "O" and host.ndim == 0:
        raise wrong_type(name, value, "a real array")
    return host.view(np.ndarray)


def _holds_masked(value: Any) -> bool:
    """True for a list or tuple with a masked entry or array. numpy would drop the masks."""
    if not isinstance(value, list | tuple):
        return False
    return any(each is np.ma.masked or isinstance(each, np.ma.MaskedArray) or _holds_masked(each) for each in value)


def _stacked(value: Any) -> np.ma.MaskedArray:
    """Nested lists with masked entries as one masked array."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy makes the data behind a masked entry NaN, and says so
            return np.ma.array(np.ma.asarray(value), mask=_masks(value))
    except (ValueError, TypeError):  # ragged: refused below
        return np.ma.masked_all(1)


def _masks(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_masks(each) for each in value]
    return np.ma.getmaskarray(value)[()]


def unmasked(name: str, value: np.ma.MaskedArray) -> np.ndarray:
    """The data of a masked array, which may have no masked entry.

    Raises:
      InvalidInputError: an entry is masked.
    """
    mask = np.ma.getmaskarray(value)
    if mask.dtype.names is None and mask.any():
        where = tuple(int(i) for i in np.argwhere(mask)[0])
        raise invalid(name, f"{int(mask.sum())} masked entries, the first at index {where}", "no masked entries")
    return np.ma.getdata(value)


def _is_sparse(value: Any) -> bool:
    """True for the sparse matrices of scipy, jax and others: they have no ``__array__`` but a way to become dense."""
    if isinstance(value, jax.Array | np.ndarray) or hasattr(value, "__array__"):
        return False
    return hasattr(value, "shape") and (hasattr(value, "toarray") or hasattr(value, "todense"))


def _numbers(name: str, host: np.ndarray, value: Any) -> np.ndarray:
    """An array of objects as float64, if every entry is a real number."""
    columns = getattr(value, "columns", None)
    for where, entry in np.ndenumerate(host):
        if isinstance(entry, Real | Decimal | np.bool_) or (isinstance(entry, np.generic) and is_real(entry.dtype)):
            continue
        place = f"at index {where}"
        if columns is not None and len(where) == 2:
            place += f", column {shown(repr(columns[where[1]]))}"
        if is_missing(entry):
            raise invalid(name, f"{entry!r} {place}, a missing value", "no missing values")
        raise InvalidTypeError(f"{name}: got {type(entry).__name__} {place}, expected real numbers.")
    return host.astype(np.float64)


def is_missing(entry: Any) -> bool:
    """True for None and for the signs of pandas for a missing value."""
    return entry is None or type(entry).__name__ in ("NAType", "NaTType")
