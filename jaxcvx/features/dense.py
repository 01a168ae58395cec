"""Features turn the inputs X into the rows Z that hidden weights multiply.

A network of this library computes ``lower(relu(Z @ U) @ V (+ Z @ S))`` with ``Z = features.matrix(X)``. The readout's
linear map ``lower`` adds up the rows that belong to one sample. For dense networks it is the identity, because a sample
has one row. For convolutions a sample has one row per patch; see :mod:`jaxcvx.features.convolution`.

Biases and skip connections are decisions about features, so solvers need no code for them. A bias is a column of ones
in Z, and its weights are penalised like all others. A skip connection S is one more block of weights, whose "cell" has
an all-True mask and no cone constraint.

With ``output_bias=True`` the outputs get a bias, one number for each, which has no weight decay. Then adding a constant
to Y adds it to the predictions. The dual problem has the additional constraint ``sum_i R_i = 0``.

:class:`FreeBias` stands for another class of networks, whose hidden biases have no weight decay either. It also appends
ones to X, but the last hidden weight is not penalised.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.features.readout import Readout

_Matrix = TypeVar("_Matrix", np.ndarray, jax.Array)


class Features(abc.ABC):
    """The first layer of an architecture. Subclasses are frozen, hashable dataclasses, static under jit.

    Attributes:
      bias: True if every row of Z ends with a one.
      skip: True if networks have a linear skip connection.
      free_bias: True if the hidden biases have no weight decay.
      output_bias: True if the outputs have a bias, which has no weight decay.
      ndims: the allowed numbers of axes of X.
    """

    bias: bool
    skip: bool
    free_bias: bool = False
    output_bias: bool = False

    @property
    @abc.abstractmethod
    def ndims(self) -> tuple[int, ...]: ...

    @abc.abstractmethod
    def matrix(self, X: Float[Array, "n ..."]) -> Float[Array, "N p"]:
        """The rows Z that the hidden weights multiply: numpy for a numpy X, jax for a jax X (traced or not)."""

    @abc.abstractmethod
    def num_weights(self, *sample_shape: int) -> int:
        """Length p of a neuron's hidden weights, for samples of this shape (``X.shape[1:]``).

        Raises:
          InvalidInputError: samples of this shape do not fit the features.
        """

    def readout(self, *sample_shape: int) -> Readout:
        """The linear map from rows to predictions, for samples of this shape (``X.shape[1:]``)."""
        return Readout()

    def penalised(self, hidden: _Matrix) -> _Matrix:
        """The part of the hidden weights (m, p) that weight decay penalises."""
        return hidden[:, :-1] if self.free_bias else hidden

    def without_output_bias(self) -> Features:
        """The same features without an output bias. :class:`FreeBias` stays, because its networks always have one."""
        features: Any = self
        is_field = "output_bias" in getattr(features, "__dataclass_fields__", ())
        return dataclasses.replace(features, output_bias=False) if is_field else self


def append_ones(rows: _Matrix) -> _Matrix:
    """Append a column of ones."""
    xp = np if isinstance(rows, np.ndarray) else jnp
    return xp.concatenate([rows, xp.ones((rows.shape[0], 1), rows.dtype)], axis=1)


@dataclasses.dataclass(frozen=True)
class Dense(Features):
    """Fully connected features on X of shape (n, d).

    Attributes:
      bias: append a column of ones, so that a neuron has d + 1 hidden weights. The bias is penalised like the other
        weights. (For biases without a penalty see :class:`FreeBias`.)
      skip: add a linear skip connection Z @ S with penalty ``beta * ||S||_F``.
      output_bias: add a bias to every output, ``network.output_bias``, without penalty.

    >>> import numpy as np, jaxcvx
    >>> jaxcvx.Dense(bias=True).matrix(np.array([[2.0, 3.0]]))
    array([[2., 3., 1.]])
    """

    bias: bool = False
    skip: bool = False
    output_bias: bool = False

    @property
    def ndims(self) -> tuple[int, ...]:
        return (2,)

    def matrix(self, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
        """X, with a column of ones if ``bias``."""
        return append_ones(X) if self.bias else X

    def num_weights(self, *sample_shape: int) -> int:
        """d, or d + 1 with a bias, for samples of shape (d,)."""
        return sample_shape[0] + int(self.bias)


@dataclasses.dataclass(frozen=True)
class FreeBias(Features):
    """Fully connected features on X of shape (n, d), with hidden and output biases free of weight decay.

    The network is ``f(x) = sum_j v_j (x^T u_j + b_j)_+ + c`` with penalty ``beta/2 sum_j (||u_j||^2 + ||v_j||^2)``.
    The bias b_j is the last of the neuron's d + 1 hidden weights. The output bias c is ``network.output_bias``. These
    features work with :class:`jaxcvx.CuttingPlane`, :class:`jaxcvx.GradientDescent` and :func:`jaxcvx.certify`.

    Source: T. Ergen and M. Pilanci, "Convex geometry and duality of over-parameterized neural networks", JMLR 22
    (2021).

    >>> import jaxcvx
    >>> jaxcvx.FreeBias().num_weights(2)  # two inputs and the bias
    3
    """

    bias = True
    skip = False
    free_bias = True
    output_bias = True

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
    """Turn the public argument ``features``, a name or an object, into a features object.

    Raises:
      InvalidInputError: the name is unknown.
      InvalidTypeError: the argument is neither a name nor a features object.
    """
    if isinstance(features, str):
        if features == "dense":
            return Dense()
        raise invalid("features", repr(features), "'dense' or a features object such as jaxcvx.Dense(bias=True)")
    if not isinstance(features, Features):
        known = "'dense', jaxcvx.Dense(...), jaxcvx.FreeBias(), jaxcvx.ConvPool(...) or jaxcvx.ConvFlatten(...)"
        raise wrong_type("features", features, known)
    return features
