"""The estimators at one beta: sample weights, scales, certificates, few compilations, deprecated arguments."""

import logging
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxcvx
from jaxcvx.estimators import ConvexReLUClassifier, ConvexReLURegressor
from tests.helpers import gaussian_data, loss_value

QUICK = {"max_iter": 60, "random_state": 0}
RELATIVE = QUICK | {"beta": 0.1, "beta_scale": "relative"}


def _network_value(model, X, Y, loss="squared"):
    """The training objective of the fitted network."""
    network = model.network_
    Z = np.c_[X, np.ones(len(X))] if model.bias else X
    F = np.maximum(Z @ network.hidden.T, 0) @ network.output
    F = F if network.output_bias is None else F + network.output_bias
    penalty = 0.5 * model.beta_ * ((network.hidden**2).sum() + (network.output**2).sum())
    return loss_value(loss, F, Y) + penalty


def test_grid_search_compiles_once(caplog):
    X, y = load_iris(return_X_y=True)
    X, names = X[::3], np.array(["setosa", "versicolor", "virginica"])[y[::3]]
    pipeline = make_pipeline(StandardScaler(), ConvexReLUClassifier(beta_scale="relative", **QUICK))
    search = GridSearchCV(pipeline, {"convexreluclassifier__beta": [0.3, 0.1]}, cv=3)

    def compiled(fit):
        caplog.clear()
        with jax.log_compiles():
            fit()
        return {message.split()[1] for message in caplog.messages if message.startswith("Compiling ")}

    with caplog.at_level(logging.WARNING, logger="jax"):
        model = clone(pipeline).set_params(convexreluclassifier__beta=0.1)
        assert "jit(follow)" in compiled(lambda: model.fit(X, names))
        again = compiled(lambda: search.fit(X, names))  # sizes 33 and 50, any beta: one program
        assert not {"jit(follow)", "jit(_largest_price)"} & again
    assert search.best_score_ > 0.9
    best = search.best_estimator_
    assert set(best.predict(X)) == set(names) and best[-1]._loss == "softmax"
    probabilities = best.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (best.classes_[probabilities.argmax(axis=1)] == best.predict(X)).all()
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_proba(X), probabilities)
    assert not hasattr(clone(best[-1]), "network_")


@pytest.mark.parametrize("outputs", [1, 2])
def test_objective_bounds_and_certificate(outputs):
    X, Y = gaussian_data(0, 30, 2, outputs)
    y = Y[:, 0] if outputs == 1 else Y
    model = ConvexReLURegressor(beta=3.0, **QUICK).fit(X, y)
    assert model.predict(X).shape == y.shape
    np.testing.assert_allclose(model.objective_, _network_value(model, X, Y), rtol=1e-10)
    assert model.lower_bound_ == -np.inf and model.gap_ == np.inf and model.scope_ == "heuristic"
    assert 0.9 * model.objective_ < model.heuristic_bound_ <= model.objective_
    assert model.beta_ == 3.0 and model.n_features_in_ == 2 and model.n_iter_ >= 1
    certificate = model.certify(X, y)
    assert certificate.upper == pytest.approx(model.objective_, rel=1e-9) and certificate.lower <= certificate.upper
    weights = np.arange(30) % 3.0
    with pytest.raises(jaxcvx.InvalidInputError, match="sample_weight: got data .* expected the training data"):
        model.certify(X, y, sample_weight=weights)


@pytest.mark.long
def test_solver_gives_the_global_optimum_in_the_callers_units():
    X, Y = gaussian_data(1, 12, 2)
    X, Y = 50 * X, 7 * Y
    problem = jaxcvx.make_problem(X, Y, 3.0)
    expected = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(tol=1e-7))
    assert expected.scope == "global"
    plain = {"bias": False, "output_bias": False, "beta": 3.0}
    model = ConvexReLURegressor(solver=jaxcvx.ColumnGeneration(tol=1e-7), **plain).fit(X, Y[:, 0])
    assert model.scope_ == "global" and model.gap_ < 1e-6
    np.testing.assert_allclose(model.objective_, expected.upper_bound, rtol=1e-6)
    path = ConvexReLURegressor(**plain, **QUICK).fit(X, Y[:, 0])
    assert expected.upper_bound * (1 - 1e-9) <= path.objective_ <= expected.upper_bound * (1 + 1e-4)


def test_other_solvers_work_on_scaled_data():
    X, Y = gaussian_data(0, 30, 2)
    for solver in (jaxcvx.ProximalGradient(), jaxcvx.GradientDescent(width=8, max_steps=200)):
        model = ConvexReLURegressor(beta=3.0, solver=solver, random_state=0).fit(X, Y[:, 0])
        far = clone(model).set_params(beta=3e6).fit(1e4 * X, 1e2 * Y[:, 0])
        assert (model.network_.output_bias is None) == isinstance(solver, jaxcvx.ProximalGradient)
        np.testing.assert_allclose(model.objective_, _network_value(model, X, Y), rtol=1e-9)
        if isinstance(solver, jaxcvx.ProximalGradient):
            assert model.scope_ == "sampled-cells" and model.lower_bound_ <= model.objective_
        assert np.isfinite(far.objective_)


def test_relative_beta_is_a_fraction_of_beta_max():
    X, Y = gaussian_data(2, 10, 2)
    cells = jaxcvx.enumerate_arrangements(X)
    top = float(jaxcvx.make_problem(X, Y, 1.0, arrangements=cells).beta_max("network"))
    plain = RELATIVE | {"bias": False, "output_bias": False}
    model = ConvexReLURegressor(**plain | {"beta": 1.001}).fit(X, Y[:, 0])
    np.testing.assert_allclose(model.beta_max_, top, rtol=1e-6)
    np.testing.assert_allclose(model.beta_, 1.001 * top, rtol=1e-6)
    assert not model.predict(X).any()
    half = ConvexReLURegressor(**plain | {"beta": 0.5}).fit(X, Y[:, 0])
    assert np.abs(half.predict(X)).max() > 1e-2


def test_units_and_constants_do_not_matter():
    """With an output bias a constant is added to the predictions; y in other units gives the same R2."""
    X, Y = gaussian_data(4, 25, 3)
    y = Y[:, 0]
    model = ConvexReLURegressor(**RELATIVE).fit(X, y)
    shifted, scaled = clone(model).fit(X, y + 1000), clone(model).fit(X, 1000 * y)
    np.testing.assert_allclose(shifted.predict(X) - 1000, model.predict(X), atol=1e-6)
    assert shifted.score(X, y + 1000) == pytest.approx(model.score(X, y), abs=1e-7)
    assert scaled.score(X, 1000 * y) == pytest.approx(model.score(X, y), abs=2e-3)
    np.testing.assert_allclose(scaled.objective_, 1e6 * model.objective_, rtol=1e-4)
    np.testing.assert_allclose([shifted.beta_, scaled.beta_ / 1000], model.beta_, rtol=1e-6)
    large = clone(model).fit(X, 2.0**10 * y)  # powers of two change no bit
    np.testing.assert_allclose(large.predict(X), 2.0**10 * model.predict(X), rtol=1e-9)


def test_extreme_betas():
    X, Y = gaussian_data(4, 25, 3)
    X, Y = X[:12], Y[:12]
    zero = ConvexReLURegressor(**RELATIVE | {"beta": 1e300}).fit(X, Y[:, 0])
    np.testing.assert_allclose(zero.predict(X), Y.mean(), rtol=1e-6)
    tiny = ConvexReLURegressor(beta=0.0, **QUICK).fit(X, Y[:, 0])
    assert tiny.beta_ == 0 and tiny.objective_ < 0.1 * zero.objective_ and tiny.heuristic_bound_ == -np.inf
    constant = ConvexReLURegressor(**RELATIVE).fit(X, np.full(12, 7.0))
    np.testing.assert_allclose(constant.predict(X), 7.0)


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_integer_weights_are_repetitions(loss):
    X, Y = gaussian_data(3, 20, 2)
    rng = np.random.default_rng(0)
    repeats = rng.integers(0, 4, 20)
    rows = rng.permutation(np.repeat(np.arange(20), repeats))
    if loss == "squared":
        model, y = ConvexReLURegressor(**RELATIVE), Y[:, 0]
    else:
        model, y = ConvexReLUClassifier(loss=loss, **RELATIVE), np.where(Y[:, 0] > 0, "yes", "no")
    weighted, repeated = clone(model).fit(X, y, sample_weight=repeats), clone(model).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.beta_, repeated.beta_, rtol=1e-12)
    np.testing.assert_allclose(weighted.objective_, repeated.objective_, rtol=1e-12)
    np.testing.assert_allclose(
        weighted.predict(X) if loss == "squared" else weighted.predict_proba(X),
        repeated.predict(X) if loss == "squared" else repeated.predict_proba(X),
        atol=1e-12,
    )


def test_classifier_losses():
    X, Y = gaussian_data(5, 40, 2)
    y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")  # not linearly separable
    for loss in ("auto", "squared"):
        model = ConvexReLUClassifier(loss=loss, **RELATIVE | {"beta": 0.03}).fit(X, y)
        assert model.score(X, y) > 0.9
        assert model.decision_function(X).shape == (40,)
        assert hasattr(model, "predict_proba") == (loss != "squared")
    assert ConvexReLUClassifier(**RELATIVE).fit(X, y)._loss == "logistic"
    certificate = model.certify(X, y)
    assert certificate.upper == pytest.approx(model.objective_, rel=1e-9)
    with pytest.raises(jaxcvx.InvalidInputError, match="y: got .*'third'.*labels that fit has seen"):
        model.certify(X, np.where(y == "same", "same", "third"))


def test_one_against_the_rest():
    X, _ = gaussian_data(5, 40, 2)
    three = np.digitize(X[:, 0], [-0.5, 0.5])
    model = ConvexReLUClassifier(loss="logistic", **RELATIVE | {"beta": 0.03}).fit(X, three)
    assert model.score(X, three) > 0.9 and model.decision_function(X).shape == (40, 3)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    np.testing.assert_allclose(model.objective_, _network_value(model, X, 2 * np.eye(3)[three] - 1, "logistic"))
    assert (model.predict_proba(X).argmax(axis=1) == model.predict(X)).all()


def test_warm_start_continues_from_the_previous_network():
    X, Y = gaussian_data(6, 25, 2)
    model = ConvexReLURegressor(warm_start=True, beta=2.0, **QUICK).fit(X, Y[:, 0])
    objective, start = model.objective_, model.network_
    model.fit(X, Y[:, 0])
    assert model.objective_ <= objective * (1 + 1e-9) and model.network_ is not start
    model.fit(X[:, :1], Y[:, 0])  # data of another shape: training starts anew
    assert model.network_.hidden.shape[1] == 2


@pytest.mark.parametrize(
    "name, value",
    [
        ("beta", -1.0),
        ("beta", "large"),
        ("beta_scale", "log"),
        ("n_cells", 0),
        ("n_cells", "many"),
        ("loss", "hinge"),
        ("max_iter", 0),
        ("solver", "adam"),
    ],
)
def test_bad_parameters(name, value):
    X, Y = gaussian_data(0, 10, 2)
    for model, y in ((ConvexReLURegressor(), Y[:, 0]), (ConvexReLUClassifier(), Y[:, 0] > 0)):
        with pytest.raises(jaxcvx.JaxcvxError, match=name):
            model.set_params(**{name: value}).fit(X, y)


def test_n_cells_is_deprecated():
    X, Y = gaussian_data(0, 30, 2)
    solver = jaxcvx.ProximalGradient()
    with pytest.warns(FutureWarning, match=r"n_cells is deprecated.*ColumnGeneration\(width="):
        few = ConvexReLURegressor(beta=3.0, n_cells=3, solver=solver, random_state=0).fit(X, Y[:, 0])
    many = ConvexReLURegressor(beta=3.0, solver=solver, random_state=0).fit(X, Y[:, 0])
    assert many.objective_ != few.objective_


def test_too_few_samples_for_cross_validation():
    with pytest.raises(jaxcvx.InvalidInputError, match="X: got n_samples = 2.*at least 4 samples to choose beta"):
        ConvexReLURegressor().fit([[0.0], [1.0], [1.0]], [0.0, 1.0, 1.0])


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


def _two_classes():
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(size=(36, 2)) - 0.4, rng.normal(size=(4, 2)) + 0.4])
    return X, np.repeat(["common", "rare"], [36, 4])


@pytest.mark.parametrize("weights", ["balanced", {"common": 1.0, "rare": 9.0}, {"rare": 9.0}])
def test_class_weights_multiply_sample_weights(weights):
    X, y = _two_classes()
    given = np.linspace(0.5, 1.5, 40)
    factor = {"balanced": {"common": 40 / 72, "rare": 5.0}}.get(weights if isinstance(weights, str) else "", weights)
    product = given * np.array([factor.get(label, 1.0) for label in y])
    by_class = ConvexReLUClassifier(beta=1.0, max_iter=16, random_state=0, class_weight=weights).fit(X, y, given)
    by_sample = ConvexReLUClassifier(beta=1.0, max_iter=16, random_state=0).fit(X, y, product)
    np.testing.assert_allclose(by_class.decision_function(X), by_sample.decision_function(X), rtol=1e-8)
    certificate = by_class.certify(X, y, max_seconds=1, sample_weight=given)
    assert certificate.upper == pytest.approx(by_class.objective_, rel=1e-6)


@pytest.mark.parametrize("weights", ["heavy", {"common": -1.0}, {"common": float("nan")}, 3])
def test_bad_class_weights_are_refused(weights):
    X, y = _two_classes()
    with pytest.raises(jaxcvx.JaxcvxError, match="class_weight"):
        ConvexReLUClassifier(beta=1.0, class_weight=weights).fit(X, y)


def test_fit_under_strict_promotion():
    X, y = gaussian_data(0, 20, 3)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        strict = ConvexReLURegressor(**RELATIVE).fit(X, y[:, 0]).predict(X)
    np.testing.assert_allclose(strict, ConvexReLURegressor(**RELATIVE).fit(X, y[:, 0]).predict(X), rtol=1e-5, atol=1e-6)
