"""Scores of predictions with sample weights, for cross-validation. Higher is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.losses.base import Loss
from jaxcvx.losses.weighted import Weighted, WeightedTargets
from jaxcvx.numerics.safe import divisor

Score = Callable[[Array, Array, Array], Array]
"""A function of targets (n, c), predictions (n, c) and sample weights (n,)."""


def r2(Y: Float[Array, "n c"], F: Float[Array, "n c"], w: Float[Array, n]) -> Float[Array, ""]:
    """The coefficient of determination, the mean over outputs. A constant output scores 1 if it is met, else 0."""
    column = w[:, None]
    middle = jnp.sum(column * Y, axis=0) / divisor(jnp.sum(w))
    residual = jnp.sum(column * (Y - F) ** 2, axis=0)
    total = jnp.sum(column * (Y - middle) ** 2, axis=0)
    counts = column > 0
    top, bottom = jnp.max(jnp.where(counts, Y, -jnp.inf), axis=0), jnp.min(jnp.where(counts, Y, jnp.inf), axis=0)
    met = jnp.where(residual == 0, 1.0, 0.0)
    return jnp.mean(jnp.where(top > bottom, 1 - residual / divisor(total), met))


def negative_mean_squared_error(Y: Float[Array, "n c"], F: Float[Array, "n c"], w: Float[Array, n]) -> Float[Array, ""]:
    """Minus the mean over samples and outputs of the squared error."""
    return -jnp.sum(w * jnp.mean((Y - F) ** 2, axis=1)) / divisor(jnp.sum(w))


def class_accuracy(Y: Float[Array, "n c"], F: Float[Array, "n c"], w: Float[Array, n]) -> Float[Array, ""]:
    """The share of samples whose largest prediction is that of their class. Y has the largest entry there."""
    return _share(jnp.argmax(F, axis=1) == jnp.argmax(Y, axis=1), w)


def sign_accuracy(Y: Float[Array, "n c"], F: Float[Array, "n c"], w: Float[Array, n]) -> Float[Array, ""]:
    """The share of right signs, the mean over outputs. A prediction of 0 counts as -1."""
    return _share(jnp.mean(((F > 0) == (Y > 0)).astype(F.dtype), axis=1), w)


def _share(right: Array, w: Float[Array, n]) -> Float[Array, ""]:
    return jnp.sum(w * right) / divisor(jnp.sum(w))


@dataclasses.dataclass(frozen=True)
class NegativeLogLoss:
    """Minus the mean over samples of the logistic or softmax loss.

    Attributes:
      loss: the loss, without weights.
    """

    loss: Loss

    def __call__(self, Y: Float[Array, "n c"], F: Float[Array, "n c"], w: Float[Array, n]) -> Float[Array, ""]:
        return -Weighted(self.loss).value(F, WeightedTargets(Y, w)) / divisor(jnp.sum(w))


@dataclasses.dataclass(frozen=True)
class UnweightedScore:
    """A caller's function of targets and predictions. It sees only the samples to score, all with the same weight.

    Attributes:
      function: ``(Y, F) -> number``, under jit.
    """

    function: Callable[[Array, Array], Any]


NAMES = ("r2", "neg_mean_squared_error", "accuracy", "neg_log_loss")


def score_name(score: Any) -> str:
    """The name that means this score, or ""."""
    if isinstance(score, NegativeLogLoss):
        return "neg_log_loss"
    names = {
        r2: "r2",
        negative_mean_squared_error: "neg_mean_squared_error",
        class_accuracy: "accuracy",
        sign_accuracy: "accuracy",
    }
    return "" if isinstance(score, UnweightedScore) else names.get(score, "")


def resolve_scoring(scoring: Any, loss: Loss) -> Score | UnweightedScore:
    """Turn the argument ``scoring`` into a function. None is R2 for real targets, and accuracy for classes.

    Raises:
      InvalidInputError: the name is unknown, or does not fit the loss.
      InvalidTypeError: the argument is neither a name nor a function.
    """
    loss = loss.unweighted
    real = loss.kind == "real"
    if scoring is None:
        scoring = "r2" if real else "accuracy"
    if callable(scoring):
        return UnweightedScore(scoring)
    if not isinstance(scoring, str):
        raise wrong_type("scoring", scoring, f"None, one of {NAMES}, or a function of (Y, F)")
    known: dict[str, Score]
    if real:
        known = {"r2": r2, "neg_mean_squared_error": negative_mean_squared_error}
    else:
        known = {"accuracy": class_accuracy if loss.kind == "label" else sign_accuracy}
        if loss.name in ("logistic", "softmax"):
            known["neg_log_loss"] = NegativeLogLoss(loss)
    if scoring not in known:
        raise invalid(
            "scoring", repr(scoring), f"one of {tuple(known)} for loss {loss.name!r}, or a function of (Y, F)"
        )
    return known[scoring]
