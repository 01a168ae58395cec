"""Features: how raw inputs become the rows that hidden weights multiply.

A network of this library computes ``lower(relu(Z @ U) @ V (+ Z @ S))`` where ``Z = features.matrix(X)`` and the
readout's ``lower`` takes rows to samples (the identity unless a sample has several rows, its patches). A bias
and a skip connection are decisions about features, so no solver knows of them: a bias is a column of
ones in Z (its weights are penalised like all others), a skip connection is one more block of weights
whose "cell" has every gate open and no cone constraint. Convolutions: :mod:`jaxcvx.features.convolution`.

Biases without weight decay (:class:`FreeBias`) are another class of networks: ones are appended as well, but the
last hidden weight is not penalised, and the outputs get a bias of their own. Their dual has one more constraint,
``sum_i R_i = 0``.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.features.readout import Readout

_Matrix = TypeVar("_Matrix", np.ndarray, jax.Array)


class Features(abc.ABC):
    """An architecture's first layer. Frozen, hashable, static under jit.

    Attributes:
      bias: whether rows end with a one.
      skip: whether networks have a linear skip connection.
      free_bias: whether hidden and output biases are free of weight decay.
      ndims: numbers of axes that X may have.
    """

    bias: bool
    skip: bool
    free_bias: bool = False

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

    def penalised(self, hidden: _Matrix) -> _Matrix:
        """The part of hidden weights (m, p) that weight decay sees."""
        return hidden[:, :-1] if self.free_bias else hidden


def append_ones(rows: _Matrix) -> _Matrix:
    """The rows with a last column of ones."""
    xp = np if isinstance(rows, np.ndarray) else jnp
    return xp.concatenate([rows, xp.ones((rows.shape[0], 1), rows.dtype)], axis=1)


@dataclasses.dataclass(frozen=True)
class Dense(Features):
    """Fully connected features on X of shape (n, d).

    Attributes:
      bias: append a column of ones. The bias weights are penalised like the others, and hidden weights
        get d+1 rows. (For unpenalised biases see :class:`FreeBias`.)
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


@dataclasses.dataclass(frozen=True)
class FreeBias(Features):
    """Fully connected features on X of shape (n, d), with hidden and output biases free of weight decay.

    ``f(x) = sum_j v_j (x^T u_j + b_j)_+ + c`` with penalty ``beta/2 sum_j (||u_j||^2 + ||v_j||^2)``; the bias b_j is
    the last entry of a hidden neuron's d+1 weights, c is ``network.output_bias``. For
    :class:`jaxcvx.CuttingPlane`, :class:`jaxcvx.GradientDescent` and :func:`jaxcvx.certify`.

    Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22
    (2021).
    """

    bias = True
    skip = False
    free_bias = True

    @property
    def ndims(self) -> tuple[int, ...]:
        return (2,)

    def matrix(self, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
        """X with a column of ones."""
        return append_ones(X)

    def num_weights(self, *sample_shape: int) -> int:
        """d + 1 for samples of shape (d,)."""
        return sample_shape[0] + 1


def resolve_features(features: object) -> Features:
    """Turn the public ``features`` argument into a features object.

    Raises:
      InvalidInputError, InvalidTypeError: for an unknown name or type.
    """
    if isinstance(features, str):
        if features == "dense":
            return Dense()
        raise invalid("features", repr(features), "'dense' or a features object such as jaxcvx.Dense(bias=True)")
    if not isinstance(features, Features):
        known = "'dense', jaxcvx.Dense(...), jaxcvx.FreeBias(), jaxcvx.ConvPool(...) or jaxcvx.ConvFlatten(...)"
        raise wrong_type("features", features, known)
    return features
