"""Rows that are held out for a test or in folds, so that training still sees every class and category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxcvx.analysis.folds import make_folds
from jaxcvx.errors import invalid
from jaxcvx.losses.entrywise import Squared
from jaxcvx.losses.softmax import SoftmaxCrossEntropy


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


def held_out_rows(
    X: Float[np.ndarray, "n d"], y: Shaped[np.ndarray, " n"], classes: Sequence[str] | None, fraction: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """A mask of random test rows, stratified for classes; no row for the fraction 0.

    Raises:
      InvalidInputError: the fraction leaves too few rows on either side.
    """
    n = len(y)
    if not 0 <= fraction < 1:
        raise invalid("--test-fraction", fraction, "a number from 0 to below 1")
    held = np.zeros(n, bool)
    if fraction == 0:
        return held
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if classes is not None:  # interleave the classes, so that every slice contains each in proportion
        rank = np.empty(n)
        for code in range(len(classes)):
            mine = order[y[order] == code]
            rank[mine] = (np.arange(len(mine)) + rng.random()) / max(len(mine), 1)
        order = np.argsort(rank, kind="stable")
    count = max(1, round(n * fraction))
    if n - count < 2:
        raise invalid("--test-fraction", fraction, f"a value that leaves 2 of {n} rows to train on")
    held[order[np.linspace(0, n - 1, count).round().astype(int)]] = True
    held = hold_out(held, X, y, classes is not None)
    if not held.any():
        raise invalid("the test part", "no row: each is the only one of a class or category", "more rows")
    return held


def fold_pairs(
    X: Float[np.ndarray, "n d"], y: Shaped[np.ndarray, " n"], classes: Sequence[str] | None, num: int, key: Any
) -> list[tuple[Shaped[np.ndarray, " m"], Shaped[np.ndarray, " k"]]]:
    """Indices (train, test) of random folds, stratified for classes. There are fewer folds if rows are few.

    Every fold leaves out two rows or more, for which R2 is defined. Each trains on every class and category.
    """
    num = max(2, min(num, len(y) // 2))
    Y = y[:, None] if classes is None else np.eye(len(classes))[y]
    loss = Squared() if classes is None else SoftmaxCrossEntropy()
    pairs = []
    for test in make_folds(num, Y, loss, np.ones(len(y)), key).test > 0:
        kept = hold_out(test, X, y, classes is not None)
        held = kept if kept.sum() > 1 else test
        pairs.append((np.flatnonzero(~held), np.flatnonzero(held)))
    return pairs


def classes_not_held_out(classes: Sequence[str] | None, held: Sequence[Shaped[np.ndarray, " m"]]) -> list[str]:
    """The classes without a row in the held-out targets. Their accuracy is unknown."""
    codes = np.concatenate([np.asarray(part, int) for part in held]) if classes and held else np.zeros(0, int)
    return [label for code, label in enumerate(classes or ()) if not (codes == code).any()]
