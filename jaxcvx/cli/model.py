"""What `train` saves and `predict` loads: a network with the preprocessing that it was trained behind."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxcvx import serialisation
from jaxcvx.cli.tabular import Schema
from jaxcvx.errors import FileFormatError
from jaxcvx.networks.network import Network

_KIND = "cli-model"


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Standardisation of inputs and targets, fitted on the training rows.

    Attributes:
      mean, scale: per input column; constant columns have scale 1.
      target_mean, target_scale: 0 and 1 for classification.
      task: "classification" or "regression".
      classes: labels in code order, or None.
      loss: name of the loss.
      beta: absolute weight decay used.
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
        """Targets as the loss wants them: (n, c) +-1 or one-hot, labels for softmax, or scaled reals."""
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

    def metrics(self, F: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Accuracy, or root mean squared error and R^2 in the target's own units."""
        got = self.decide(F)
        if self.task == "classification":
            return {"accuracy": float(np.mean(got == y))}
        error = float(np.mean((got - y) ** 2))
        spread = float(np.var(y))
        return {"rmse": error**0.5, "r2": 1 - error / spread if spread > 0 else float("nan")}


def save_model(path: str | os.PathLike[str], network: Network, prep: Preprocessing, extra: dict[str, Any]) -> None:
    """Write the model file, atomically."""
    fields = dataclasses.asdict(prep) | {"schema": prep.schema.to_json()}
    serialisation.save(path, network, metadata={"kind": _KIND, "preprocessing": fields, **extra})


def load_model(path: str | os.PathLike[str]) -> tuple[Network, Preprocessing, dict[str, Any]]:
    """Read a model file, or the model.npz in a directory.

    Raises:
      FileFormatError: missing, corrupt, or not written by `jaxcvx train`.
    """
    path = os.path.join(path, "model.npz") if os.path.isdir(path) else path
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
    """Whether network and preprocessing fit together, as they do unless a file was tampered with.

    Raises:
      ValueError, TypeError, AttributeError: they do not.
    """
    columns, classes = len(prep.schema.feature_names), prep.classes or ()
    mean, scale = np.array(prep.mean, np.float64), np.array(prep.scale, np.float64)
    if mean.shape != (columns,) or scale.shape != (columns,) or not (np.isfinite(mean) & (scale > 0)).all():
        raise ValueError("means or scales of other columns, or none")
    if not all(math.isfinite(value) for value in (prep.target_mean, prep.target_scale, prep.beta)):
        raise ValueError("numbers that are not finite")
    if prep.task not in ("classification", "regression") or (prep.task == "regression") != (prep.classes is None):
        raise ValueError("classes that do not fit the task")
    if not all(isinstance(text, str) for text in (prep.loss, *classes)):
        raise TypeError("labels that are no texts")
    outputs = jax.eval_shape(network, mean[None]).shape
    if outputs not in ([(1, len(classes))] if len(classes) > 2 else [(1, 1), (1, max(1, len(classes)))]):
        raise ValueError(f"outputs of shape {outputs}")


def outputs(network: Network, prep: Preprocessing, X: np.ndarray) -> np.ndarray:
    """Network outputs (n, c) for raw inputs."""
    return np.asarray(network(jnp.asarray(prep.inputs(X))))
