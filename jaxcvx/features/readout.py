"""Readouts: linear maps from the activations of rows to the predictions of samples.

A dense network has one row per sample. A convolutional network has K rows per sample, its patches: row ``i * K + k`` is
patch k of sample i. All convex programs of this library are written in terms of rows. A readout translates them to
samples. Let the (n K, q) matrix A be the sum over neurons of activation times output weights. The predictions F are

    "plain"    K = 1, F = A                                                 q = c
    "pool"     F_i = weight * sum_k A_(i,k)      (weight 1/K: the mean)     q = c
    "flatten"  F_i = sum_k A_(i,k),block k       (one output weight per     q = K c
               position: column k * c + l feeds output l from position k)

``lower`` is this linear map from rows to samples, and ``lift`` is its adjoint from samples to rows. ``apply`` and
``price`` are the products of the two with hidden activations; they need no (n K, q) array. The price of a neuron u at a
dual residual R (n, c) is ``||lift(R)^T (Z u)_+||``, the same formula for all architectures. To
first order it is the decrease of the loss per unit of the neuron's penalty.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Readout:
    """The linear map from rows to samples. It is hashable and static under jit.

    Attributes:
      kind: "plain", "pool" or "flatten"; see the module's docstring.
      positions: K, the number of rows per sample.
      weight: the factor by which every row is multiplied.
    """

    kind: str = "plain"
    positions: int = 1
    weight: float = 1.0

    def columns(self, num_outputs: int) -> int:
        """Number q of a neuron's output weights, given the number of outputs c."""
        return num_outputs * (self.positions if self.kind == "flatten" else 1)

    def outputs(self, columns: int) -> int:
        """Number of outputs c, given the number q of a neuron's output weights."""
        return columns // (self.positions if self.kind == "flatten" else 1)

    def lower(self, A: Float[Array, "rows q"]) -> Float[Array, "n c"]:
        """The predictions of n samples from A, which has n K rows."""
        if self.kind == "plain":
            return A
        K = self.positions
        if self.kind == "pool":
            return self.weight * A.reshape(-1, K, A.shape[1]).sum(axis=1)
        blocks = A.reshape(-1, K, K, A.shape[1] // K)
        return self.weight * jnp.einsum("nkkc->nc", blocks)

    def lower_column(self, A: Float[Array, "rows k"], position: Array) -> Float[Array, "n k"]:
        """The contribution of each of k neurons with a single output weight, which is 1, to one output.

        Args:
          A: the neurons' activations.
          position: for "flatten", the position (k,) of each neuron's output weight; otherwise unused.
        """
        if self.kind != "flatten":
            return self.lower(A)
        blocks = A.reshape(-1, self.positions, A.shape[1])
        return self.weight * jnp.take_along_axis(blocks, position[None, None], axis=1)[:, 0]

    def lift(self, R: Float[Array, "n c"]) -> Float[Array, "rows q"]:
        """The adjoint of ``lower``."""
        if self.kind == "plain":
            return R
        K, (n, c) = self.positions, R.shape
        if self.kind == "pool":
            return self.weight * jnp.repeat(R, K, axis=0)
        blocks = jnp.eye(K, dtype=R.dtype)[None, :, :, None] * R[:, None, None, :]
        return self.weight * blocks.reshape(n * K, K * c)

    def apply(self, H: Float[Array, "rows m"], V: Float[Array, "m q"]) -> Float[Array, "n c"]:
        """``lower(H @ V)``: the predictions of neurons with activations H and output weights V."""
        if self.kind == "plain":
            return H @ V
        K, m = self.positions, H.shape[1]
        if self.kind == "pool":
            return self.weight * H.reshape(-1, K, m).sum(axis=1) @ V
        return self.weight * jnp.einsum("nkm,mkc->nc", H.reshape(-1, K, m), V.reshape(m, K, -1))

    def price(self, H: Float[Array, "rows m"], R: Float[Array, "n c"]) -> Float[Array, "m q"]:
        """``H.T @ lift(R)``: the adjoint of ``V -> apply(H, V)``."""
        if self.kind == "plain":
            return H.T @ R
        K, m = self.positions, H.shape[1]
        if self.kind == "pool":
            return self.weight * H.reshape(-1, K, m).sum(axis=1).T @ R
        return self.weight * jnp.einsum("nkm,nc->mkc", H.reshape(-1, K, m), R).reshape(m, -1)

    @property
    def gain(self) -> float:
        """The smallest factor such that ``||lower(Z W)||^2 <= gain ||Z||_F^2 ||W||_F^2`` for all Z and W."""
        return self.weight**2 * (self.positions if self.kind == "pool" else 1)

    def lower_gram(self, G: Float[Array, "rows rows"]) -> Float[Array, "n n"]:
        """The n x n matrix of the map ``R -> lower(G lift(R))``, which is the same for every output."""
        if self.kind == "plain":
            return G
        K = self.positions
        blocks = G.reshape(-1, K, G.shape[0] // K, K)
        if self.kind == "pool":
            return self.weight**2 * blocks.sum(axis=(1, 3))
        return self.weight**2 * jnp.einsum("nkmk->nm", blocks)

    def design(self, A: Float[Array, "rows m"]) -> Float[Array, "n m k"]:
        """The array with ``lower(A @ W) = einsum("nmk,mkc->nc", design(A), W.reshape(m, k, c))`` for all W.

        Here k is K for "flatten" and 1 otherwise.
        """
        if self.kind == "plain":
            return A[:, :, None]
        blocks = A.reshape(-1, self.positions, A.shape[1])
        if self.kind == "pool":
            return self.weight * blocks.sum(axis=1)[:, :, None]
        return self.weight * jnp.swapaxes(blocks, 1, 2)
