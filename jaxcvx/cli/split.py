"""Rows that are held out for a test or for validation, so that training still sees every class and category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped


def hold_out(
    held: Bool[np.ndarray, " n"], X: Float[np.ndarray, "n d"], y: Shaped[np.ndarray, " n"], classification: bool
) -> Bool[np.ndarray, " n"]:
    """A mask of held-out rows that leaves a row of every class and of every category to train on.

    Args:
      held: the rows to hold out. If these are all rows of a class or category, its first row goes back to training.
      X: features. A column with two values is the coding of a category, or of missing cells; both values stay.
      y: targets.
      classification: y has the codes of classes.
    """
    held = held.copy()
    low, high = X.min(axis=0), X.max(axis=0)
    two_valued = ((X == low) | (X == high)).all(axis=0) & (low < high)
    for values in (*([y] if classification else []), *X.T[two_valued]):
        for value in np.setdiff1d(values, values[~held]):
            held[np.argmax(values == value)] = False
    return held


def classes_not_held_out(classes: Sequence[str] | None, y_test: Shaped[np.ndarray, " m"]) -> list[str]:
    """The classes without a test row. Their accuracy is unknown."""
    return [label for code, label in enumerate(classes or ()) if not (y_test == code).any()]
