"""Folds of cross-validation as sample weights: a weight of 0 leaves a sample out, so all folds have the same shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.losses.base import Loss
from jaxcvx.numerics.arrays import plain_array


class Folds(NamedTuple):
    """The weights of all samples in every fold. They include the caller's sample weights.

    Attributes:
      train: weights in the training problem.
      test: weights in the score; positive for the samples that are left out.
    """

    train: Float[np.ndarray, "folds n"]
    test: Float[np.ndarray, "folds n"]

    def shares(self, weight: Float[np.ndarray, n]) -> Float[np.ndarray, folds]:
        """The weight of each fold's training samples over that of all samples. The loss is a sum, so beta scales so."""
        return self.train.sum(axis=1) / weight.sum()

    def padded(self, n: int) -> Folds:
        """The folds of ``n`` samples, where those that are added have weight 0."""
        return Folds(*(np.pad(part, ((0, 0), (0, n - part.shape[1]))) for part in self))


def make_folds(folds: Any, Y: Any, loss: Loss, weight: Float[np.ndarray, n], key: Any) -> Folds:
    """Divide the samples into folds.

    Args:
      folds: the number of folds, or an iterable of pairs (train, test) of indices or boolean masks. A sample whose
        index is repeated counts as often.
      Y: (n, c) targets in the form that the loss expects. Folds are stratified for classes and signs. The
        only sample of a class is always in training.
      loss: its kind tells what the targets are.
      weight: (n,) sample weights. Samples of weight 0 are in no fold.
      key: shuffles the samples.

    Raises:
      InvalidInputError: too few samples, or bad pairs.
      InvalidTypeError: folds are neither an integer nor pairs.
    """
    if isinstance(folds, int | np.integer) and not isinstance(folds, bool):
        return _shuffled_folds(int(folds), np.asarray(Y), loss, weight, key)
    if isinstance(folds, str | bytes | bool) or not hasattr(folds, "__iter__"):
        raise wrong_type("folds", folds, "an integer >= 2, or pairs (train, test) of indices")
    pairs = list(folds)
    if not pairs:
        raise invalid("folds", "no pairs", "an integer >= 2, or pairs (train, test) of indices")
    counts = np.stack([_counts(pair, len(weight)) for pair in pairs])
    made = Folds(counts[:, 0] * weight, counts[:, 1] * weight)
    for name, part in zip(("train", "test"), made, strict=True):
        if not part.any(axis=1).all():
            empty = int(np.argmin(part.any(axis=1)))
            raise invalid("folds", f"no {name} samples in fold {empty}", "samples of positive weight in both parts")
    return made


def _shuffled_folds(num: int, Y: np.ndarray, loss: Loss, weight: np.ndarray, key: Any) -> Folds:
    present = np.flatnonzero(weight > 0)
    if not 2 <= num <= len(present):
        raise invalid("folds", num, f"an integer from 2 to {len(present)}, the number of samples with weight")
    words = np.asarray(jax.random.key_data(key), np.uint32).ravel()
    order = np.random.default_rng(words.tolist()).permutation(present)
    if loss.kind in ("label", "sign"):
        keys = Y[order].argmax(axis=1) if loss.kind == "label" else np.unique(Y[order], axis=0, return_inverse=True)[1]
        order = order[np.argsort(keys.ravel(), kind="stable")]
        single = np.bincount(keys.ravel())[np.sort(keys.ravel())] == 1
        if len(order) - single.sum() >= num:
            order = order[~single]  # the only sample of a class stays in training
    member = np.full(len(weight), -1)
    member[order] = np.arange(len(order)) % num  # the samples of a class follow each other in the order
    test = np.where(member == np.arange(num)[:, None], weight, 0.0)
    return Folds(np.where(test > 0, 0.0, weight), test)


def _counts(pair: Any, n: int) -> np.ndarray:
    """How often every sample is in the two parts of a fold: an array (2, n)."""
    if isinstance(pair, str | bytes) or not hasattr(pair, "__len__") or len(pair) != 2:
        raise wrong_type("folds", pair, "pairs (train, test) of indices")
    counts = []
    for part in pair:
        indices = plain_array("folds", part)
        if indices.dtype == bool and indices.shape == (n,):
            indices = np.flatnonzero(indices)
        if indices.ndim != 1 or indices.dtype.kind not in "iu":
            raise invalid("folds", f"an array of {indices.dtype} {indices.shape}", "vectors of indices, or masks (n,)")
        outside = (indices < -n) | (indices >= n)
        if outside.any():
            raise invalid("folds", f"index {indices[outside][0]}", f"indices below {n}, the number of samples")
        counts.append(np.bincount(indices % n, minlength=n).astype(float))
    return np.stack(counts)
