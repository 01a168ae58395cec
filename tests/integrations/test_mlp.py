"""Networks from scikit-learn's MLPs: the same outputs, and the certificate's objective is scikit-learn's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor

import jaxcvx
from jaxcvx.estimators import from_sklearn
from tests.helpers import gaussian_data

ALPHA = 0.7
FIT = {"hidden_layer_sizes": 6, "solver": "lbfgs", "alpha": ALPHA, "max_iter": 2000, "random_state": 0}


def fitted(classes):
    """Data, their targets, a fitted MLP and the loss; 0 classes for regression."""
    X, Y = gaussian_data(0, 40, 2)
    if not classes:
        y = np.abs(X[:, 0]) + 0.1 * Y[:, 0] + 3
        return X, y, MLPRegressor(**FIT).fit(X, y), "squared"
    codes = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3 if classes == 3 else 0)
    mlp = MLPClassifier(**FIT).fit(X, np.array(["a", "b", "c"])[codes])
    return X, codes, mlp, "logistic" if classes == 2 else "softmax"


def loss_by_hand(loss, F, y):
    if loss == "squared":
        return 0.5 * ((F[:, 0] - y) ** 2).sum()
    if loss == "logistic":
        return np.logaddexp(0, np.where(y == 1, -F[:, 0], F[:, 0])).sum()
    return (np.log(np.exp(F).sum(axis=1)) - F[np.arange(len(y)), y]).sum()


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_outputs_and_certificate(classes):
    X, y, mlp, loss = fitted(classes)
    network = from_sklearn(mlp)
    assert network.features == jaxcvx.Dense(bias=True, output_bias=True)
    F = np.maximum(X @ mlp.coefs_[0] + mlp.intercepts_[0], 0) @ mlp.coefs_[1] + mlp.intercepts_[1]
    np.testing.assert_allclose(network(X), F, rtol=1e-6, atol=1e-9)
    if classes == 0:
        np.testing.assert_allclose(np.asarray(network(X))[:, 0], mlp.predict(X), rtol=1e-6)
    elif classes == 2:
        np.testing.assert_allclose(1 / (1 + np.exp(-F[:, 0])), mlp.predict_proba(X)[:, 1], rtol=1e-6)
    else:
        shares = np.exp(F) / np.exp(F).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(shares, mlp.predict_proba(X), rtol=1e-6)
    weights = (mlp.coefs_[0] ** 2).sum() + (mlp.coefs_[1] ** 2).sum()
    value = loss_by_hand(loss, F, y) + ALPHA / 2 * (weights + (mlp.intercepts_[0] ** 2).sum())
    method = "relaxed" if classes == 3 else "auto"  # a bound at once, without a search
    certificate = jaxcvx.certify(network, X, y, ALPHA, loss=loss, method=method)
    assert certificate.upper == pytest.approx(value, rel=1e-9)
    assert certificate.lower <= certificate.balanced <= certificate.upper and np.isfinite(certificate.lower)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_without_decay_of_biases_the_objective_is_that_of_scikit_learn(classes):
    """The mean loss of scikit-learn with alpha / (2 n) is ours over n, with beta = alpha."""
    X, y, mlp, loss = fitted(classes)
    network = dataclasses.replace(from_sklearn(mlp), features=jaxcvx.FreeBias())
    value = jaxcvx.training_objective(network, X, y, ALPHA, loss)
    assert float(value) == pytest.approx(len(X) * mlp.loss_, rel=1e-9)


def test_a_certificate_of_the_objective_of_scikit_learn():
    X, y, mlp, _ = fitted(0)
    network = dataclasses.replace(from_sklearn(mlp), features=jaxcvx.FreeBias())
    certificate = jaxcvx.certify(network, X, y, ALPHA)
    assert certificate.upper == pytest.approx(len(X) * mlp.loss_, rel=1e-9)
    assert certificate.scope == "global" and 0 < certificate.lower <= certificate.upper


def test_several_outputs_and_several_labels():
    X, Y = gaussian_data(1, 20, 2, 2)
    few = FIT | {"max_iter": 20}
    with pytest.warns(UserWarning):  # scikit-learn asks for more iterations
        regressor = MLPRegressor(**few).fit(X, Y)
        labels = MLPClassifier(**few).fit(X, (Y > 0).astype(int))
    np.testing.assert_allclose(from_sklearn(regressor)(X), regressor.predict(X), rtol=1e-6, atol=1e-9)
    F = np.asarray(from_sklearn(labels)(X))
    np.testing.assert_allclose(1 / (1 + np.exp(-F)), labels.predict_proba(X), rtol=1e-6)
    signs = 2 * (Y > 0) - 1
    network = from_sklearn(labels)
    weights = sum((part**2).sum() for part in (network.hidden, network.output))
    value = np.logaddexp(0, -signs * F).sum() + ALPHA / 2 * weights
    upper = jaxcvx.training_objective(network, X, (Y > 0).astype(int), ALPHA, "logistic")
    assert float(upper) == pytest.approx(value, rel=1e-9)


def test_further_training_of_the_mlp_leaves_the_network():
    X, y, mlp, _ = fitted(0)
    network = from_sklearn(mlp)
    before = network.output.copy()
    for array in (*mlp.coefs_, *mlp.intercepts_):
        array += 1
    np.testing.assert_array_equal(network.output, before)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"hidden_layer_sizes": (3, 3)}, "2 hidden layers of sizes .*one hidden layer"),
        ({"hidden_layer_sizes": ()}, "0 hidden layers"),
        ({"activation": "tanh"}, "activation='tanh'.*activation='relu'"),
    ],
)
def test_other_networks_are_refused(settings, message):
    X, y = gaussian_data(0, 10, 2)
    mlp = MLPRegressor(**FIT | settings).fit(X, y[:, 0])
    with pytest.raises(jaxcvx.InvalidInputError, match=f"mlp: got .*{message}"):
        from_sklearn(mlp)


def test_other_output_activations_are_refused():
    X, y = gaussian_data(0, 10, 2)
    mlp = MLPRegressor(**FIT).fit(X, y[:, 0])
    mlp.out_activation_ = "exp"  # as loss="poisson" sets it in scikit-learn 1.7 and later
    with pytest.raises(jaxcvx.InvalidInputError, match="'exp'.*squared_error"):
        from_sklearn(mlp)


def test_other_objects_are_refused():
    with pytest.raises(jaxcvx.InvalidTypeError, match="mlp: got Ridge.*of a pipeline, its last step"):
        from_sklearn(Ridge())
    with pytest.raises(NotFittedError):
        from_sklearn(MLPRegressor())
