"""Parts of the training pipeline: the split, losses, scores, and the path down to a given beta."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.cli.pipeline import FEATURES, Settings, fold_score, split_data, train
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import Dataset, load_dataset
from jaxcvx.errors import InvalidInputError
from tests.helpers import network_value


def split_of(name: str, **settings):
    data = load_dataset(name)
    return data, split_data(data, Settings(**settings), Schema.numeric(data.feature_names, "target"))


def test_a_split_is_stratified_standardised_and_complete():
    data, split = split_of("iris", seed=3, test_fraction=0.2)
    assert len(split.y) == 120 and len(split.y_test) == 30
    assert np.abs(np.bincount(split.y_test) - 10).max() <= 2  # each class has about its share
    X = split.prep.inputs(split.X)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1, atol=1e-12)
    raw = np.concatenate([split.X, split.X_test])
    order, given = np.lexsort(raw.round(6).T), np.lexsort(data.X.round(6).T)
    np.testing.assert_array_equal(raw[order], data.X[given])


def test_all_rows_train_by_default():
    data, split = split_of("iris")
    np.testing.assert_array_equal(split.X, data.X)
    assert split.X_test.shape == (0, 4)


def test_the_seed_determines_the_split():
    one, same, other = (split_of("diabetes", seed=seed, test_fraction=0.2)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.X_test, same.X_test)
    assert not np.array_equal(one.y_test, other.y_test)


def test_losses_follow_the_target():
    assert split_of("diabetes")[1].prep.loss == "squared"
    assert split_of("breast_cancer")[1].prep.loss == "logistic"
    assert split_of("iris")[1].prep.loss == "softmax"
    with pytest.raises(InvalidInputError, match="^--test-fraction"):
        split_of("iris", test_fraction=0.999)
    with pytest.raises(InvalidInputError, match="^--loss: got logistic"):
        split_of("diabetes", loss="logistic")


def test_the_score_of_classes_is_the_share_of_right_ones():
    prep = split_of("iris", loss="squared")[1].prep
    Y, F = jnp.eye(3)[jnp.array([0, 1, 2, 2])], jnp.array([[9.0, 0, 0], [0, 0, 1], [0, 0, -1], [-3, -2, -1]])
    assert float(fold_score(prep)(Y, F)) == 0.5
    assert fold_score(dataclasses.replace(prep, loss="softmax")) == "accuracy"
    assert fold_score(split_of("diabetes")[1].prep) == "r2"


@pytest.mark.parametrize("beta", [0.4, 1e6])
def test_one_beta_is_reached_finished_and_kept(beta):
    """A given beta, also one above beta_max; the network is kept before its proof."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    data = Dataset("d", X, np.abs(X[:, 0]), "regression", ("a", "b"))
    kept = []
    with jax.enable_x64(True):
        result = train(
            data,
            Schema.numeric(("a", "b"), "y"),
            Settings(beta=beta, folds=2, prove=10.0),
            keep=lambda split, network: kept.append((split.prep.beta, network)),
        )
    prep, network = result.split.prep, result.network
    assert prep.beta == kept[0][0] == beta and network.features == FEATURES
    Z = np.c_[prep.inputs(X), np.ones(30)]
    value = network_value(
        network.hidden, network.output, Z, prep.targets(data.y) - network.output_bias, beta, "squared"
    )
    assert result.certificate.upper == pytest.approx(value, rel=1e-9)
    before = kept[0][1]
    assert value <= float(jaxcvx.training_objective(before, prep.inputs(X), prep.targets(data.y), beta)) * (1 + 1e-6)
    assert result.certificate.lower >= 0.99 * value
    assert result.chosen == len(result.validation.betas) - 1
    if beta > 1:
        assert len(result.validation.betas) == 1 and value == pytest.approx(15.0)  # the best constant
