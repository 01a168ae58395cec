"""The scikit-learn estimators of :mod:`jaxcvx.integrations`: networks, and features of image patches."""

from jaxcvx.integrations.patches import ConvexPatchFeatures
from jaxcvx.integrations.sklearn import ConvexReLUClassifier, ConvexReLURegressor
from jaxcvx.integrations.sklearn_cv import ConvexReLUClassifierCV, ConvexReLURegressorCV

__all__ = [
    "ConvexPatchFeatures",
    "ConvexReLUClassifier",
    "ConvexReLUClassifierCV",
    "ConvexReLURegressor",
    "ConvexReLURegressorCV",
]
