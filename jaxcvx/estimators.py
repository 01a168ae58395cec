"""The scikit-learn estimators of :mod:`jaxcvx.integrations`: networks, features of image patches, and a converter."""

from jaxcvx.integrations.mlp import from_sklearn
from jaxcvx.integrations.patches import ConvexPatchFeatures
from jaxcvx.integrations.sklearn import ConvexReLUClassifier, ConvexReLURegressor
from jaxcvx.integrations.sklearn_cv import ConvexReLUClassifierCV, ConvexReLURegressorCV

__all__ = [
    "ConvexPatchFeatures",
    "ConvexReLUClassifier",
    "ConvexReLUClassifierCV",
    "ConvexReLURegressor",
    "ConvexReLURegressorCV",
    "from_sklearn",
]
