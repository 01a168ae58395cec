"""Features: how raw inputs become the rows that hidden weights multiply.

A network of this library computes ``lower(relu(Z @ U) @ V (+ Z @ S))`` where ``Z = features.matrix(X)`` and the
readout's ``lower`` takes rows to samples (the identity unless a sample has several rows, its patches). A bias
and a skip connection are decisions about features, so no solver knows of them: a bias is a column of
ones in Z (its weights are penalised like all others), a skip connection is one more block of weights
whose "cell" has every gate open and no cone constraint. Convolutions: :mod:`jaxcvx.operators.convolution`.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.operators.readout import Readout

_Matrix = TypeVar("_Matrix", np.ndarray, jax.Array)


class Features(abc.ABC):
    """An architecture's first layer. Frozen, hashable, static under jit.

    Attributes:
      bias: whether rows end with a one.
      skip: whether networks have a linear skip connection.
      ndims: numbers of axes that X may have.
    """

    bias: bool
    skip: bool

    @property
    @abc.abstractmethod
    def ndims(self) -> tuple[int, ...]: ...

    @abc.abstractmethod
    def matrix(self, X: Float[Array, "n ..."]) -> Float[Array, "N p"]:
        """Rows that the hidden weights multiply, numpy for numpy and jax for jax arrays, traced or not."""

    @abc.abstractmethod
    def num_weights(self, *sample_shape: int) -> int:
        """Length p of one hidden neuron's weight vector, for samples of this shape (``X.shape[1:]``).

        Raises:
          InvalidInputError: naming X, if such samples do not fit.
        """

    def readout(self, *sample_shape: int) -> Readout:
        """How rows become predictions, for samples of this shape."""
        return Readout()


def append_ones(rows: _Matrix) -> _Matrix:
    """The rows with a last column of ones."""
    xp = np if isinstance(rows, np.ndarray) else jnp
    return xp.concatenate([rows, xp.ones((rows.shape[0], 1), rows.dtype)], axis=1)


@dataclasses.dataclass(frozen=True)
class Dense(Features):
    """Fully connected features on X of shape (n, d).

    Attributes:
      bias: append a column of ones. The bias weights are penalised like the others, and hidden weights
        get d+1 rows. (Unpenalised biases are another class of networks.)
      skip: add a linear skip connection Z @ S, penalised as one more group, ``beta * ||S||_F``.
    """

    bias: bool = False
    skip: bool = False

    @property
    def ndims(self) -> tuple[int, ...]:
        return (2,)

    def matrix(self, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
        """Rows that the hidden weights multiply: X, with a column of ones if ``bias``.

        Works on numpy arrays (result numpy) and on jax arrays, traced or not.
        """
        return append_ones(X) if self.bias else X

    def num_weights(self, *sample_shape: int) -> int:
        """Length p of one hidden neuron's weight vector for samples of shape (d,)."""
        return sample_shape[0] + int(self.bias)


def resolve_features(features: object) -> Features:
    """Turn the public ``features`` argument into a features object.

    Raises:
      InvalidInputError, InvalidTypeError: for an unknown name or type.
    """
    if isinstance(features, str):
        if features == "dense":
            return Dense()
        raise invalid(
            "features", repr(features), "'dense' or a features object such as jaxcvx.Dense(bias=True)"
        )
    if not isinstance(features, Features):
        raise InvalidTypeError(
            f"features: got {type(features).__name__}, expected 'dense', jaxcvx.Dense(...), jaxcvx.ConvPool(...) "
            "or jaxcvx.ConvFlatten(...)."
        )
    return features
