"""jaxcvx.estimators is imported on first use, and not before."""

import subprocess
import sys

import jaxcvx
from jaxcvx.integrations import mlp, patches, sklearn, sklearn_cv


def test_public_names_of_estimators():
    assert jaxcvx.estimators.ConvexReLUClassifier is sklearn.ConvexReLUClassifier
    assert jaxcvx.estimators.ConvexReLURegressor is sklearn.ConvexReLURegressor
    assert jaxcvx.estimators.ConvexPatchFeatures is patches.ConvexPatchFeatures
    assert jaxcvx.estimators.ConvexReLUClassifierCV is sklearn_cv.ConvexReLUClassifierCV
    assert jaxcvx.estimators.ConvexReLURegressorCV is sklearn_cv.ConvexReLURegressorCV
    assert jaxcvx.estimators.from_sklearn is mlp.from_sklearn
    assert len(jaxcvx.estimators.__all__) == 6


def test_the_module_is_imported_on_first_use():
    script = """
import sys, jaxcvx
assert "sklearn" not in sys.modules and "jaxcvx.estimators" not in sys.modules
jaxcvx.estimators.ConvexReLURegressor
assert "sklearn" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
