"""The estimators: scikit-learn's own checks, sample weights, scales, certificates, few compilations."""

import logging
import pickle
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import jaxcvx
from jaxcvx.estimators import ConvexReLUClassifier, ConvexReLURegressor
from tests.helpers import gaussian_data, network_value

QUICK = {"n_cells": 32, "max_iter": 300, "random_state": 0}


def _network_value(model, X, Y, loss="squared"):
    Z = np.c_[X, np.ones(len(X))] if model.bias else X
    return network_value(model.network_.hidden, model.network_.output, Z, Y, model.beta_, loss)


@pytest.mark.parametrize("model", [ConvexReLURegressor(), ConvexReLUClassifier()], ids=lambda m: type(m).__name__)
def test_all_checks_of_scikit_learn(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, on_skip=None)
    assert len(results) > 40 and not [r["check_name"] for r in results if r["status"] == "failed"]


def test_grid_search_compiles_once(caplog):
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    pipeline = make_pipeline(StandardScaler(), ConvexReLUClassifier(beta_scale="relative", loss="softmax", **QUICK))
    betas = {"convexreluclassifier__beta": [0.3, 0.1, 0.01]}
    search = GridSearchCV(pipeline, betas, cv=3)

    def compiled(fit):
        caplog.clear()
        with jax.log_compiles():
            fit()
        compilations = [message.split()[1] for message in caplog.messages if message.startswith("Compiling ")]
        return {name for name in compilations if name != "jit(stage)"}  # a program that copies a numpy array

    with caplog.at_level(logging.WARNING, logger="jax"):
        programs = compiled(lambda: clone(pipeline).set_params(convexreluclassifier__beta=0.5).fit(X[::2], names[::2]))
        assert "jit(_train)" in programs
        assert not compiled(lambda: search.fit(X, names))  # sizes 75, 100 and 150, any beta: one program
    assert search.best_score_ > 0.93
    best = search.best_estimator_
    assert set(best.predict(X)) == set(names)
    probabilities = best.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (best.classes_[probabilities.argmax(axis=1)] == best.predict(X)).all()
    assert cross_val_score(best, X, names, cv=3).mean() > 0.93
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_proba(X), probabilities)
    assert not hasattr(clone(best[-1]), "network_")


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression_is_certified(outputs):
    X, Y = gaussian_data(0, 30, 2, outputs)
    y = Y[:, 0] if outputs == 1 else Y
    model = ConvexReLURegressor(beta=0.3, **QUICK).fit(X, y)
    assert model.predict(X).shape == y.shape
    np.testing.assert_allclose(model.objective_, _network_value(model, X, Y), rtol=1e-10)
    assert model.lower_bound_ <= model.objective_ and model.scope_ == "sampled-cells"
    np.testing.assert_allclose(model.gap_, 1 - model.lower_bound_ / model.objective_)
    assert model.beta_ == 0.3 and model.n_features_in_ == 2 and model.n_iter_ == 300


@pytest.mark.long
def test_solver_gives_the_global_optimum_in_the_callers_units():
    X, Y = gaussian_data(1, 12, 2)
    X, Y = 50 * X, 7 * Y
    problem = jaxcvx.make_problem(X, Y, 3.0)
    expected = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(tol=1e-7))
    assert expected.scope == "global"
    model = ConvexReLURegressor(beta=3.0, bias=False, solver=jaxcvx.ColumnGeneration(tol=1e-7)).fit(X, Y[:, 0])
    assert model.scope_ == "global" and model.gap_ < 1e-6
    np.testing.assert_allclose(model.objective_, expected.upper_bound, rtol=1e-6)
    few = ConvexReLURegressor(beta=3.0, bias=False, **QUICK).fit(X, Y[:, 0])
    assert few.scope_ == "global"  # the plane's 24 cells fit into n_cells
    assert few.lower_bound_ <= expected.upper_bound * (1 + 1e-9) <= few.objective_ * (1 + 1e-8)


@pytest.mark.parametrize("outputs", [1, 2])
def test_relative_beta_is_a_fraction_of_beta_max(outputs):
    X, Y = gaussian_data(2, 10, 2, outputs)
    cells = jaxcvx.enumerate_arrangements(X)
    top = float(jaxcvx.make_problem(X, Y, 1.0, arrangements=cells).beta_max("network"))
    model = ConvexReLURegressor(beta=1.001, beta_scale="relative", bias=False, **QUICK).fit(X, Y)
    np.testing.assert_allclose(model.beta_ / 1.001, top, rtol=1e-3)
    assert np.abs(model.predict(X)).max() < 1e-6
    half = ConvexReLURegressor(beta=0.5, beta_scale="relative", bias=False, **QUICK).fit(X, Y)
    assert np.abs(half.predict(X)).max() > 1e-2


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_integer_weights_are_repetitions(loss):
    X, Y = gaussian_data(3, 20, 2)
    rng = np.random.default_rng(0)
    repeats = rng.integers(0, 4, 20)
    rows = rng.permutation(np.repeat(np.arange(20), repeats))
    if loss == "squared":
        model, y = ConvexReLURegressor(**QUICK), Y[:, 0]
    else:
        model, y = ConvexReLUClassifier(loss=loss, **QUICK), np.where(Y[:, 0] > 0, "yes", "no")
    weighted, repeated = clone(model).fit(X, y, sample_weight=repeats), clone(model).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.beta_, repeated.beta_, rtol=1e-10)
    np.testing.assert_allclose(weighted.objective_, repeated.objective_, rtol=1e-7)
    if loss == "squared":
        np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-5, atol=1e-6)


def test_units_do_not_matter():
    """Powers of two change no bit of the normal form. Other units change rounding errors, which training amplifies."""
    X, Y = gaussian_data(4, 25, 3)
    model = ConvexReLURegressor(beta=0.1, beta_scale="relative", bias=False, **QUICK)
    small, large = clone(model).fit(X, Y[:, 0]), clone(model).fit(2.0**13 * X, 2.0**-10 * Y[:, 0])
    np.testing.assert_allclose(large.predict(2.0**13 * X), 2.0**-10 * small.predict(X), rtol=1e-12)
    np.testing.assert_allclose(large.gap_, small.gap_, rtol=1e-12)
    other = clone(model).fit(1e4 * X, 1e-3 * Y[:, 0])
    np.testing.assert_allclose(other.objective_, 1e-6 * small.objective_, rtol=1e-6)


def test_classifier_losses():
    X, Y = gaussian_data(5, 40, 2)
    y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")  # not linearly separable
    for loss in ("logistic", "softmax", "squared"):
        model = ConvexReLUClassifier(loss=loss, **QUICK).fit(X, y)
        assert model.score(X, y) > 0.9
        assert model.decision_function(X).shape == (40,)
        assert hasattr(model, "predict_proba") == (loss != "squared")
    three = np.digitize(X[:, 0], [-0.5, 0.5])
    model = ConvexReLUClassifier(**QUICK).fit(X, three)  # one against the rest
    assert model.score(X, three) > 0.9 and model.decision_function(X).shape == (40, 3)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(model.objective_, _network_value(model, X, 2 * np.eye(3)[three] - 1, "logistic"))
    assert (model.predict_proba(X).argmax(axis=1) == model.predict(X)).all()


def test_warm_start_continues_from_the_previous_network():
    X, Y = gaussian_data(6, 25, 2)
    settings = QUICK | {"max_iter": 100, "warm_start": True}
    model = ConvexReLURegressor(beta=0.1, **settings).fit(X, Y[:, 0])
    objective, start = model.objective_, model.network_
    model.fit(X, Y[:, 0])
    assert model.objective_ < objective and model.network_ is not start
    model.fit(X[:, :1], Y[:, 0])  # data of another shape: training starts anew
    assert model.network_.hidden.shape[1] == 2


@pytest.mark.parametrize(
    "name, value", [("beta", -1.0), ("beta", "large"), ("beta_scale", "log"), ("n_cells", 0), ("loss", "hinge")]
)
def test_bad_parameters(name, value):
    X, Y = gaussian_data(0, 10, 2)
    for model, y in ((ConvexReLURegressor(), Y[:, 0]), (ConvexReLUClassifier(), Y[:, 0] > 0)):
        with pytest.raises(jaxcvx.InvalidInputError, match=name):
            model.set_params(**{name: value}).fit(X, y)


def test_negative_weights():
    X, Y = gaussian_data(0, 10, 2)
    with pytest.raises(jaxcvx.InvalidInputError, match="sample_weight"):
        ConvexReLURegressor().fit(X, Y[:, 0], sample_weight=-np.ones(10))


@pytest.mark.parametrize("module, name, extra", [("sklearn", "estimators", "estimators"), ("flax", "flax", "flax")])
def test_a_missing_extra_names_the_command(module, name, extra):
    code = f"""
import sys
sys.modules[{module!r}] = None
import jaxcvx
try:
    jaxcvx.{name}
except jaxcvx.errors.MissingExtraError as err:
    print(err)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'jaxcvx[{extra}]'" in done.stdout
