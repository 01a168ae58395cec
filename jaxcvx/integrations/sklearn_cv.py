"""scikit-learn estimators that choose beta by cross-validation along a path of betas."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import jax
import numpy as np

from jaxcvx.analysis.cross_validation import RULES
from jaxcvx.analysis.folds import Folds
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.integrations import fitting
from jaxcvx.integrations.sklearn_base import (
    BaseConvexReLU,
    Classification,
    Regression,
    check_positive_integer,
    scikit_scores,
)
from jaxcvx.numerics.on_host import key_of, list_of_keys
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration


class _ConvexReLUCV(BaseConvexReLU):
    """The estimators that choose beta."""

    def __init__(
        self,
        *,
        betas=20,
        beta_scale="absolute",
        cv=5,
        scoring=None,
        rule="best",
        solver=None,
        loss="auto",
        bias=True,
        output_bias=True,
        random_state=None,
    ):
        self.betas = betas
        self.beta_scale = beta_scale
        self.cv = cv
        self.scoring = scoring
        self.rule = rule
        self.solver = solver
        self.loss = loss
        self.bias = bias
        self.output_bias = output_bias
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if np.ndim(self.betas) == 0:
            check_positive_integer("betas", self.betas)
        else:
            betas = np.asarray(self.betas)
            if betas.ndim != 1 or betas.dtype.kind not in "iuf" or not ((betas > 0) & np.isfinite(betas)).all():
                raise invalid("betas", repr(self.betas), "a positive integer, or a vector of positive numbers")
        if self.beta_scale not in ("absolute", "relative"):
            raise invalid("beta_scale", repr(self.beta_scale), "'absolute' or 'relative'")
        if self.rule not in RULES:
            raise invalid("rule", repr(self.rule), "'best' or 'one_standard_error'")
        if not isinstance(self.solver, ColumnGeneration | None):
            raise wrong_type("solver", self.solver, "ColumnGeneration(...) or None")
        if not (self.scoring is None or isinstance(self.scoring, str) or callable(self.scoring)):
            raise wrong_type("scoring", self.scoring, "None, a name, or a function (estimator, X, y) -> number")

    def _fit(self, X: np.ndarray, Y: np.ndarray, y: np.ndarray, sample_weight: Any) -> None:
        solver = ColumnGeneration() if self.solver is None else self.solver
        fold_key, key, last_key = list_of_keys(key_of(self._seed()), 3)
        with jax.enable_x64(True):  # as everywhere in scikit-learn
            training = self._prepare(X, Y, sample_weight, True)
            self.beta_max_ = fitting.beta_max(training, solver)
            if np.ndim(self.betas) == 0:
                betas = fitting.beta_grid(self.beta_max_, int(self.betas))
            else:
                scale = self.beta_max_ if self.beta_scale == "relative" else 1.0
                betas = np.sort(np.asarray(self.betas, float))[::-1] * scale
            parts, pairs = self._folds(training, X, y, fold_key)
            score = None if callable(self.scoring) else self._named_score(self.scoring, Y.shape[1])
            result = self._validate(training, betas, parts, solver, key, score)
            if score is None:
                given = None if sample_weight is None else training.weights
                result = scikit_scores(self, self.scoring, X, y, pairs, given, result)
            self._store_choice(training, result, self.rule, solver, last_key)

    def _folds(self, training: fitting.Training, X: Any, y: Any, key: Any) -> tuple[Folds, list[Any]]:
        """The folds of the rows, and the same as pairs of indices of the samples."""
        cv = self.cv
        if isinstance(cv, Integral) and not isinstance(cv, bool):
            if cv < 2:
                raise invalid("cv", cv, "an integer >= 2")
            parts = self._random_folds(training, int(cv), key)
            present = training.weights > 0
            owned = [(part > 0)[:, training.owner] & present for part in parts]
            return parts, [tuple(np.flatnonzero(owned[side][k]) for side in (0, 1)) for k in range(int(cv))]
        if hasattr(cv, "split") and not isinstance(cv, str):
            pairs = list(cv.split(X, y))
        elif hasattr(cv, "__iter__") and not isinstance(cv, str):
            pairs = [tuple(pair) for pair in cv]
        else:
            raise wrong_type("cv", cv, "an integer >= 2, a splitter, or pairs (train, test) of indices")
        try:
            return training.folds(pairs), pairs
        except (ValueError, TypeError) as err:
            raise invalid("cv", f"bad folds ({err})", "pairs (train, test) of indices of samples with weight") from err


class ConvexReLURegressorCV(Regression, _ConvexReLUCV):
    """Two-layer ReLU regression whose weight decay is chosen by cross-validation.

    The networks of all betas are trained on all data, and anew in every fold, along paths of betas: see
    :func:`jaxcvx.cross_validate`. The loss and the network are those of :class:`ConvexReLURegressor`.

    Parameters:
      betas: the number of betas, in equal ratios from beta_max, the smallest beta whose solution is zero, to 0.01 of
        it; or a vector of positive numbers.
      beta_scale: "absolute", or "relative": a vector of betas are fractions of beta_max.
      cv: the number of folds, which ``random_state`` shuffles; or a splitter of scikit-learn, or an iterable of pairs
        (train, test) of indices. Equal samples are in the same fold if it is a number.
      scoring: None for R2 (the mean over outputs); or a name that scikit-learn knows, such as
        "neg_mean_absolute_error"; or a function ``(estimator, X, y) -> number``. Scores have the sample weights.
      rule: "best", or "one_standard_error": the largest beta whose mean score is within one standard error of the best.
      solver: ``ColumnGeneration(...)`` with other settings, or None.
      loss, bias, output_bias: as in :class:`ConvexReLURegressor`.
      random_state: seed of the folds and of the starts of ascents.

    Attributes:
      betas_: (k,) the betas on the scale of all data, large ones first.
      beta_: the chosen one.
      cv_scores_: (folds, k) scores of the left-out samples.
      network_: the network on all data at ``beta_``.
      path_: the batched ``jaxcvx.Solution`` on all data.
      cross_validation_: the ``jaxcvx.CrossValidation``, which ``jaxcvx.plots.path`` draws.
      Others as in :class:`ConvexReLURegressor`.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> from jaxcvx.estimators import ConvexReLURegressorCV
      >>> X = np.linspace(-1.0, 1.0, 24)[:, None]
      >>> solver = jaxcvx.ColumnGeneration(width=8, move_steps=20)
      >>> model = ConvexReLURegressorCV(betas=4, cv=3, solver=solver, random_state=0).fit(X, np.abs(X[:, 0]))
      >>> model.cv_scores_.shape, bool(model.score(X, np.abs(X[:, 0])) > 0.9)
      ((3, 4), True)
    """


class ConvexReLUClassifierCV(Classification, _ConvexReLUCV):
    """Two-layer ReLU classification whose weight decay is chosen by cross-validation.

    Parameters and attributes are those of :class:`ConvexReLURegressorCV`, except for these. A number of folds gives
    folds with nearly the same share of each class.

    Parameters:
      scoring: None for accuracy; or a name that scikit-learn knows, such as "neg_log_loss" or "roc_auc"; or a function
        ``(estimator, X, y) -> number``.
      loss: as in :class:`ConvexReLUClassifier`.
      class_weight: None; a dict from labels to factors >= 0 of their samples' weights; or "balanced": the number of
        samples over the number of classes times that of the label. Scores have these weights too.

    Attributes:
      classes_: the labels, sorted.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> from jaxcvx.estimators import ConvexReLUClassifierCV
      >>> X = np.linspace(-1.0, 1.0, 24)[:, None]
      >>> y = np.where(np.abs(X[:, 0]) < 0.5, "inner", "outer")
      >>> solver = jaxcvx.ColumnGeneration(width=8, move_steps=20)
      >>> model = ConvexReLUClassifierCV(betas=4, cv=3, solver=solver, random_state=0).fit(X, y)
      >>> model.predict([[0.0], [0.9]]).tolist()
      ['inner', 'outer']
    """

    def __init__(
        self,
        *,
        betas=20,
        beta_scale="absolute",
        cv=5,
        scoring=None,
        rule="best",
        solver=None,
        loss="auto",
        bias=True,
        output_bias=True,
        class_weight=None,
        random_state=None,
    ):
        super().__init__(
            betas=betas,
            beta_scale=beta_scale,
            cv=cv,
            scoring=scoring,
            rule=rule,
            solver=solver,
            loss=loss,
            bias=bias,
            output_bias=output_bias,
            random_state=random_state,
        )
        self.class_weight = class_weight
