"""make_problem: the one place where data, targets and regularisation are validated."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxcvx.arrangements.cells import Arrangements, validate_arrangements
from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import as_beta, as_real_matrix
from jaxcvx.operators.features import Features, resolve_features
from jaxcvx.problems.loss import Loss
from jaxcvx.problems.losses import resolve_loss
from jaxcvx.problems.relu import Problem


def as_targets(loss: Loss, Y: Any, num_samples: int, dtype: Any, num_classes: int | None = None) -> jax.Array:
    """Targets in the shape (n, c) that ``loss`` wants.

    Squared and Huber: floats (n,) or (n, c). Logistic and hinge: +-1, or {0, 1} which become +-1.
    Softmax: integer labels (n,) in 0..c-1, or one-hot rows (n, c).

    Raises:
      InvalidTypeError, InvalidInputError: naming Y, what was got and what was expected.
    """
    if not is_traced(Y) and not isinstance(Y, jax.Array):
        try:
            Y = np.asarray(Y)
        except (ValueError, TypeError) as err:
            raise wrong_type("Y", Y, "an array of targets") from err
    ndim = getattr(Y, "ndim", 0)
    if ndim not in (1, 2):
        raise invalid("Y", f"shape {tuple(Y.shape)}", "shape (n,) or (n, c)")
    host = None if is_traced(Y) else np.asarray(Y)
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
    """One-hot rows; ``host`` holds the values of Y where they are known."""
    if Y.ndim == 2 and Y.shape[1] > 1:
        if host is not None:
            if not (np.isin(host, (0, 1)).all() and (host.sum(1) == 1).all()):
                raise invalid(
                    "Y", "a matrix that is not one-hot", "integer labels (n,) or one-hot rows (n, c)"
                )
        return Y.astype(dtype)
    if host is None:
        raise invalid(
            "Y", "traced labels", "one-hot rows (n, c) inside jit, where the classes can't be counted"
        )
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
    return jax.nn.one_hot(labels, max(classes, 2), dtype=dtype)


def make_problem(
    X: Any,
    Y: Any,
    beta: Any,
    *,
    loss: str | Loss = "squared",
    arrangements: Arrangements | None = None,
    features: str | Features = "dense",
    max_bytes: int | None = 2**30,
) -> Problem:
    """Build and validate a training problem.

    Args:
      X: (n, d) inputs, real and finite, or the shape that ``features`` wants. float32 and float64 are kept;
        other types become jax's default float.
      Y: (n,) or (n, c) floats; integer labels (n,) for ``"softmax"``; +-1 or {0, 1} for ``"logistic"`` and
        ``"hinge"``.
      beta: weight decay >= 0, absolute: the objective is ``loss + beta/2 * (sum of squared weights)``, the
        loss a sum over samples.
      loss: ``"squared" | "logistic" | "softmax" | "huber" | "hinge" | "interpolation"`` or a Loss such as
        ``Huber(0.5)``.
      arrangements: cells for the convex programs, from ``enumerate_arrangements``,
        ``sample_arrangements`` or ``arrangements_of``.
      features: ``"dense"``, ``jaxcvx.Dense(bias=..., skip=...)``, ``jaxcvx.FreeBias()``, ``jaxcvx.ConvPool(...)``
        or ``jaxcvx.ConvFlatten(...)``.
      max_bytes: the largest intermediate of a product over cells; larger ones are formed in blocks of rows. None for
        no limit. ``problem.memory_estimate(solver)`` tells what a solve takes in all.

    Returns:
      A frozen pytree; ``problem.replace(beta=...)`` gives another.

    Raises:
      InvalidInputError, InvalidTypeError: naming the argument, what was got and what was expected. Under
        jit only shapes and types can be checked.
    """
    loss, features = resolve_loss(loss), resolve_features(features)
    if max_bytes is not None and not (isinstance(max_bytes, int) and max_bytes >= 1):
        raise invalid("max_bytes", repr(max_bytes), "None or a positive number of bytes")
    X = as_real_matrix("X", X, features.ndims)
    num_weights = features.num_weights(*X.shape[1:])
    Y = as_targets(loss, Y, X.shape[0], X.dtype)
    if arrangements is not None:
        if features.free_bias:
            raise invalid("arrangements", "cells", "None with FreeBias(): its pricing needs none")
        if not isinstance(arrangements, Arrangements):
            raise InvalidTypeError(f"arrangements: got {type(arrangements).__name__}, expected Arrangements.")
        num_rows = X.shape[0] * features.readout(*X.shape[1:]).positions
        validate_arrangements(arrangements, num_rows, num_weights)
    return Problem(X, Y, as_beta(beta, X.dtype), arrangements, loss, features, max_bytes)
