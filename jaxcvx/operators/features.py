"""Features: how raw inputs become the rows that hidden weights multiply.

A network of this library computes ``relu(Z @ U) @ V (+ Z @ S)`` where ``Z = features.matrix(X)``. A bias
and a skip connection are decisions about features, so no solver knows of them: a bias is a column of
ones in Z (its weights are penalised like all others), a skip connection is one more block of weights
whose "cell" has every gate open and no cone constraint.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid


@dataclasses.dataclass(frozen=True)
class Dense:
    """Fully connected features on X of shape (n, d).

    Attributes:
      bias: append a column of ones. The bias weights are penalised like the others, and hidden weights
        get d+1 rows. (Unpenalised biases are another class of networks.)
      skip: add a linear skip connection Z @ S, penalised as one more group, ``beta * ||S||_F``.
    """

    bias: bool = False
    skip: bool = False

    def matrix(self, X: Float[Array, "n d"]) -> Float[Array, "n p"]:
        """Rows that the hidden weights multiply: X, with a column of ones if ``bias``.

        Works on numpy arrays (result numpy) and on jax arrays, traced or not.
        """
        if not self.bias:
            return X
        xp = np if isinstance(X, np.ndarray) else jnp
        return xp.concatenate([X, xp.ones((X.shape[0], 1), X.dtype)], axis=1)

    def num_weights(self, num_inputs: int) -> int:
        """Length p of one hidden neuron's weight vector for inputs of dimension ``num_inputs``."""
        return num_inputs + int(self.bias)


def resolve_features(features: object) -> Dense:
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
    if not isinstance(features, Dense):
        raise InvalidTypeError(
            f"features: got {type(features).__name__}, expected 'dense' or jaxcvx.Dense(...)."
        )
    return features
