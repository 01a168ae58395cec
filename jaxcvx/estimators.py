"""scikit-learn estimators; see :mod:`jaxcvx.integrations.sklearn`."""

from jaxcvx.integrations.sklearn import ConvexReLUClassifier, ConvexReLURegressor

__all__ = ["ConvexReLUClassifier", "ConvexReLURegressor"]
