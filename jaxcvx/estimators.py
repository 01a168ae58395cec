"""The scikit-learn estimators of :mod:`jaxcvx.integrations.sklearn` and :mod:`jaxcvx.integrations.patches`."""

from jaxcvx.integrations.patches import ConvexPatchFeatures
from jaxcvx.integrations.sklearn import ConvexReLUClassifier, ConvexReLURegressor

__all__ = ["ConvexPatchFeatures", "ConvexReLUClassifier", "ConvexReLURegressor"]
