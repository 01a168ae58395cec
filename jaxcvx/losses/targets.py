"""Targets in the shape (n, c) and with the values that a loss takes: reals, signs, one-hot rows."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxcvx.errors import invalid
from jaxcvx.losses.base import Loss
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import as_real_matrix


def as_targets(loss: Loss, Y: Any, num_samples: int, dtype: Any, num_classes: int | None = None) -> jax.Array:
    """Targets in the shape (n, c) and with the values that ``loss`` takes.

    Squared and Huber: floats (n,) or (n, c). Logistic and hinge: +-1, or {0, 1} which become +-1.
    Softmax: integer labels (n,) in 0..c-1, or one-hot rows (n, c).

    Raises:
      InvalidTypeError, InvalidInputError: naming Y, what was got and what was expected.
    """
    if not is_traced(Y) and not isinstance(Y, jax.Array):
        Y = plain_array("Y", Y)
    ndim = getattr(Y, "ndim", 0)
    if ndim not in (1, 2):
        raise invalid("Y", f"shape {tuple(Y.shape)}", "shape (n,) or (n, c)")
    host = None if is_traced(Y) else plain_array("Y", Y)
    Y = as_real_matrix("Y", Y, ndim)
    if Y.shape[0] != num_samples:
        raise invalid("Y", f"{Y.shape[0]} rows", f"{num_samples}, the number of rows of X")
    if loss.kind == "label":
        return _one_hot(Y, host, dtype, num_classes)
    Y = Y.astype(dtype).reshape(num_samples, -1)
    if loss.kind == "sign" and host is not None:
        values = set(np.unique(host.astype(np.float64)).tolist())
        if values <= {0.0, 1.0}:
            Y = 2 * Y - 1
        elif not values <= {-1.0, 1.0}:
            got = sorted(values)[:5]
            raise invalid("Y", f"values {got}", f"-1 and +1 (or 0 and 1) for loss={loss.name!r}")
    return Y


def _one_hot(Y: jax.Array, host: np.ndarray | None, dtype: Any, num_classes: int | None) -> jax.Array:
    """One-hot rows. ``host`` holds the values of Y, or is None if Y is traced."""
    if Y.ndim == 2 and Y.shape[1] > 1:
        if host is not None:
            if not (np.isin(host, (0, 1)).all() and (host.sum(1) == 1).all()):
                raise invalid("Y", "a matrix that is not one-hot", "integer labels (n,) or one-hot rows (n, c)")
        return Y.astype(dtype)
    if host is None:
        raise invalid("Y", "traced labels", "one-hot rows (n, c) inside jit, where the classes can't be counted")
    given = host.astype(np.float64).reshape(-1)
    wrong = (given != np.round(given)) | (given < 0) | (given > 2**31)
    if wrong.any():
        raise invalid("Y", f"label {given[wrong][0]:g}", "integers 0..c-1")
    labels = given.astype(np.int64)
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.max() >= classes:
        raise invalid("Y", f"label {labels.max()}", f"labels below {classes}, the number of outputs")
    if classes > 10 * len(labels) + 100:
        raise invalid("Y", f"label {labels.max()}", "labels 0..c-1 without such gaps")
    return jax.device_put((labels[:, None] == np.arange(max(classes, 2))).astype(dtype))
