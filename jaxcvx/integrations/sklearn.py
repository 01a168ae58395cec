"""scikit-learn estimators: two-layer ReLU networks with ``fit``, ``predict`` and a certificate."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import numpy as np

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.integrations import fitting
from jaxcvx.integrations.sklearn_base import (
    NUM_BETAS,
    BaseConvexReLU,
    Classification,
    Regression,
    check_positive_integer,
    is_number,
)
from jaxcvx.numerics.on_host import key_of, list_of_keys
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration

_CELLS = 128  # of solvers that work on cells
_OF_A_PATH = ("beta_max_", "betas_", "cv_scores_", "path_", "cross_validation_")


class _ConvexReLU(BaseConvexReLU):
    """The estimators at one beta."""

    def __init__(
        self,
        *,
        beta="auto",
        beta_scale="absolute",
        n_cells="deprecated",
        solver=None,
        loss="auto",
        bias=True,
        output_bias=True,
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
        self.output_bias = output_bias
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not (
            0 <= self.beta < np.inf if is_number(self.beta) else isinstance(self.beta, str) and self.beta == "auto"
        ):
            raise invalid("beta", repr(self.beta), "'auto' or a number >= 0")
        if self.beta_scale not in ("absolute", "relative"):
            raise invalid("beta_scale", repr(self.beta_scale), "'absolute' or 'relative'")
        check_positive_integer("max_iter", self.max_iter)
        if not isinstance(self.solver, AnySolver | None):
            raise wrong_type("solver", self.solver, "a solver object or None")
        if isinstance(self.n_cells, str) and self.n_cells == "deprecated":
            return
        check_positive_integer("n_cells", self.n_cells)
        warnings.warn(
            "n_cells is deprecated and will be removed: the default fit needs no cells. "
            "solver=jaxcvx.ColumnGeneration(width=...) sets the number of slots for neurons.",
            FutureWarning,
            stacklevel=3,
        )

    def _path_solver(self) -> ColumnGeneration | None:
        """The solver that follows paths; None if the user gave another one."""
        if self.solver is not None:
            return self.solver if isinstance(self.solver, ColumnGeneration) else None
        default = ColumnGeneration()
        return dataclasses.replace(default, move_steps=min(default.move_steps, max(1, self.max_iter // default.moves)))

    def _fit(self, X: np.ndarray, Y: np.ndarray, y: np.ndarray, sample_weight: Any) -> None:
        for name in _OF_A_PATH:
            self.__dict__.pop(name, None)  # of an earlier fit
        fold_key, key, last_key = list_of_keys(key_of(self._seed()), 3)
        follows = self._path_solver()
        takes_bias = follows is not None or not ({"no free bias"} & self.solver.requires)
        solver = ColumnGeneration() if follows is None else follows
        with jax.enable_x64(True):  # as everywhere in scikit-learn
            training = self._prepare(X, Y, sample_weight, takes_bias)
            if self.beta == "auto" or self.beta_scale == "relative" or self.solver is None:
                self.beta_max_ = fitting.beta_max(training, solver)
            if self.beta == "auto":
                parts = self._random_folds(training, None, fold_key)
                betas = fitting.beta_grid(self.beta_max_, NUM_BETAS)
                result = self._validate(training, betas, parts, solver, key, self._named_score(None, Y.shape[1]))
                self._store_choice(training, result, "best", solver, last_key)
                if follows is not None:
                    return  # cross-validation has trained on all data
                beta = self.beta_
            else:
                beta = float(self.beta) * (self.beta_max_ if self.beta_scale == "relative" else 1.0)
            if self.solver is None:
                fit = fitting.fit_at(training, beta, self.beta_max_, solver, key, self._start(training))
            else:
                fit = fitting.fit_with_solver(training, beta, self.solver, self._num_cells, key)
        self._store(fit, beta)

    @property
    def _num_cells(self) -> int:
        return _CELLS if self.n_cells == "deprecated" else int(self.n_cells)

    def _start(self, training: fitting.Training) -> Any:
        """The network of the previous fit, if it is to be the start and its shapes fit."""
        warm = getattr(self, "network_", None) if self.warm_start else None
        if warm is None or warm.features != training.features:
            return None
        fits = (warm.hidden.shape[1], warm.output.shape[1]) == (training.num_columns, training.problem.num_outputs)
        return warm if fits else None


class ConvexReLURegressor(Regression, _ConvexReLU):
    """Two-layer ReLU regression for one output or several.

    ``fit`` minimises ``1/2 sum_i w_i ||f(x_i) - y_i||^2 + beta/2 (sum of squared weights)`` over networks of any width.
    Adding a constant to y adds it to the predictions. Inputs are not standardised: put a ``StandardScaler`` before the
    estimator if the columns differ in scale. :class:`ConvexReLURegressorCV` has more options for the choice of beta.

    Parameters:
      beta: weight decay >= 0. "auto" is the best of 20 betas by 5-fold cross-validation along a path (fewer folds for
        less than ten samples).
      beta_scale: "absolute": the loss is a sum over samples. "relative": beta is a fraction of beta_max, the smallest
        beta whose solution is zero (found by many ascents, to about 1e-6). Below 0.0001 of it the default fit trains at
        that beta.
      n_cells: deprecated; see ``solver``. The number of cells for solvers that work on sampled cells.
      solver: any jaxcvx solver, such as ``ColumnGeneration(width=...)`` or ``ConeADMM()``. None: a short path of betas
        down to the given one by ``ColumnGeneration()``. Other solvers work on scaled inputs and targets.
      loss: "auto" or "squared"; both are the same.
      bias: True if neurons have a bias. Its weight is penalised like the others.
      output_bias: True if outputs have a bias, which is not penalised. Solvers that do not know it train without.
      max_iter: largest number of Adam steps that move the neurons at one beta, if ``solver`` is None.
      warm_start: True if the fit at a given beta starts from the network of the previous fit.
      random_state: seed of the folds, of the starts of ascents and of sampled cells.

    Attributes:
      network_: the trained ``jaxcvx.Network``, in float64 numpy arrays.
      beta_, beta_max_: the absolute weight decay that was used, and the smallest one whose solution is zero.
      objective_, lower_bound_, gap_, scope_: training objective, its proved lower bound over the networks in ``scope_``
        (see :class:`jaxcvx.Solution`), and their relative gap. The default fit proves nothing (-inf): ``certify`` does.
      heuristic_bound_: an estimate of the best objective, from the solver's ascents.
      betas_, cv_scores_, path_, cross_validation_: with beta="auto", as in :class:`ConvexReLURegressorCV`.
      n_iter_, n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Example:
      >>> from jaxcvx.estimators import ConvexReLURegressor
      >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 0.0, 1.0]
      >>> model = ConvexReLURegressor(beta=0.01, beta_scale="relative", max_iter=50, random_state=0).fit(X, y)
      >>> certificate = model.certify(X, y)
      >>> model.predict(X).shape, bool(certificate.lower <= model.objective_)
      ((4,), True)
    """


class ConvexReLUClassifier(Classification, _ConvexReLU):
    """Two-layer ReLU classification.

    ``fit`` minimises the loss summed over samples (times their weights) plus ``beta/2 (sum of squared weights)``.
    Parameters and attributes are those of :class:`ConvexReLURegressor`, except for these:

    Parameters:
      loss: "logistic" has one output for two classes, and one output per class against the rest for more. "softmax" has
        one output for each class. "squared" has targets +-1 for two classes and one-hot rows for more, and no
        ``predict_proba``. "auto" is "logistic" for two classes and "softmax" for more.
      class_weight: None; a dict from labels to factors >= 0 of their samples' weights; or "balanced": the number of
        samples over the number of classes times that of the label. Scores of cross-validation have these weights too.

    Attributes:
      classes_: the labels, sorted.

    Example:
      >>> from jaxcvx.estimators import ConvexReLUClassifier
      >>> X, y = [[0.0], [1.0], [2.0], [3.0]], ["low", "low", "high", "high"]
      >>> model = ConvexReLUClassifier(beta=0.1, beta_scale="relative", max_iter=50, random_state=0).fit(X, y)
      >>> model.predict([[-1.0], [4.0]]).tolist(), model.predict_proba(X).shape
      (['low', 'high'], (4, 2))
    """

    def __init__(
        self,
        *,
        beta="auto",
        beta_scale="absolute",
        n_cells="deprecated",
        solver=None,
        loss="auto",
        bias=True,
        output_bias=True,
        max_iter=1000,
        warm_start=False,
        class_weight=None,
        random_state=None,
    ):
        super().__init__(
            beta=beta,
            beta_scale=beta_scale,
            n_cells=n_cells,
            solver=solver,
            loss=loss,
            bias=bias,
            output_bias=output_bias,
            max_iter=max_iter,
            warm_start=warm_start,
            random_state=random_state,
        )
        self.class_weight = class_weight
