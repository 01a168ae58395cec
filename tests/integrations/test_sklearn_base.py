"""The common parts of the estimators: outputs, labels, probabilities and scikit-learn's scores."""

from __future__ import annotations

import types

import numpy as np
import pytest

from jaxcvx.errors import InvalidInputError
from jaxcvx.estimators import ConvexReLUClassifier
from jaxcvx.features.dense import Dense
from jaxcvx.integrations import sklearn_base
from jaxcvx.networks.network import Network


def fitted(outputs, classes, loss):
    """A classifier with given weights instead of a fit."""
    rng = np.random.default_rng(0)
    model = ConvexReLUClassifier(loss=loss)
    bias = rng.standard_normal(outputs)
    features = Dense(bias=True, output_bias=True)
    model.network_ = Network(rng.standard_normal((4, 3)), rng.standard_normal((4, outputs)), None, features, bias)
    model.classes_, model.n_features_in_ = np.array(classes), 2
    return model


def outputs(model, X):
    network = model.network_
    return np.maximum(np.c_[X, np.ones(len(X))] @ network.hidden.T, 0) @ network.output + network.output_bias


def test_logistic_of_two_classes():
    model, X = fitted(1, ["a", "b"], "logistic"), np.random.default_rng(1).standard_normal((9, 2))
    F = outputs(model, X)[:, 0]
    np.testing.assert_allclose(model.decision_function(X), F)
    np.testing.assert_allclose(model.predict_proba(X), np.c_[1 / (1 + np.exp(F)), 1 / (1 + np.exp(-F))])
    assert model.predict(X).tolist() == np.where(F > 0, "b", "a").tolist()


def test_softmax_of_three_classes():
    model, X = fitted(3, [4, 5, 9], "softmax"), np.random.default_rng(1).standard_normal((9, 2))
    F = np.exp(outputs(model, X))
    np.testing.assert_allclose(model.predict_proba(X), F / F.sum(axis=1, keepdims=True))
    assert model.predict(X).tolist() == np.array([4, 5, 9])[F.argmax(axis=1)].tolist()


def test_squared_loss_has_no_probabilities():
    with pytest.raises(AttributeError):
        fitted(1, ["a", "b"], "squared").predict_proba(np.zeros((1, 2)))


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        sklearn_base.BaseConvexReLU()


def test_numbers_are_not_booleans():
    assert sklearn_base.is_number(0.5) and not sklearn_base.is_number(True)
    assert not sklearn_base.is_number(types.SimpleNamespace())


def test_a_perfect_fit_is_known_by_its_data():
    """Its objective is a rounding error, which differs from one computation to the next."""
    model, Y = fitted(1, ["a", "b"], "squared"), np.ones((5, 1))
    model.objective_ = 1e-20
    model._refuse_other_data(3e-16, Y, None)
    for weights in (None, np.ones(5)):
        with pytest.raises(InvalidInputError, match="objective is 0.001, expected the training data"):
            model._refuse_other_data(1e-3, Y, weights)
    with pytest.raises(InvalidInputError, match="training data"):
        model._refuse_other_data(np.nan, Y, None)
