"""jaxcvx.estimators is imported on first use, and not before."""

import subprocess
import sys

import jaxcvx
from jaxcvx.integrations import patches, sklearn


def test_public_names_of_estimators():
    assert jaxcvx.estimators.ConvexReLUClassifier is sklearn.ConvexReLUClassifier
    assert jaxcvx.estimators.ConvexReLURegressor is sklearn.ConvexReLURegressor
    assert jaxcvx.estimators.ConvexPatchFeatures is patches.ConvexPatchFeatures
    names = ["ConvexPatchFeatures", "ConvexReLUClassifier", "ConvexReLURegressor"]
    assert sorted(jaxcvx.estimators.__all__) == names


def test_the_module_is_imported_on_first_use():
    script = """
import sys, jaxcvx
assert "sklearn" not in sys.modules and "jaxcvx.estimators" not in sys.modules
jaxcvx.estimators.ConvexReLURegressor
assert "sklearn" in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
