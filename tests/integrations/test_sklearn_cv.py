"""The estimators that choose beta by cross-validation."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss, mean_absolute_error, r2_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxcvx
from jaxcvx.estimators import (
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)
from tests.helpers import gaussian_data

SMALL = jaxcvx.ColumnGeneration(width=16, move_steps=30, rounds=4, final_rounds=1)
CROSS = {"betas": [0.1, 0.5, 0.02], "beta_scale": "relative", "cv": 3, "solver": SMALL, "random_state": 0}


def curve(n=40):
    X, noise = gaussian_data(0, n, 2)
    return X, np.abs(X[:, 0]) + 0.1 * noise[:, 0]


@pytest.fixture(scope="module")
def model():
    X, y = curve()
    return ConvexReLURegressorCV(**CROSS).fit(X, y)


def predictions(network, X):
    return np.maximum(np.c_[X, np.ones(len(X))] @ network.hidden.T, 0) @ network.output + network.output_bias


def test_attributes(model):
    X, y = curve()
    np.testing.assert_allclose(model.betas_, model.beta_max_ * np.array([0.5, 0.1, 0.02]))  # large ones first
    assert model.cv_scores_.shape == (3, 3) and model.beta_ == model.betas_[model.cv_scores_.mean(axis=0).argmax()]
    result = model.cross_validation_
    assert result.scoring == "r2" and model.path_ is result.path
    chosen = int(result.best)
    batched = jaxcvx.Network(*(np.asarray(a)[chosen] for a in (result.path.network.hidden, result.path.network.output)))
    batched = predictions(model.network_, X) - (
        np.maximum(np.c_[X, np.ones(40)] @ batched.hidden.T, 0) @ batched.output + model.network_.output_bias
    )
    np.testing.assert_allclose(batched, 0, atol=1e-10)
    np.testing.assert_allclose(predictions(model.network_, X)[:, 0], model.predict(X))
    assert model.objective_ == pytest.approx(float(model.path_.upper_bound[chosen]), rel=1e-9)
    assert model.certify(X, y).upper == pytest.approx(model.objective_, rel=1e-9)


def test_scores_are_those_of_the_folds_networks(model):
    X, y = curve()
    result = model.cross_validation_
    rows, targets = np.unique(np.c_[X, y], axis=0)[:, :2], np.unique(np.c_[X, y], axis=0)[:, 2]
    for fold, k in np.ndindex(3, 3):
        network = jaxcvx.Network(*(a[fold, k] for a in (result.networks.hidden, result.networks.output)))
        F = np.maximum(np.c_[rows, np.ones(40)] @ network.hidden.T, 0) @ network.output
        F = F + result.networks.output_bias[fold, k]
        out = result.test_weights[fold, :40] > 0
        np.testing.assert_allclose(model.cv_scores_[fold, k], r2_score(targets[out], F[out, 0]), rtol=1e-8)


def test_the_rule_of_one_standard_error(model):
    X, y = curve()
    sparse = clone(model).set_params(rule="one_standard_error").fit(X, y)
    np.testing.assert_array_equal(sparse.cv_scores_, model.cv_scores_)
    assert sparse.beta_ == model.betas_[model.cross_validation_.one_standard_error] >= model.beta_


def test_scorers_of_scikit_learn(model):
    """The same folds, given as a splitter; a name of scikit-learn, and a function of the estimator."""
    X, y = curve()
    pairs = list(KFold(3, shuffle=True, random_state=1).split(X))
    splitter = KFold(3, shuffle=True, random_state=1)
    named = clone(model).set_params(cv=splitter, scoring="neg_mean_absolute_error").fit(X, y)

    def error(estimator, X, y):
        return -mean_absolute_error(y, estimator.predict(X))

    own = clone(model).set_params(cv=pairs, scoring=error).fit(X, y)
    np.testing.assert_allclose(own.cv_scores_, named.cv_scores_, rtol=1e-12)
    fast = clone(model).set_params(cv=iter(pairs)).fit(X, y)
    slow = clone(model).set_params(cv=pairs, scoring=lambda e, X, y: r2_score(y, e.predict(X))).fit(X, y)
    close = {"rtol": 1e-9, "atol": 1e-12}  # R2 of a constant is a rounding error
    np.testing.assert_allclose(fast.cv_scores_, slow.cv_scores_, **close)
    np.testing.assert_allclose(fast.cross_validation_.train_scores, slow.cross_validation_.train_scores, **close)
    assert fast.beta_ == slow.beta_


def test_weights_are_repetitions(model):
    """Weights in the training and in the score: the same numbers to the last bit."""
    X, y = curve(20)
    weight = np.random.default_rng(0).integers(0, 3, 20)
    half = np.arange(20) % 2 == 0
    again = np.repeat(np.arange(20), weight)
    weighted = clone(model).set_params(cv=[(half, ~half), (~half, half)]).fit(X, y, sample_weight=weight)
    pairs = [(half[again], ~half[again]), (~half[again], half[again])]
    repeated = clone(model).set_params(cv=pairs).fit(X[again], y[again])
    np.testing.assert_allclose(weighted.cv_scores_, repeated.cv_scores_, rtol=1e-12)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-12)
    scored = clone(weighted).set_params(scoring="neg_mean_squared_error").fit(X, y, sample_weight=weight)
    slow = clone(weighted).set_params(scoring="neg_root_mean_squared_error").fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(scored.cv_scores_, -(slow.cv_scores_**2), rtol=1e-9)


def test_classifier():
    X, _ = gaussian_data(1, 42, 2)
    y = np.array(["left", "middle", "right"])[np.digitize(X[:, 0], [-0.5, 0.5])]
    model = ConvexReLUClassifierCV(**CROSS).fit(X, y)
    assert model._loss == "softmax" and model.score(X, y) > 0.9 and model.cross_validation_.scoring == "accuracy"
    assert ((model.cv_scores_ >= 0) & (model.cv_scores_ <= 1)).all()
    logs = clone(model).set_params(scoring="neg_log_loss").fit(X, y)
    slow = clone(model).set_params(scoring=lambda e, X, y: -log_loss(y, e.predict_proba(X), labels=e.classes_))
    np.testing.assert_allclose(slow.fit(X, y).cv_scores_, logs.cv_scores_, rtol=1e-6)
    counts = (logs.cross_validation_.test_weights > 0).sum(axis=1)
    assert np.ptp(counts) <= 1


@pytest.mark.long
def test_auto_is_the_cross_validation():
    X, y = curve()
    plain = ConvexReLURegressor(solver=SMALL, random_state=0).fit(X, y)
    cross = ConvexReLURegressorCV(solver=SMALL, random_state=0).fit(X, y)
    np.testing.assert_array_equal(plain.cv_scores_, cross.cv_scores_)
    assert plain.beta_ == cross.beta_ and len(plain.betas_) == 20
    np.testing.assert_allclose(plain.betas_[-1] / plain.betas_[0], 0.01)
    np.testing.assert_array_equal(plain.predict(X), cross.predict(X))
    labels = ConvexReLUClassifier(solver=SMALL, random_state=0).fit(X, y > 1)
    assert labels.cv_scores_.shape == (5, 20) and labels.score(X, y > 1) > 0.8


@pytest.mark.long
def test_outer_cross_validation():
    X, y = curve()
    scores = cross_val_score(make_pipeline(StandardScaler(), ConvexReLURegressorCV(**CROSS)), X, y, cv=3)
    assert scores.mean() > 0.7


@pytest.mark.parametrize(
    "name, value",
    [
        ("betas", 0),
        ("betas", [0.1, -1.0]),
        ("betas", [[0.1]]),
        ("betas", "many"),
        ("beta_scale", "log"),
        ("cv", 1),
        ("cv", 100),
        ("cv", "five"),
        ("cv", [([0, 1], [99])]),
        ("cv", 40),
        ("rule", "first"),
        ("solver", jaxcvx.ConeADMM()),
        ("scoring", 3),
        ("loss", "hinge"),
    ],
)
def test_bad_parameters(name, value):
    X, y = curve()
    with pytest.raises(jaxcvx.JaxcvxError, match=f"^{name}: "):
        ConvexReLURegressorCV(**CROSS | {name: value}).fit(X, y)
