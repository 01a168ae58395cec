"""Networks from the fitted MLPRegressor and MLPClassifier of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcvx.errors import invalid, require_extra, wrong_type
from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network

require_extra("sklearn", "estimators")

from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402


def from_sklearn(mlp: Any) -> Network:
    """Convert a fitted MLPRegressor or MLPClassifier with one hidden layer of relu to a network.

    The network's outputs are those before the last activation: predictions, logits of the second class (n, 1), or
    logits of all classes (n, c). ``certify`` takes the network with the loss that scikit-learn trained it by:

    * MLPRegressor: "squared".
    * MLPClassifier of two classes, or of several labels per sample: "logistic".
    * MLPClassifier of more classes: "softmax".

    ``numpy.searchsorted(mlp.classes_, y)`` are the targets of a classifier for both losses. ``alpha`` is ``beta`` if
    the solver is "lbfgs"; else ``beta = alpha * n / batch_size``.

    Args:
      mlp: the fitted estimator; of a pipeline, its last step.

    Returns:
      A network of ``Dense(bias=True, output_bias=True)`` in numpy arrays of the estimator's precision. Weight decay
      includes the hidden biases, unlike that of scikit-learn. ``dataclasses.replace(network, features=FreeBias())`` is
      the same network without weight decay on biases.

    Raises:
      InvalidTypeError: another object.
      InvalidInputError: another number of hidden layers, another activation, or the Poisson loss.
      NotFittedError: the estimator is not fitted.

    Example:
      >>> import jaxcvx
      >>> from sklearn.neural_network import MLPRegressor
      >>> from jaxcvx.estimators import from_sklearn
      >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 0.0, 1.0]
      >>> mlp = MLPRegressor(hidden_layer_sizes=5, solver="lbfgs", alpha=0.1, random_state=0).fit(X, y)
      >>> certificate = jaxcvx.certify(from_sklearn(mlp), X, y, beta=0.1)
      >>> bool(certificate.lower <= certificate.upper), certificate.scope
      (True, 'global')
    """
    if not isinstance(mlp, MLPRegressor | MLPClassifier):
        raise wrong_type("mlp", mlp, "an MLPRegressor or MLPClassifier (of a pipeline, its last step)")
    check_is_fitted(mlp)
    layers = len(mlp.coefs_) - 1
    if layers != 1:
        raise invalid("mlp", f"{layers} hidden layers of sizes {mlp.hidden_layer_sizes}", "one hidden layer")
    if mlp.activation != "relu":
        raise invalid("mlp", f"activation={mlp.activation!r}", "activation='relu'")
    if mlp.out_activation_ not in ("identity", "logistic", "softmax"):
        raise invalid("mlp", f"the output activation {mlp.out_activation_!r}", "loss='squared_error'")
    hidden: Any = np.concatenate([mlp.coefs_[0], mlp.intercepts_[0][None]]).T
    output: Any = np.array(mlp.coefs_[1])
    bias: Any = np.array(mlp.intercepts_[1])
    return Network(hidden, output, None, Dense(bias=True, output_bias=True), bias)
