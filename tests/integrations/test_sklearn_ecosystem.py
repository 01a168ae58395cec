"""The estimators inside scikit-learn's tools: tables, pipelines, searches, calibration, routing, pictures, reprs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxcvx
from jaxcvx.estimators import ConvexReLUClassifier, ConvexReLUClassifierCV, ConvexReLURegressor, ConvexReLURegressorCV
from tests.helpers import gaussian_data

SMALL = jaxcvx.ColumnGeneration(width=16, move_steps=10, moves=1, rounds=2, final_rounds=0)
CROSS = {"betas": [0.3, 0.03], "beta_scale": "relative", "cv": 2, "solver": SMALL, "random_state": 0}


def ring(n=30):
    X, _ = gaussian_data(0, n, 2)
    return X, np.where(np.abs(X[:, 0]) > 0.6, "outer", "inner")


@pytest.fixture(scope="module")
def classifier():
    X, y = ring()
    return ConvexReLUClassifierCV(**CROSS).fit(X, y)


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_tables_name_the_columns(library, classifier):
    X, y = ring()
    columns = {"width": X[:, 0], "height": X[:, 1]}
    if library == "pandas":
        pandas = pytest.importorskip("pandas")
        table, swapped = pandas.DataFrame(columns), pandas.DataFrame(columns)[["height", "width"]]
        labels = pandas.Series(y)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        table, swapped = pyarrow.table(columns), pyarrow.table(columns).select(["height", "width"])
        labels = y
    model = clone(classifier).fit(table, labels)
    assert model.feature_names_in_.tolist() == ["width", "height"]
    np.testing.assert_array_equal(model.decision_function(table), classifier.decision_function(X))
    assert model.certify(table, labels).upper == pytest.approx(model.objective_, rel=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(swapped)


def test_set_output_of_a_pipeline_names_the_columns_of_the_predictor(classifier):
    """A predictor has no transform, so scikit-learn asks it for no set_output."""
    pandas = pytest.importorskip("pandas")
    X, y = ring()
    assert not hasattr(classifier, "set_output")
    table = pandas.DataFrame(X, columns=["a", "b"])
    pipeline = make_pipeline(StandardScaler(), clone(classifier)).set_output(transform="pandas").fit(table, y)
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b"]
    assert isinstance(pipeline.predict(table), np.ndarray)


def test_grid_search_and_outer_cross_validation(classifier):
    X, y = ring()
    pipeline = make_pipeline(StandardScaler(), clone(classifier))
    search = GridSearchCV(pipeline, {"convexreluclassifiercv__rule": ["best", "one_standard_error"]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.7 and set(search.predict(X)) == {"inner", "outer"}
    assert search.best_estimator_[-1].rule == search.best_params_["convexreluclassifiercv__rule"]
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.7


def test_calibration(classifier):
    X, y = ring()
    calibrated = CalibratedClassifierCV(clone(classifier), cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)
    assert (calibrated.predict(X) == y).mean() > 0.7


def test_clone_and_pickle(classifier):
    X, y = ring()
    copy = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(copy.predict_proba(X), classifier.predict_proba(X))
    assert copy.certify(X, y).upper == classifier.certify(X, y).upper
    new = clone(classifier)
    assert new.get_params() == classifier.get_params() and not hasattr(new, "network_")


def test_sample_weights_are_routed(classifier):
    X, y = ring()
    weights = np.linspace(0.1, 2.0, len(X))
    direct = clone(classifier).fit(X, y, sample_weight=weights)
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(classifier).set_fit_request(sample_weight=True)
        routed = make_pipeline(StandardScaler(with_mean=False, with_std=False), model)
        routed[0].set_fit_request(sample_weight=False)
        routed.fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(routed.decision_function(X), direct.decision_function(X))
    assert np.abs(direct.decision_function(X) - classifier.decision_function(X)).max() > 1e-3


def test_html_shows_the_parameters_and_links_to_no_other_librarys_pages(classifier):
    html = classifier._repr_html_()
    for text in ("ConvexReLUClassifierCV", "betas", "beta_scale", "relative", "ColumnGeneration", "random_state"):
        assert text in html
    assert "href=" not in html and classifier._get_doc_link() == ""
    assert "ConvexReLUClassifierCV" in make_pipeline(StandardScaler(), classifier)._repr_html_()


def test_pictures_of_paths(classifier, tmp_path):
    figure = classifier.plot_path(tmp_path / "path.png")
    assert len(figure.axes) == 3 and (tmp_path / "path.png").read_bytes()[:4] == b"\x89PNG"
    objective = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(objective, np.c_[classifier.betas_, classifier.path_.upper_bound])
    with pytest.raises(NotFittedError):
        ConvexReLURegressorCV().plot_path()


def test_a_fit_at_one_beta_has_no_path():
    X, y = ring(12)
    model = ConvexReLURegressor(solver=SMALL, random_state=0).fit(X, X[:, 0])  # beta="auto"
    assert len(model.plot_path().axes) == 3
    model.set_params(beta=0.3).fit(X, X[:, 0])
    assert not {"path_", "betas_", "cv_scores_", "cross_validation_", "beta_max_"} & set(vars(model))
    with pytest.raises(jaxcvx.InvalidInputError, match=r"beta: got 0.3, a fit without a path, expected beta='auto'"):
        model.plot_path()


def test_certificates_of_other_data_are_refused(classifier):
    X, y = ring()
    order = np.random.default_rng(0).permutation(len(X))
    again = classifier.certify(X[order].tolist(), y[order].tolist(), sample_weight=np.ones(len(X)))
    assert again.upper == pytest.approx(classifier.objective_, rel=1e-9)
    for wrong in (2 * X, X[:-3]):
        with pytest.raises(jaxcvx.InvalidInputError, match="^X, y, sample_weight: .*training data.*previous step"):
            classifier.certify(wrong, y[: len(wrong)])
    with pytest.raises(ValueError, match="3 features.*expecting 2"):
        classifier.certify(np.c_[X, X[:, 0]], y)
    with pytest.raises(jaxcvx.InvalidInputError, match="y: got 1, expected labels that fit has seen"):
        classifier.certify(X, np.ones(len(X), int))
    with pytest.raises(ValueError, match="sample_weight"):
        classifier.certify(X, y, sample_weight=np.ones(3))
    with pytest.raises(jaxcvx.InvalidInputError, match="max_seconds"):
        classifier.certify(X, y, max_seconds=-1)
    for unfitted in (ConvexReLUClassifier(), ConvexReLURegressorCV()):
        with pytest.raises(NotFittedError):
            unfitted.certify(X, y)


def test_certificates_honour_weights_and_biases():
    X, y = ring()
    weights = np.linspace(0.5, 2.0, len(X))
    settings = CROSS | {"class_weight": {"inner": 3.0}, "loss": "squared"}
    model = ConvexReLUClassifierCV(**settings).fit(X, y, sample_weight=weights)
    certificate = model.certify(X, y, sample_weight=weights)
    network = model.network_
    F = np.maximum(np.c_[X, np.ones(len(X))] @ network.hidden.T, 0) @ network.output + network.output_bias
    factors = weights * np.where(y == "inner", 3.0, 1.0)
    loss = 0.5 * (factors * (F[:, 0] - np.where(y == "outer", 1, -1)) ** 2).sum()
    penalty = model.beta_ / 2 * ((network.hidden**2).sum() + (network.output**2).sum())
    assert certificate.upper == pytest.approx(loss + penalty, rel=1e-9) == model.objective_
    assert certificate.scope == "global" and 0 < certificate.lower <= certificate.upper
    shift = float(network.output_bias[0])
    assert abs(shift) > 1e-3
    given = jaxcvx.certify(network, X, np.where(y == "outer", 1.0, -1.0), model.beta_, sample_weight=factors)
    assert given.lower == pytest.approx(certificate.lower, rel=1e-9)
