"""Folds as weights: every sample is left out once, classes are spread evenly, pairs of indices are kept."""

import jax
import numpy as np
import pytest
from sklearn.model_selection import KFold

import jaxcvx
from jaxcvx.analysis.folds import make_folds
from jaxcvx.losses.entrywise import resolve_loss

KEY = jax.random.key(0)
REAL = np.zeros((23, 1))


def made(folds, Y=REAL, loss="squared", weight=None, key=KEY):
    return make_folds(folds, Y, resolve_loss(loss), np.ones(len(Y)) if weight is None else weight, key)


def test_every_sample_is_left_out_once():
    weight = np.arange(23.0) % 4
    parts = made(5, weight=weight)
    assert parts.train.shape == parts.test.shape == (5, 23)
    np.testing.assert_array_equal(parts.train + parts.test, np.tile(weight, (5, 1)))
    assert ((parts.test > 0).sum(axis=0) == (weight > 0)).all() and not ((parts.test > 0) & (parts.train > 0)).any()
    sizes = (parts.test > 0).sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_allclose(parts.shares(weight), parts.train.sum(axis=1) / weight.sum())


def test_the_key_shuffles():
    first, again, other = made(4), made(4), made(4, key=jax.random.key(1))
    np.testing.assert_array_equal(first.test, again.test)
    assert (first.test != other.test).any()
    blocks = np.diff(np.flatnonzero(first.test[0]))
    assert not (blocks == 1).all() and not (blocks == 4).all()  # neither the samples in turn nor blocks of them
    np.testing.assert_array_equal(made(4, key=jax.random.PRNGKey(0)).test, first.test)  # an old key


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
def test_classes_are_spread_evenly(loss):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], [31, 9]))
    Y = np.eye(2)[labels] if loss == "softmax" else 2.0 * labels[:, None] - 1
    parts = made(4, Y, loss)
    counts = parts.test @ np.eye(2)[labels]
    assert (np.ptp(counts, axis=0) <= 1).all() and np.ptp(counts.sum(axis=1)) <= 1
    assert counts.sum(axis=0).tolist() == [31, 9]


def test_pairs_of_indices_and_masks():
    weight = np.arange(1.0, 24.0)
    pairs = list(KFold(3).split(REAL))
    parts = made(iter(pairs), weight=weight)
    for k, (train, test) in enumerate(pairs):
        np.testing.assert_array_equal(np.flatnonzero(parts.train[k]), train)
        np.testing.assert_array_equal(parts.test[k][test], weight[test])
    masks = [(parts.train[k] > 0, parts.test[k] > 0) for k in range(3)]
    np.testing.assert_array_equal(made(masks, weight=weight).train, parts.train)
    twice = made([([0, 0, 1], [-1])], weight=weight)
    assert twice.train[0, :3].tolist() == [2, 2, 0] and twice.test[0, -1] == 23


@pytest.mark.parametrize(
    "folds, error, match",
    [
        (1, jaxcvx.InvalidInputError, "folds: got 1, expected an integer from 2 to 23"),
        (24, jaxcvx.InvalidInputError, "folds: got 24, expected an integer from 2 to 23"),
        (True, jaxcvx.InvalidTypeError, "folds: got bool"),
        ("5", jaxcvx.InvalidTypeError, "folds: got str"),
        (2.5, jaxcvx.InvalidTypeError, "folds: got float"),
        ([], jaxcvx.InvalidInputError, "folds: got no pairs"),
        ([3, 4], jaxcvx.InvalidTypeError, "folds: got int"),
        ([([0, 1], [23])], jaxcvx.InvalidInputError, "folds: got index 23, expected indices below 23"),
        ([([0, 1], [0.5])], jaxcvx.InvalidInputError, "folds: got an array of float64"),
        ([([0, 1], np.zeros(0, int))], jaxcvx.InvalidInputError, "folds: got no test samples in fold 0"),
    ],
)
def test_bad_folds(folds, error, match):
    with pytest.raises(error, match=match):
        made(folds)


def test_folds_without_weight():
    weight = np.r_[np.zeros(20), np.ones(3)]
    with pytest.raises(jaxcvx.InvalidInputError, match="from 2 to 3, the number of samples with weight"):
        made(4, weight=weight)
    with pytest.raises(jaxcvx.InvalidInputError, match="no train samples in fold 0"):
        made([([0, 1], [22])], weight=weight)
