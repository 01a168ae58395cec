"""The model file that `train` saves and `predict` loads: a network and the preprocessing of its data."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

from jaxcvx import serialisation
from jaxcvx.cli.tabular import Schema
from jaxcvx.errors import FileFormatError
from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network

MODEL, ROWS = "model.npz", "training.npz"

_KIND = "cli-model"
_ROWS = "cli-training-rows"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Standardisation of inputs and targets, fitted on the training rows.

    Attributes:
      mean, scale: mean and scale of each input column; constant columns have scale 1.
      target_mean, target_scale: mean and scale of the target; 0 and 1 for classification.
      task: "classification" or "regression".
      classes: labels in the order of their codes; None for regression.
      loss: name of the loss.
      beta: absolute weight decay of the training.
      schema: columns of the data file.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    target_mean: float
    target_scale: float
    task: str
    classes: tuple[str, ...] | None
    loss: str
    beta: float
    schema: Schema

    def inputs(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Standardised inputs."""
        return (np.asarray(X, np.float64) - np.array(self.mean)) / np.array(self.scale)

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Targets in the form of the loss: (n, c) +-1 or one-hot, labels for softmax, or standardised reals."""
        if self.task == "regression":
            return ((np.asarray(y, np.float64) - self.target_mean) / self.target_scale)[:, None]
        assert self.classes is not None
        codes = np.asarray(y, np.int64)
        if self.loss == "softmax":
            return codes
        if len(self.classes) == 2:
            return (2.0 * codes - 1.0)[:, None]
        one_hot = np.eye(len(self.classes))[codes]
        return 2 * one_hot - 1 if self.loss in ("logistic", "hinge") else one_hot

    def decide(self, F: Float[np.ndarray, "n c"]) -> np.ndarray:
        """Class codes, or values in the target's own units, from network outputs."""
        F = np.asarray(F)
        if self.task == "regression":
            return F[:, 0] * self.target_scale + self.target_mean
        return (F[:, 0] >= 0).astype(np.int64) if F.shape[1] == 1 else F.argmax(axis=1)

    def probabilities(self, F: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n k"] | None:
        """Probabilities of the k classes from network outputs; None for losses that are not likelihoods."""
        if self.classes is None or self.loss not in ("logistic", "softmax"):
            return None
        F = np.asarray(F, np.float64)
        if self.loss == "softmax":
            return softmax(F, axis=1)
        positive = expit(F)
        if F.shape[1] == 1:
            return np.concatenate([1 - positive, positive], axis=1)
        return positive / positive.sum(axis=1, keepdims=True)  # each class against the others

    def metrics(self, F: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Accuracy, or root mean squared error and R^2 in the target's own units."""
        predicted = self.decide(F)
        if self.task == "classification":
            return {"accuracy": float(np.mean(predicted == y))}
        error = float(np.mean((predicted - y) ** 2))
        spread = float(np.var(y))
        return {"rmse": error**0.5, "r2": 1 - error / spread if spread > 0 else float("nan")}


def standardised(
    X: Float[np.ndarray, "n d"], y: np.ndarray, classes: tuple[str, ...] | None, loss: str, schema: Schema
) -> Preprocessing:
    """The standardisation by the statistics of training rows, with beta not chosen yet."""
    scale, regression = X.std(axis=0), classes is None
    spread = float(y.std()) if regression else 1.0
    return Preprocessing(
        mean=tuple(X.mean(axis=0).tolist()),
        scale=tuple(np.where(scale > 1e-12 * (1 + np.abs(X).max(axis=0)), scale, 1.0).tolist()),
        target_mean=float(y.mean()) if regression else 0.0,
        target_scale=spread if spread > 0 else 1.0,
        task="regression" if regression else "classification",
        classes=classes,
        loss=loss,
        beta=float("nan"),
        schema=schema,
    )


def fingerprint(X: Float[np.ndarray, "n d"], y: np.ndarray) -> str:
    """A SHA-256 checksum of rows and targets, whatever their order."""
    rows = np.column_stack([np.asarray(X, np.float64), np.asarray(y, np.float64)]) + 0.0
    return hashlib.sha256(rows[np.lexsort(rows.T)].tobytes()).hexdigest()


def save_rows(path: str | os.PathLike[str], X: Float[np.ndarray, "n d"], y: np.ndarray) -> None:
    """Write the training rows beside the model, so that its certificate can be checked without the data file."""
    serialisation.save(path, [np.asarray(X), np.asarray(y)], metadata={"kind": _ROWS})


def load_rows(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read what ``save_rows`` wrote.

    Raises:
      FileFormatError: the file is missing, corrupt, or of another kind.
    """
    rows, metadata = serialisation.load_with_metadata(path)
    if metadata.get("kind") != _ROWS or not isinstance(rows, list) or len(rows) != 2:
        raise FileFormatError(f"{os.fspath(path)}: got a jaxcvx file of another kind, expected training rows.")
    return np.asarray(rows[0]), np.asarray(rows[1])


def save_model(path: str | os.PathLike[str], network: Network, prep: Preprocessing, extra: dict[str, Any]) -> None:
    """Write the model file, atomically."""
    fields = dataclasses.asdict(prep) | {"schema": prep.schema.to_json()}
    serialisation.save(path, network, metadata={"kind": _KIND, "preprocessing": fields, **extra})


def load_model(path: str | os.PathLike[str]) -> tuple[Network, Preprocessing, dict[str, Any]]:
    """Read a model file, or the model.npz in a directory.

    Raises:
      FileFormatError: the file is missing, corrupt, or not written by `jaxcvx train`.
    """
    path = os.path.join(path, MODEL) if os.path.isdir(path) else path
    network, metadata = serialisation.load_with_metadata(path)
    if not isinstance(network, Network) or metadata.get("kind") != _KIND:
        raise FileFormatError(
            f"{os.fspath(path)}: got a jaxcvx file of another kind, expected a model of `jaxcvx train`."
        )
    try:
        fields = dict(metadata["preprocessing"])
        fields["schema"] = Schema.from_json(fields["schema"])
        for name in ("mean", "scale", "classes"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        prep = Preprocessing(**fields)
        _check(network, prep)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise FileFormatError(f"{os.fspath(path)}: its description of the preprocessing is damaged.") from err
    return network, prep, metadata


def _check(network: Network, prep: Preprocessing) -> None:
    """Check that network and preprocessing fit together. They always do, unless someone changed the file.

    Raises:
      ValueError, TypeError, AttributeError: they do not fit.
    """
    columns, classes = len(prep.schema.feature_names), prep.classes or ()
    mean, scale = np.array(prep.mean, np.float64), np.array(prep.scale, np.float64)
    if mean.shape != (columns,) or scale.shape != (columns,) or not (np.isfinite(mean) & (scale > 0)).all():
        raise ValueError("mean and scale must have a finite entry for each column, with scale > 0")
    if not all(math.isfinite(value) for value in (prep.target_mean, prep.target_scale, prep.beta)):
        raise ValueError("target_mean, target_scale and beta must be finite")
    if prep.task not in ("classification", "regression") or (prep.task == "regression") != (prep.classes is None):
        raise ValueError("classification needs classes, regression must have none")
    if not all(isinstance(text, str) for text in (prep.loss, *classes)):
        raise TypeError("loss and labels must be strings")
    if not isinstance(network.features, Dense) or network.skip is not None:
        raise TypeError("the network must be dense and without a skip connection")
    outputs = jax.eval_shape(network, mean[None]).shape
    if outputs not in ([(1, len(classes))] if len(classes) > 2 else [(1, 1), (1, max(1, len(classes)))]):
        raise ValueError(f"outputs of shape {outputs}")


def outputs(network: Network, prep: Preprocessing, X: np.ndarray) -> np.ndarray:
    """Network outputs (n, c) for raw inputs, by numpy: nothing is compiled."""
    rows: Any = prep.inputs(X)
    F = np.maximum(network.features.matrix(rows) @ np.asarray(network.hidden).T, 0.0) @ np.asarray(network.output)
    return F if network.output_bias is None else F + np.asarray(network.output_bias)
