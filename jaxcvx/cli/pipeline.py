"""What `jaxcvx train` does: cross-validate along a path of betas, then improve and prove the network at the best one.

Without its file formats and reports it is this program, X and y standardised:

    result = jaxcvx.cross_validate(X, y, loss="logistic")
    beta = float(result.betas[result.best])
    network, certificate = jaxcvx.improve(result.network(), X, y, beta, loss="logistic")
    print(certificate.explain())
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcvx.analysis.cross_validation import CrossValidation, cross_validate
from jaxcvx.certificates.certificate import Certificate, make_certificate
from jaxcvx.cli.model import Preprocessing, standardised
from jaxcvx.cli.phases import Phases, stop_on_interrupt
from jaxcvx.cli.split import fold_pairs, held_out_rows
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import Dataset
from jaxcvx.errors import invalid
from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network, balance, prune, training_objective
from jaxcvx.numerics.on_host import key_of, list_of_keys
from jaxcvx.problems.training import make_problem
from jaxcvx.solvers.improve import improve
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration
from jaxcvx.status import StepInfo

FEATURES = Dense(bias=True, output_bias=True)
BETAS = 20
_DESCENT = 5  # betas of the short path down to a given one


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the command line."""

    beta: float | str = "auto"
    loss: str = "auto"
    folds: int = 5
    prove: float = 60.0
    tol: float = 1e-2
    test_fraction: float = 0.0
    compare: bool = False
    seed: int = 0
    rule: str = "best"


@dataclasses.dataclass(frozen=True)
class Split:
    """Raw training and test rows, and their standardisation.

    Attributes:
      X, y: training rows.
      X_test, y_test: rows held out, perhaps none.
      prep: fitted on the training rows.
    """

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    prep: Preprocessing


@dataclasses.dataclass(frozen=True)
class Result:
    """What the report, the pictures and the model file are made from.

    Attributes:
      split: the data.
      folds: indices (train, test) of the training rows in every fold.
      validation: the cross-validation.
      chosen: index of the beta of the network.
      beta_max: the beta from which on the network is constant, found by ascents.
      network: the network, balanced, for standardised inputs.
      certificate: what is proved about it.
      trace: (seconds, upper, lower) during the proof.
    """

    split: Split
    folds: list[tuple[np.ndarray, np.ndarray]]
    validation: CrossValidation
    chosen: int
    beta_max: float
    network: Network
    certificate: Certificate
    trace: list[tuple[float, float, float]]


def split_data(data: Dataset, settings: Settings, schema: Schema) -> Split:
    """Hold out test rows, if wanted, and standardise by the statistics of the others."""
    held = held_out_rows(data.X, data.y, data.classes, settings.test_fraction, settings.seed)
    loss = settings.loss
    if loss == "auto":
        loss = "squared" if data.classes is None else "logistic" if len(data.classes) == 2 else "softmax"
    if data.task == "regression" and loss not in ("squared", "huber"):
        raise invalid("--loss", loss, "squared or huber for a numeric target")
    X, y = data.X[~held], data.y[~held]
    return Split(X, y, data.X[held], data.y[held], standardised(X, y, data.classes, loss, schema))


def fold_score(prep: Preprocessing) -> Any:
    """The score of held-out rows: R2, or the share of right classes."""
    if prep.classes is None:
        return "r2"
    if len(prep.classes) == 2 or prep.loss == "softmax":
        return "accuracy"

    def accuracy(Y: Any, F: Any) -> Any:
        return (Y.argmax(axis=1) == F.argmax(axis=1)).mean()

    return accuracy


def choose(split: Split, settings: Settings, key: Any) -> tuple[CrossValidation, int, float, Any]:
    """Cross-validate along the path; with a given beta along a short path down to it.

    Returns:
      The cross-validation, the index of the chosen beta, beta_max, and the folds.
    """
    prep = split.prep
    X, Y = prep.inputs(split.X), prep.targets(split.y)
    fold_key, key = list_of_keys(key, 2)
    folds = fold_pairs(split.X, split.y, prep.classes, settings.folds, fold_key)
    betas: Any = BETAS
    if settings.beta != "auto":
        beta = float(settings.beta)
        problem = make_problem(X, Y, beta, loss=prep.loss, features=FEATURES)
        top = float(ColumnGeneration().largest_beta(problem, key))
        betas = np.geomspace(max(beta, min(8 * beta, top)), beta, _DESCENT if beta < top else 1)
    result = cross_validate(
        X, Y, loss=prep.loss, features=FEATURES, betas=betas, folds=folds, key=key, scoring=fold_score(prep)
    )
    if settings.beta != "auto":  # the rules may have chosen, and finished, others of the short path
        path = ColumnGeneration().finish_path(problem, result.path, {len(betas) - 1}, key)
        return dataclasses.replace(result, path=path), len(betas) - 1, top, folds
    return result, result.index(settings.rule), float(result.betas[0]), folds


def prove(
    network: Network, split: Split, settings: Settings, phases: Phases, stopped: Callable[[], bool] = lambda: False
) -> tuple[Network, Certificate, list[tuple[float, float, float]]]:
    """Improve and certify the network for ``settings.prove`` seconds, or until the gap is small or ``stopped``."""
    prep, trace = split.prep, []
    X, Y = prep.inputs(split.X), prep.targets(split.y)
    if settings.prove == 0:
        network = balance(network)
        value = float(training_objective(network, X, Y, prep.beta, loss=prep.loss))
        return network, make_certificate(value, -np.inf, "none"), []
    began = time.perf_counter()

    def watch(info: StepInfo) -> bool:
        trace.append((time.perf_counter() - began, float(info.objective), float(info.bound)))
        phases.state(f"gap {percent(info.residual)}, {info.step} nodes")
        return stopped()

    network, certificate = improve(
        network, X, Y, prep.beta, loss=prep.loss, tol=settings.tol, max_seconds=settings.prove, callback=watch
    )
    trace.append((time.perf_counter() - began, float(certificate.upper), float(certificate.lower)))
    phases.state(f"gap {percent(certificate.gap)}, {int(certificate.work)} nodes")
    return network, certificate, trace


def percent(gap: Any) -> str:
    """A relative gap in words."""
    gap = float(gap)
    if not np.isfinite(gap):
        return "unknown"
    return f"{100 * gap:.3g} %" if gap >= 1e-5 else f"{100 * gap:.1e} %"


def train(
    data: Dataset,
    schema: Schema,
    settings: Settings,
    phases: Phases | None = None,
    keep: Callable[[Split, Network], Any] = lambda split, network: None,
) -> Result:
    """Run the pipeline. All random numbers come from ``settings.seed``.

    Args:
      data: the data set.
      schema: the columns of its file.
      settings: options.
      phases: told what is being done; None for nobody.
      keep: called with the network before the proof, which may take long, to save it.
    """
    phases = Phases(quiet=True) if phases is None else phases
    split = split_data(data, settings, schema)
    count = f"{BETAS} betas" if settings.beta == "auto" else "one beta"
    with phases.phase(f"training {count} on all rows and in folds"):
        validation, chosen, top, folds = choose(split, settings, key_of(settings.seed))
        beta, error = float(validation.betas[chosen]), float(validation.standard_error[chosen])
        phases.state(f"beta {beta:.4g}, {score_text(validation)} {validation.mean[chosen]:.3f} +- {error:.3f}")
    split = dataclasses.replace(split, prep=dataclasses.replace(split.prep, beta=beta))
    network = prune(jax.tree.map(lambda a: a[chosen], validation.path.network))
    keep(split, network)
    if settings.prove == 0:
        network, certificate, trace = prove(network, split, settings, phases)
    else:
        with stop_on_interrupt(phases) as stopped, phases.phase(f"proving for up to {settings.prove:g} s"):
            network, certificate, trace = prove(network, split, settings, phases, stopped)
    return Result(split, folds, validation, chosen, top, network, certificate, trace)


def score_text(validation: CrossValidation) -> str:
    """The name of the score of the held-out rows."""
    return {"r2": "R2"}.get(validation.scoring, "accuracy")
