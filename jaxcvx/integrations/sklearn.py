"""scikit-learn estimators: two-layer ReLU networks with ``fit``, ``predict`` and a certificate."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import jax
import numpy as np

from jaxcvx.errors import invalid, require_extra
from jaxcvx.integrations import fitting
from jaxcvx.networks.network import Network

require_extra("sklearn", "estimators")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.metaestimators import available_if  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data  # noqa: E402

AUTO_FRACTION = 0.003


class _ConvexReLU(BaseEstimator):
    """The common part of the classifier and the regressor."""

    network_: Network
    _losses: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        beta="auto",
        beta_scale="absolute",
        n_cells=128,
        solver=None,
        loss="auto",
        bias=True,
        max_iter=1000,
        warm_start=False,
        random_state=None,
    ):
        self.beta = beta
        self.beta_scale = beta_scale
        self.n_cells = n_cells
        self.solver = solver
        self.loss = loss
        self.bias = bias
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state

    def _check_parameters(self) -> None:
        number = isinstance(self.beta, Real) and not isinstance(self.beta, bool)
        if not (self.beta == "auto" if not number else 0 <= self.beta < np.inf):
            raise invalid("beta", repr(self.beta), "'auto' or a number >= 0")
        if self.beta_scale not in ("absolute", "relative"):
            raise invalid("beta_scale", repr(self.beta_scale), "'absolute' or 'relative'")
        for name in ("n_cells", "max_iter"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise invalid(name, repr(value), "a positive integer")
        if self.loss not in ("auto", *self._losses):
            raise invalid("loss", repr(self.loss), "'auto', " + ", ".join(map(repr, self._losses)))

    @property
    def _loss(self) -> str:
        """Name of the loss. "auto" is the first of ``_losses``."""
        return self._losses[0] if self.loss == "auto" else self.loss

    def _fit(self, X: np.ndarray, Y: np.ndarray, sample_weight: Any) -> None:
        """Fit to validated inputs (n, d) and coded targets (n, c)."""
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if (weights < 0).any() or not weights.any():
            got = "a negative one" if (weights < 0).any() else "sample weights that are all zero"
            raise invalid("sample_weight", got, "weights >= 0 with a positive sum, not all zero")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        warm = getattr(self, "network_", None) if self.warm_start else None
        expected = (X.shape[1] + int(self.bias), Y.shape[1])
        if warm is not None and (warm.hidden.shape[1], warm.output.shape[1]) != expected:
            warm = None
        with jax.enable_x64(True):  # as everywhere in scikit-learn
            training = fitting.prepare(X, Y, weights, self._loss, bool(self.bias))
            relative = self.beta == "auto" or self.beta_scale == "relative"
            fraction = AUTO_FRACTION if self.beta == "auto" else float(self.beta)
            beta = fraction * fitting.beta_max(training) if relative else fraction
            result = fitting.fit(
                training,
                beta,
                num_cells=int(self.n_cells),
                solver=self.solver,
                max_steps=int(self.max_iter),
                seed=seed,
                warm=warm,
            )
        self.network_, self.beta_ = result.network, beta
        self.objective_, self.lower_bound_, self.scope_ = result.objective, result.lower_bound, result.scope
        tiny = np.finfo(np.float64).tiny
        self.gap_ = (self.objective_ - self.lower_bound_) / max(abs(self.objective_), tiny)
        self.n_iter_ = max(1, result.num_steps)

    def _outputs(self, X: Any) -> np.ndarray:
        """Compute network outputs (n, c) in float64 on the host. A new number of rows compiles nothing."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        Z = self.network_.features.matrix(X)
        return np.maximum(Z @ self.network_.hidden.T, 0) @ self.network_.output


class ConvexReLURegressor(RegressorMixin, _ConvexReLU):
    """Two-layer ReLU regression for one output or several, with a bound on the distance from the best objective.

    ``fit`` minimises ``1/2 sum_i w_i ||f(x_i) - y_i||^2 + beta/2 (sum of squared weights)``. Inputs are not scaled: put
    a ``StandardScaler`` before the estimator if the columns differ in scale.

    Parameters:
      beta: weight decay >= 0, or "auto" for 0.003 of beta_max, a fixed rule. If accuracy matters, choose it by
        ``GridSearchCV`` with ``beta_scale="relative"``: fits that differ only in beta share one compiled program.
      beta_scale: "absolute": the loss is a sum over samples. "relative": beta is a fraction of beta_max, the smallest
        beta whose solution is zero (estimated by ascents from many starts).
      n_cells: number of arrangement cells. The default fit trains ``n_cells / 2`` neurons. The bound covers their cells
        and ``n_cells`` others, or all cells if there are so few.
      solver: any jaxcvx solver, such as ``ColumnGeneration()`` for the global optimum or ``ConeADMM()`` on ``n_cells``
        cells. None: ``max_iter`` steps of Adam, then a convex program for the output weights; its time is bounded for
        every size. Solvers work on inputs and targets divided by their root mean squares.
      loss: "auto" or "squared"; both are the same.
      bias: True if neurons have a bias. Its weight is penalised like the others.
      max_iter: Adam's steps (mini-batches beyond 4096 rows), if ``solver`` is None.
      warm_start: True if the default fit starts from the network of the previous fit.
      random_state: seed of the initial weights and sampled cells.

    Attributes:
      network_: the trained ``jaxcvx.Network``, in float64 numpy arrays.
      beta_: the absolute weight decay that was used.
      objective_, lower_bound_, gap_, scope_: training objective, its proved lower bound over the networks in ``scope_``
        (see :class:`jaxcvx.Solution`), and their relative gap.
      n_iter_, n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
      >>> from jaxcvx.estimators import ConvexReLURegressor
      >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 0.0, 1.0]
      >>> model = ConvexReLURegressor(n_cells=8, max_iter=200, random_state=0).fit(X, y)
      >>> model.predict(X).shape, bool(model.lower_bound_ <= model.objective_)
      ((4,), True)
    """

    _losses = ("squared",)

    def fit(self, X, y, sample_weight=None):
        """Fit to inputs X (n, d) and targets y (n,) or (n, c). The sample weights multiply the samples' losses."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self._flat = y.ndim == 1
        self._fit(X, y.reshape(len(y), -1), sample_weight)
        return self

    def predict(self, X):
        """Predict (n,) values, or (n, c) values if the targets had columns."""
        F = self._outputs(X)
        return F[:, 0] if self._flat else F

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _has_probabilities(estimator: ConvexReLUClassifier) -> bool:
    if estimator._loss == "squared":
        raise AttributeError("predict_proba needs loss='logistic' or 'softmax'; got 'squared'.")
    return True


class ConvexReLUClassifier(ClassifierMixin, _ConvexReLU):
    """Two-layer ReLU classification with a bound on the distance from the best objective.

    ``fit`` minimises the loss summed over samples (times their weights) plus ``beta/2 (sum of squared weights)``.
    Parameters and attributes are those of :class:`ConvexReLURegressor`, except for these:

    Parameters:
      loss: "logistic" has one output for two classes, and one output per class against the rest for more. "softmax" has
        one output for each class. "squared" has targets +-1 for two classes and one-hot rows for more, and no
        ``predict_proba``. "auto" is "logistic".

    Attributes:
      classes_: the labels, sorted.

    Example:
      >>> from jaxcvx.estimators import ConvexReLUClassifier
      >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["low", "low", "high", "high"]
      >>> model = ConvexReLUClassifier(n_cells=8, max_iter=200, random_state=0).fit(X, y)
      >>> model.predict([[-1.0], [4.0]]).tolist(), model.predict_proba(X).shape
      (['low', 'high'], (4, 2))
    """

    _losses = ("logistic", "softmax", "squared")

    def fit(self, X, y, sample_weight=None):
        """Fit to inputs X (n, d) and labels y (n,) of any kind. The sample weights multiply the samples' losses."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        if k < 2:
            raise invalid("y", f"one class ({self.classes_[0]!r})", "at least two classes")
        if k == 2 and self._loss != "softmax":
            Y = (2.0 * codes - 1.0)[:, None]
        else:
            Y = np.eye(k)[codes]
            Y = 2 * Y - 1 if self._loss == "logistic" else Y
        self._fit(X, Y, sample_weight)
        return self

    def decision_function(self, X):
        """Compute scores: (n,) for two classes, larger for the second class; (n, k) for more classes."""
        F = self._outputs(X)
        if len(self.classes_) > 2:
            return F
        return F[:, 1] - F[:, 0] if F.shape[1] == 2 else F[:, 0]

    def predict(self, X):
        """Predict labels (n,)."""
        scores = self.decision_function(X)
        codes = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
        return self.classes_[codes]

    @available_if(_has_probabilities)
    def predict_proba(self, X):
        """Compute class probabilities (n, k) of the logistic or softmax model."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        elif self._loss == "logistic":
            scores = -np.logaddexp(0, -scores)  # log-probabilities of each class against the rest; normalised below
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)
