"""The common parts of the scikit-learn estimators: data, predictions, cross-validation and certificates."""

from __future__ import annotations

import abc
import copy
import inspect
from numbers import Integral, Real
from typing import Any

import jax
import numpy as np

from jaxcvx.analysis.cross_validation import CrossValidation, refuse_small_folds, summarise
from jaxcvx.analysis.folds import Folds
from jaxcvx.analysis.scoring import NegativeLogLoss, class_accuracy, negative_mean_squared_error, r2, sign_accuracy
from jaxcvx.certificates.certificate import Certificate
from jaxcvx.certificates.certify import certify
from jaxcvx.errors import invalid, require_extra
from jaxcvx.features.dense import Dense
from jaxcvx.integrations import fitting
from jaxcvx.networks.network import Network, training_objective
from jaxcvx.numerics.arrays import is_missing, plain_array, unmasked
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.plots.beta_path import path
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration

require_extra("sklearn", "estimators")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.metrics import get_scorer  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.class_weight import compute_sample_weight  # noqa: E402
from sklearn.utils.metaestimators import available_if  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data  # noqa: E402

NUM_BETAS, NUM_FOLDS = 20, 5
_LEAST_SAMPLES = 4  # for cross-validation: two folds with two samples each
_OTHER_DATA = 1e-3  # relative difference of objectives beyond which data are not the training data


class BaseConvexReLU(BaseEstimator, abc.ABC):
    """The common part of all estimators. Subclasses have the parameters loss, bias, output_bias and random_state."""

    loss: Any
    bias: Any
    output_bias: Any
    random_state: Any
    network_: Network
    beta_: float
    _losses: tuple[str, ...] = ()
    _stratified = False

    @property
    def _loss(self) -> str:
        """Name of the loss."""
        return self._losses[0] if self.loss == "auto" else self.loss

    @abc.abstractmethod
    def _fit(self, X: np.ndarray, Y: np.ndarray, y: np.ndarray, sample_weight: Any) -> None:
        """Fit to validated inputs (n, d), coded targets (n, c) and the caller's targets."""

    def _check_parameters(self) -> None:
        if self.loss not in ("auto", *self._losses):
            raise invalid("loss", repr(self.loss), "'auto', " + ", ".join(map(repr, self._losses)))

    def _prepare(self, X: np.ndarray, Y: np.ndarray, sample_weight: Any, output_bias: bool) -> fitting.Training:
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if (weights < 0).any() or not weights.any():
            got = "a negative one" if (weights < 0).any() else "sample weights that are all zero"
            raise invalid("sample_weight", got, "weights >= 0 with a positive sum, not all zero")
        features = Dense(bias=bool(self.bias), output_bias=bool(self.output_bias) and output_bias)
        return fitting.prepare(X, Y, weights, self._loss, features)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _store(self, fit: fitting.Fit, beta: float) -> None:
        self.network_, self.beta_ = fit.network, beta
        self.objective_, self.lower_bound_, self.scope_ = fit.objective, fit.lower_bound, fit.scope
        self.heuristic_bound_ = fit.heuristic_bound
        tiny = np.finfo(np.float64).tiny
        self.gap_ = (self.objective_ - self.lower_bound_) / max(abs(self.objective_), tiny)
        self.n_iter_ = max(1, fit.num_steps)

    def _store_choice(
        self, training: fitting.Training, result: CrossValidation, rule: str, solver: ColumnGeneration, key: Any
    ) -> None:
        result = fitting.finish_choice(training, result, rule, solver, key)
        chosen = result.index(rule)
        beta = float(result.betas[chosen])
        self._store(fitting.finished(training, fitting.entry(result.path, chosen), beta), beta)
        self.betas_, self.cv_scores_, self.path_ = result.betas, result.scores, result.path
        self.cross_validation_ = result

    def _random_folds(self, training: fitting.Training, num: int | None, key: Any) -> Folds:
        """Shuffled folds; None for five, or fewer where there are few samples."""
        size = training.num_rows
        if num is None:
            if size < _LEAST_SAMPLES:
                raise invalid("X", f"n_samples = {size}, without equal ones", "at least 4 samples to choose beta")
            num = min(NUM_FOLDS, size // 2)
        if num > size:
            raise invalid("cv", f"{num} folds of n_samples = {size} different samples", "at most as many folds")
        return training.random_folds(num, self._stratified, key)

    def _named_score(self, scoring: str | None, num_outputs: int) -> Any:
        """The compiled score of a name; None where scikit-learn's own scorer is needed."""
        if not self._stratified:
            names: dict[Any, Any] = {None: r2, "r2": r2, "neg_mean_squared_error": negative_mean_squared_error}
            return names.get(scoring)
        if scoring in (None, "accuracy"):
            return sign_accuracy if num_outputs == 1 else class_accuracy
        proper = self._loss == "softmax" or (self._loss == "logistic" and num_outputs == 1)
        return NegativeLogLoss(fitting.LOSSES[self._loss]) if scoring == "neg_log_loss" and proper else None

    def _validate(
        self, training: fitting.Training, betas: Any, parts: Folds, solver: ColumnGeneration, key: Any, score: Any
    ) -> CrossValidation:
        try:
            refuse_small_folds(score, parts)
        except ValueError as err:
            raise invalid("cv", "a fold that leaves out one sample", "two left-out samples in every fold") from err
        return fitting.validate(training, betas, parts, solver, key, score)

    def _outputs(self, X: Any) -> np.ndarray:
        """Compute network outputs (n, c) in float64 on the host. A new number of rows compiles nothing."""
        check_is_fitted(self)
        X = validate_data(self, own_array("X", X), reset=False, dtype=np.float64)
        Z = self.network_.features.matrix(X)
        F = np.maximum(Z @ self.network_.hidden.T, 0) @ self.network_.output
        return F if self.network_.output_bias is None else F + self.network_.output_bias

    def certify(self, X: Any, y: Any, max_seconds: float = 60, sample_weight: Any = None) -> Certificate:
        """Prove how far the objective of the fitted network is from the best one of all networks.

        Parameters:
          X, y, sample_weight: the training data. In a pipeline X is the output of the steps before.
          max_seconds: limit on the time of a method that has one.

        Returns:
          The certificate of :func:`jaxcvx.certify` at ``beta_``. It honours the biases and ``class_weight``.

        Raises:
          InvalidInputError: other data than those of ``fit``: the network's objective on them is not ``objective_``.
          NotFittedError: the estimator is not fitted.
        """
        check_is_fitted(self)
        X, Y, sample_weight = self._coded(X, y, own_array("sample_weight", sample_weight))
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        with jax.enable_x64(True):
            data = (self.network_, X, Y, self.beta_, self._loss)
            value = float(training_objective(*data, sample_weight=weights))
            self._refuse_other_data(value, Y, weights)
            return certify(*data[:-1], loss=self._loss, sample_weight=weights, max_seconds=max_seconds)

    def _refuse_other_data(self, value: float, Y: np.ndarray, weights: np.ndarray | None) -> None:
        """Raise if ``value``, the network's objective on some data, is not that on the training data."""
        size = (Y**2).sum() if weights is None else (weights @ Y**2).sum()
        slack = _OTHER_DATA * abs(self.objective_) + 1e-9 * float(size)  # a perfect fit leaves rounding errors only
        if not abs(value - self.objective_) <= slack:
            raise invalid(
                "X, y, sample_weight",
                f"data on which the objective is {value:.6g}",
                f"the training data, on which it is {self.objective_:.6g} (in a pipeline X is the previous step's "
                "output; use jaxcvx.certify for other data)",
            )

    def plot_path(self, file: Any = None) -> Any:
        """Draw the path of betas that chose ``beta_``: objectives, neurons and scores. See ``jaxcvx.plots.path``.

        Parameters:
          file: the PNG file to write, or None.

        Returns:
          The matplotlib Figure.

        Raises:
          InvalidInputError: the fit was at one beta, without a path.
          NotFittedError: the estimator is not fitted.
        """
        check_is_fitted(self)
        result = getattr(self, "cross_validation_", None)
        if result is None:
            raise invalid("beta", f"{self.beta_:.6g}, a fit without a path", "beta='auto', or an estimator with CV")
        return path(result, file)

    @abc.abstractmethod
    def _coded(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """Validated inputs (n, d), coded targets (n, c) and the weights of the fitted estimator's samples, or None."""


def scikit_scores(
    estimator: BaseConvexReLU, scoring: Any, X: np.ndarray, y: np.ndarray, pairs: Any, weights: Any, result: Any
) -> CrossValidation:
    """Scores by scikit-learn's scorers, which take a fitted estimator.

    Args:
      estimator: with the attributes that ``predict`` needs.
      scoring: a name that scikit-learn knows, or a function ``(estimator, X, y) -> number``.
      X, y: the caller's data, validated.
      pairs: indices (train, test) for each fold.
      weights: (n,) sample weights, or None. They are given to scorers that take them.
      result: the CrossValidation without scores.
    """
    scorer = get_scorer(scoring) if isinstance(scoring, str) else scoring
    takes = weights is not None and "sample_weight" in inspect.signature(scorer).parameters
    values = np.empty((len(pairs), len(result.betas), 2))
    view = copy.copy(estimator)
    for fold, k, side in np.ndindex(values.shape):
        rows = pairs[fold][side]
        view.network_ = jax.tree.map(lambda a, at=(fold, k): a[at], result.networks)
        more = {"sample_weight": weights[rows]} if takes else {}
        values[fold, k, side] = scorer(view, X[rows], y[rows], **more)
    parts = Folds(result.train_weights, result.test_weights)
    name = scoring if isinstance(scoring, str) else ""
    return summarise(result.path, result.networks, parts, values[..., 0], values[..., 1], name)


class Regression(RegressorMixin, BaseConvexReLU):
    """Targets and predictions of the regressors."""

    _losses = ("squared",)

    @with_full_precision
    def fit(self, X, y, sample_weight=None):
        """Fit to inputs X (n, d) and targets y (n,) or (n, c). The sample weights multiply the samples' losses."""
        self._check_parameters()
        X, y, sample_weight = own_array("X", X), own_array("y", y), own_array("sample_weight", sample_weight)
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self._flat = y.ndim == 1
        self._fit(X, y.reshape(len(y), -1), y, sample_weight)
        return self

    def _coded(self, X, y, sample_weight):
        X, y = own_array("X", X), own_array("y", y)
        X, y = validate_data(self, X, y, reset=False, dtype=np.float64, multi_output=True, y_numeric=True)
        return X, np.asarray(y, np.float64).reshape(len(y), -1), sample_weight

    def predict(self, X):
        """Predict (n,) values, or (n, c) values if the targets had columns."""
        F = self._outputs(X)
        return F[:, 0] if self._flat else F

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _has_probabilities(estimator: Classification) -> bool:
    if estimator.loss == "squared":
        raise AttributeError("predict_proba needs loss='logistic' or 'softmax'; got 'squared'.")
    return True


class Classification(ClassifierMixin, BaseConvexReLU):
    """Labels, targets and predictions of the classifiers."""

    classes_: Any
    class_weight: Any
    _losses = ("logistic", "softmax", "squared")
    _stratified = True

    @property
    def _loss(self) -> str:
        if self.loss != "auto":
            return self.loss
        return "logistic" if len(self.classes_) == 2 else "softmax"

    @with_full_precision
    def fit(self, X, y, sample_weight=None):
        """Fit to inputs X (n, d) and labels y (n,) of any kind. The sample weights multiply the samples' losses."""
        self._check_parameters()
        X, y, sample_weight = own_array("X", X), labels(y), own_array("sample_weight", sample_weight)
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise invalid("y", f"one class ({self.classes_[0]!r})", "at least two classes")
        sample_weight = self._class_weighted(X, y, sample_weight)
        self._fit(X, self._targets(codes), y, sample_weight)
        return self

    def _class_weighted(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> Any:
        """The sample weights times those of the classes."""
        if self.class_weight is None:
            return sample_weight
        try:
            factors = compute_sample_weight(self.class_weight, y)
        except (ValueError, TypeError) as err:
            raise invalid("class_weight", f"{self.class_weight!r} ({err})", "None, 'balanced' or a dict") from err
        if not (np.isfinite(factors).all() and (factors >= 0).all()):
            raise invalid("class_weight", repr(self.class_weight), "weights >= 0")
        return factors if sample_weight is None else factors * _check_sample_weight(sample_weight, X, dtype=np.float64)

    def _targets(self, codes: np.ndarray) -> np.ndarray:
        """The targets (n, c) of the loss for indices of classes."""
        k = len(self.classes_)
        if k == 2 and self._loss != "softmax":
            return (2.0 * codes - 1.0)[:, None]
        Y = np.eye(k)[codes]
        return 2 * Y - 1 if self._loss == "logistic" else Y

    def _coded(self, X, y, sample_weight):
        X, y = validate_data(self, own_array("X", X), labels(y), reset=False, dtype=np.float64)
        codes = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
        if (self.classes_[codes] != y).any():
            raise invalid("y", repr(y[self.classes_[codes] != y].tolist()[0]), "labels that fit has seen")
        return X, self._targets(codes), self._class_weighted(X, y, sample_weight)

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


def check_positive_integer(name: str, value: Any) -> None:
    """Raise unless the value is an integer >= 1."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise invalid(name, repr(value), "a positive integer")


def own_array(name: str, value: Any) -> Any:
    """An argument for scikit-learn's own checks, which drop masks and know few array types.

    What they handle well stays as it is: numpy arrays, lists, sparse matrices, columns of pandas, and tables of pandas,
    polars and others.

    Raises:
      InvalidTypeError, InvalidInputError: masked entries, or an array of another library without real numbers.
    """
    known = isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)
    table = hasattr(value, "iloc") or hasattr(value, "columns")
    if known or table or isinstance(value, list | tuple) or not hasattr(value, "__array__"):
        return value
    return plain_array(name, value)


def labels(y: Any) -> Any:
    """Labels without masked and missing ones.

    Raises:
      InvalidInputError: a label is masked or missing.
    """
    if isinstance(y, np.ma.MaskedArray):
        y = unmasked("y", y)
    entries = np.asarray(y)
    if entries.dtype.kind == "O" and entries.ndim:
        for where, entry in np.ndenumerate(entries):
            if is_missing(entry) or (isinstance(entry, float) and np.isnan(entry)):
                raise invalid("y", f"{entry!r} at index {where}, a missing label", "a label for every sample")
    return y


def is_number(value: Any) -> bool:
    """True for real numbers, but not for booleans."""
    return isinstance(value, Real) and not isinstance(value, bool)
