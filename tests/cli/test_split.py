"""Held-out rows: every class and every category stays in training."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.analysis.folds import make_folds
from jaxcvx.cli.pipeline import Settings, split_data
from jaxcvx.cli.split import classes_not_held_out, fold_pairs, hold_out
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import Dataset
from jaxcvx.errors import InvalidInputError
from jaxcvx.losses.entrywise import Logistic
from jaxcvx.losses.softmax import SoftmaxCrossEntropy


def split(X, y, classes, seed, fraction=0.2):
    task = "regression" if classes is None else "classification"
    names = tuple(f"c{i}" for i in range(X.shape[1]))
    data = Dataset("d", X, y, task, names, classes)
    return split_data(data, Settings(seed=seed, test_fraction=fraction), Schema.numeric(names))


@pytest.mark.parametrize("rare", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.2, 0.9])
def test_a_rare_class_stays_in_training(rare, fraction):
    """1 row among 40: 16 of 100 seeds trained without it."""
    rng = np.random.default_rng(0)
    y = np.zeros(40, np.int64)
    y[:rare] = 1
    for seed in range(100):
        parts = split(rng.normal(size=(40, 2)), y, ("often", "rare"), seed, fraction)
        assert set(parts.y) == {0, 1}
        missing = classes_not_held_out(("often", "rare"), [parts.y_test])
        assert missing == [c for code, c in enumerate(("often", "rare")) if code not in parts.y_test]
        assert rare > 1 or missing == ["rare"]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_rare_category_stays_in_training(task):
    """A one-hot column of one row, an indicator of one missing cell, and a column that is 0 in one row only."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 5))
    X[:, 1:4] = 0
    X[7, 1] = X[12, 2] = X[13, 2] = 1
    X[:, 3] = np.arange(40) != 20
    for seed in range(60):
        y, classes = (np.arange(40) % 2, ("a", "b")) if task == "classification" else (rng.normal(size=40), None)
        parts = split(X, y, classes, seed)
        assert (np.ptp(parts.X, axis=0) > 0).all()
        assert len(parts.y_test) >= 5


def test_many_singletons_leave_no_test_row():
    with pytest.raises(InvalidInputError, match="the test part: got no row"):
        split(np.eye(6), np.arange(6), tuple("abcdef"), 0)


def test_only_what_would_vanish_comes_back():
    held = np.array([True, True, False, True, False])
    X = np.array([[0.0, 5], [0, 5], [0, 5], [1, 5], [0, 5]])
    np.testing.assert_array_equal(hold_out(held, X, np.arange(5.0), False), [True, True, False, False, False])
    codes = np.array([1, 1, 0, 0, 0])
    np.testing.assert_array_equal(hold_out(held, X * 0, codes, True), [False, True, False, True, False])


def test_folds_train_on_every_class_and_category():
    import jax

    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3))
    X[:, 2] = np.arange(30) == 4
    y = np.array([0] * 20 + [1] * 8 + [2] * 2)
    for seed in range(20):
        pairs = fold_pairs(X, y, ("a", "b", "c"), 5, jax.random.key(seed))
        assert len(pairs) == 5
        for train, test in pairs:
            assert set(y[train]) == {0, 1, 2} and np.ptp(X[train], axis=0).all()
            assert len(test) > 1 and not set(train) & set(test) and len(train) + len(test) == 30
    few = fold_pairs(X[:5, :2], X[:5, 0], None, 5, jax.random.key(0))
    assert len(few) == 2 and min(len(test) for _, test in few) == 2
    assert classes_not_held_out(("a", "b"), [np.array([0, 0]), np.array([0])]) == ["b"]
    assert classes_not_held_out(None, []) == []


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), Logistic()])
def test_folds_keep_a_single_sample_of_a_class_in_training(loss):
    import jax

    Y = np.eye(3)[[0] * 6 + [1] * 5 + [2]]
    Y = Y if loss.kind == "label" else 2 * Y - 1
    for seed in range(20):
        folds = make_folds(4, Y, loss, np.ones(12), jax.random.key(seed))
        assert (folds.train[:, 11] == 1).all() and (folds.test.sum(axis=0)[:11] == 1).all()
        assert folds.test.any(axis=1).all()
    two = make_folds(3, np.concatenate([Y, Y[-1:]]), loss, np.ones(13), jax.random.key(0))
    assert (two.train[:, 11:].sum(axis=1) >= 1).all()
