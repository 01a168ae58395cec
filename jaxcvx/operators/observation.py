"""Linear maps from matrices to numbers, applied to products of factors.

An observation A maps a matrix X (d1, d2) to an array of numbers z. Low-rank problems apply it to ``X = L R^T`` only,
and multiply its adjoint by a factor only. So no array of size d1 x d2 is needed.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Observation(abc.ABC):
    """A linear map A of matrices. Subclasses are frozen pytrees."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape (d1, d2) of the matrices."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """Number of observations m."""

    @abc.abstractmethod
    def apply(self, L: Float[Array, "d1 k"], R: Float[Array, "d2 k"]) -> Float[Array, ...]:
        """``A(L R^T)``."""

    def line(self, L: Array, R: Array, P: Array, Q: Array) -> tuple[Array, Array, Array]:
        """The coefficients (z, a, b) of the polynomial ``A((L + t P) (R + t Q)^T) = z + t a + t^2 b``."""
        return self.apply(L, R), self.apply(jnp.hstack([L, P]), jnp.hstack([Q, R])), self.apply(P, Q)

    @abc.abstractmethod
    def times(self, z: Float[Array, ...], R: Float[Array, "d2 k"]) -> Float[Array, "d1 k"]:
        """``A*(z) R``."""

    @abc.abstractmethod
    def transposed_times(self, z: Float[Array, ...], L: Float[Array, "d1 k"]) -> Float[Array, "d2 k"]:
        """``A*(z)^T L``."""

    @abc.abstractmethod
    def mean_square(self) -> Float[Array, ""]:
        """``||A||_F^2 / (d1 d2)``: the average of ``||A(X)||^2`` over all X with ``||X||_F = 1``."""

    def full(self, X: Float[Array, "d1 d2"]) -> Float[Array, ...]:
        """``A(X)`` for a matrix without factors."""
        return self.apply(X, jnp.eye(self.shape[1], dtype=X.dtype))

    def adjoint(self, z: Float[Array, ...]) -> Float[Array, "d1 d2"]:
        """``A*(z)`` as a dense matrix."""
        return self.times(z, jnp.eye(self.shape[1], dtype=z.dtype))


class DenseAdjoint(Observation):
    """Base class for observations that are defined by ``full`` and ``adjoint`` on dense matrices."""

    def apply(self, L: Float[Array, "d1 k"], R: Float[Array, "d2 k"]) -> Float[Array, ...]:
        return self.full(L @ R.T)

    def times(self, z: Float[Array, ...], R: Float[Array, "d2 k"]) -> Float[Array, "d1 k"]:
        return self.adjoint(z) @ R

    def transposed_times(self, z: Float[Array, ...], L: Float[Array, "d1 k"]) -> Float[Array, "d2 k"]:
        return self.adjoint(z).T @ L


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Matrices(DenseAdjoint):
    """``A(X)_i = <A_i, X>`` for stored matrices A_i.

    Attributes:
      stack: (m, d1, d2) the matrices A_i.
    """

    stack: Float[Array, "m d1 d2"]

    @property
    def shape(self) -> tuple[int, int]:
        return self.stack.shape[1], self.stack.shape[2]

    @property
    def count(self) -> int:
        return self.stack.shape[0]

    def full(self, X: Float[Array, "d1 d2"]) -> Float[Array, m]:
        return self.stack.reshape(self.count, -1) @ X.reshape(-1)

    def adjoint(self, z: Float[Array, m]) -> Float[Array, "d1 d2"]:
        return (z @ self.stack.reshape(self.count, -1)).reshape(self.shape)

    def mean_square(self) -> Float[Array, ""]:
        return jnp.sum(self.stack**2) / (self.shape[0] * self.shape[1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MatrixFree(DenseAdjoint):
    """Observations that are defined by a pair of functions.

    Attributes:
      forward: static; the map from X (d1, d2) to z (m,).
      backward: static; its adjoint, from z to a matrix.
      sizes: static; (d1, d2, m).
    """

    forward: Callable[[Array], Array] = dataclasses.field(metadata={"static": True})
    backward: Callable[[Array], Array] = dataclasses.field(metadata={"static": True})
    sizes: tuple[int, int, int] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        return self.sizes[:2]

    @property
    def count(self) -> int:
        return self.sizes[2]

    def full(self, X: Float[Array, "d1 d2"]) -> Float[Array, m]:
        return self.forward(X)

    def adjoint(self, z: Float[Array, m]) -> Float[Array, "d1 d2"]:
        return self.backward(z)

    def mean_square(self) -> Any:
        probes = jax.random.normal(jax.random.key(0), (16, *self.shape))
        return jnp.mean(jax.vmap(lambda X: jnp.sum(self.forward(X) ** 2))(probes)) / (self.shape[0] * self.shape[1])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Whole(DenseAdjoint):
    """The identity: every entry of the matrix is observed.

    Attributes:
      sizes: static; (d1, d2).
    """

    sizes: tuple[int, int] = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        return self.sizes

    @property
    def count(self) -> int:
        return self.sizes[0] * self.sizes[1]

    def full(self, X: Float[Array, "d1 d2"]) -> Float[Array, "d1 d2"]:
        return X

    def adjoint(self, z: Float[Array, "d1 d2"]) -> Float[Array, "d1 d2"]:
        return z

    def mean_square(self) -> Any:
        return 1.0
