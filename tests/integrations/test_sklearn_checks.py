"""scikit-learn's own checks of all estimators, with small settings."""

import warnings

import pytest
from sklearn.utils.estimator_checks import check_estimator

import jaxcvx
from jaxcvx.estimators import (
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)

SMALL = jaxcvx.ColumnGeneration(width=32, move_steps=5, moves=1, rounds=2, final_rounds=0)
CROSS = {"betas": [0.4, 0.15], "beta_scale": "relative", "cv": 2, "solver": SMALL}
FIXED = {"beta": 0.15, "beta_scale": "relative"}


class QuickRegressor(ConvexReLURegressor):
    """The regressor with small settings of its default solver."""

    def _path_solver(self):
        return SMALL


class QuickClassifier(ConvexReLUClassifier):
    """The classifier with small settings of its default solver."""

    def _path_solver(self):
        return SMALL


MODELS = [
    ConvexReLURegressorCV(**CROSS),
    QuickClassifier(**FIXED),
    ConvexReLUClassifierCV(**CROSS),
    QuickRegressor(**FIXED),
]


@pytest.mark.slow
@pytest.mark.routine(1)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_all_checks_of_scikit_learn(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, on_skip=None, on_fail=None)
    failed = {r["check_name"]: repr(r["exception"])[:300] for r in results if r["status"] == "failed"}
    assert len(results) > 40 and not failed
