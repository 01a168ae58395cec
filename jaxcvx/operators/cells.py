"""The linear map W -> lower(sum_i D_i Z W_i) over arrangement cells, computed without its N x (p P) matrix.

The matrix Z (N, p) holds the feature rows, with N = n K for K rows per sample; see :mod:`jaxcvx.features.readout`.
D_i = diag(masks[i]) is the activation pattern of cell i, and W (P, p, q) has one block of weights per cell. The linear
map ``lower`` takes rows to samples; for dense networks it is the identity.

A product consists of two contractions: over the masks, and over Z. The masks come first if p <= P, which was measured
to be the fastest order on CPUs. For fewer cells Z comes first. The array between the two contractions is by far the
largest one, so it is formed for one block of rows at a time.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.features.readout import Readout
from jaxcvx.numerics.rounding import masked_sums
from jaxcvx.numerics.safe import divide, divisor, norm


def _split(a: Array, count: int) -> Array:
    """Split the rows into ``count`` blocks of equal size. The last block is padded with zeros."""
    padding = [(0, -len(a) % count)] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, padding).reshape(count, -1, *a.shape[1:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CellOperator:
    """The linear maps of the convex programs over cells: B_i = lower D_i Z and A_i = (2 D_i - I) Z.

    The predictions are sum_i B_i W_i, and the columns of W_i lie in the cone of cell i if A_i W_i >= 0.

    Attributes:
      Z: (N, p) feature rows.
      masks: (P, N) bool, activation patterns.
      linear: static; True if the last block is a skip connection, which has an all-True mask and no cone.
      readout: static; the linear map from N rows to n samples.
      max_bytes: static; limit on the bytes of an intermediate array in ``forward`` and ``adjoint``; None for no limit.
      careful: static; True if ``adjoint`` uses :func:`jaxcvx.numerics.rounding.masked_sums`, whose rounding errors have
        a small bound.
    """

    Z: Float[Array, "N p"]
    masks: Bool[Array, "P N"]
    linear: bool = dataclasses.field(default=False, metadata={"static": True})
    readout: Readout = dataclasses.field(default=Readout(), metadata={"static": True})
    max_bytes: int | None = dataclasses.field(default=None, metadata={"static": True})
    careful: bool = dataclasses.field(default=False, metadata={"static": True})

    def carefully(self) -> CellOperator:
        """The same map with ``careful=True``, for proved bounds. In float32 its adjoint costs three products."""
        return dataclasses.replace(self, careful=True)

    @property
    def num_blocks(self) -> int:
        """Number of weight blocks: one for each cell, and one for a skip connection."""
        return self.masks.shape[0]

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return self.num_blocks - int(self.linear)

    @property
    def cone_masks(self) -> Bool[Array, "cells n"]:
        """The masks of the blocks that have a cone constraint."""
        return self.masks[: self.num_cells]

    def signs(self) -> Float[Array, "P n"]:
        """The diagonals of 2 D_i - I. The row of a skip connection is 0, so its constraint is 0 >= 0."""
        signs = 2 * self.masks.astype(self.Z.dtype) - 1
        return signs.at[-1].set(0.0) if self.linear else signs

    def forward(self, W: Float[Array, "P p q"]) -> Float[Array, "n c"]:
        """The predictions lower(sum_i D_i Z W_i)."""
        blocks, p, q = W.shape
        masks_first = p <= blocks or q == 1

        def rows(Z: Array, masks: Array) -> Array:
            masks = masks.astype(W.dtype)
            if masks_first:
                mixed = jnp.tensordot(masks, W.reshape(blocks, p * q), axes=((0,), (0,)))
                return jnp.einsum("npc,np->nc", mixed.reshape(-1, p, q), Z)
            return jnp.einsum("qnc,qn->nc", jnp.einsum("np,qpc->qnc", Z, W), masks)

        count = self.row_blocks((p if masks_first else blocks) * q, W.dtype)
        if count == 1:
            return self.readout.lower(rows(self.Z, self.masks))
        parts = jax.lax.map(lambda block: rows(*block), (_split(self.Z, count), self._split_masks(count)))
        return self.readout.lower(parts.reshape(-1, q)[: self.Z.shape[0]])

    def each_block(self, W: Float[Array, "P p q"]) -> Float[Array, "n P c"]:
        """The terms lower(D_i Z W_i) of ``forward``."""
        rows = jnp.einsum("np,qpc->nqc", self.Z, W) * self.masks.T.astype(W.dtype)[:, :, None]
        return jax.vmap(self.readout.lower, in_axes=1, out_axes=1)(rows)

    def adjoint(self, R: Float[Array, "n c"]) -> Float[Array, "P p q"]:
        """The adjoint of ``forward``: the blocks Z^T D_i lift(R)."""
        lifted = self.readout.lift(R)
        p, q = self.Z.shape[1], lifted.shape[1]

        def blocks(Z: Array, masks: Array, lifted: Array) -> Array:
            outer = (Z[:, :, None] * lifted[:, None, :]).reshape(len(Z), -1)
            masks = masks.astype(R.dtype)
            return (masked_sums(masks, outer) if self.careful else masks @ outer).reshape(-1, p, q)

        count = self.row_blocks(p * q, R.dtype)
        if count == 1:
            return blocks(self.Z, self.masks, lifted)
        parts = (_split(self.Z, count), self._split_masks(count), _split(lifted, count))
        begin = jnp.zeros((self.num_blocks, p, q), R.dtype)
        return jax.lax.scan(lambda total, part: (total + blocks(*part), None), begin, parts)[0]

    def row_blocks(self, width: int, dtype: Any) -> int:
        """Number of blocks of rows for a product whose intermediate array has ``width`` numbers per row."""
        if self.max_bytes is None:
            return 1
        rows = self.Z.shape[0]
        return min(rows, -(-rows * width * jnp.dtype(dtype).itemsize // self.max_bytes))

    def _split_masks(self, count: int) -> Array:
        return jnp.swapaxes(_split(self.masks.T, count), 1, 2)

    def gram(
        self, inner: Float[Array, "p p"] | None = None, weights: Float[Array, P] | None = None
    ) -> Float[Array, "n n"]:
        """The n x n matrix of the map ``R -> forward(weights_i * inner @ adjoint(R)_i)``, the same for every output.

        Args:
          inner: symmetric p x p matrix that multiplies every block; None for the identity.
          weights: a factor for each block; None for ones.
        """
        masks = self.masks.astype(self.Z.dtype)
        weighted = masks.T if weights is None else masks.T * weights
        left = self.Z if inner is None else self.Z @ inner
        return self.readout.lower_gram((weighted @ masks) * (left @ self.Z.T))

    def phi(self, U: Float[Array, "m p"]) -> Float[Array, "N m"]:
        """The hidden activations (Z u)_+ of the neurons u, the rows of U."""
        return jax.nn.relu(self.Z @ U.T)

    def cone_margin(self, W: Float[Array, "P p c"]) -> Float[Array, P]:
        """For each block the smallest entry of (2 D_i - I) Z W_i, with the rows of Z scaled to norm 1.

        It is negative if a constraint is violated.
        """
        unit = divide(self.Z, norm(self.Z, keepdims=True))
        slack = jnp.einsum("np,qpc->qnc", unit, W) * self.signs()[:, :, None]
        return jnp.min(slack, axis=(1, 2))

    def max_curvature(self, num_steps: int = 30) -> Float[Array, ""]:
        """A lower estimate of the largest eigenvalue of ``forward(adjoint(R))``, by power iteration."""
        # Zero samples are not counted: those that pad an array to the number of devices must not change the result.
        counts = jnp.any(self.Z.reshape(-1, self.readout.positions * self.Z.shape[1]) != 0, axis=1)
        samples = jnp.cumsum(counts, dtype=self.Z.dtype) - 1
        start = jnp.where(counts, 1 + 1e-2 * jnp.cos(samples), 0.0)[:, None]
        size = jnp.maximum(jnp.linalg.norm(start), 1)

        def power(_, carry):
            w = self.forward(self.adjoint(carry[0]))
            size = jnp.linalg.norm(w)
            return w / divisor(size), size

        begin = (start / size, jnp.zeros((), self.Z.dtype))
        return jax.lax.fori_loop(0, num_steps, power, begin)[1]


def largest_penalty(operator: CellOperator) -> Array:
    """The largest penalty parameter sigma for which a Newton system keeps enough digits.

    The condition number of the system is about sigma ||Z||^2.
    """
    info = jnp.finfo(operator.Z.dtype)
    size = operator.readout.gain * jnp.sum(operator.Z**2)
    return 0.01 / info.eps / jnp.maximum(size, info.tiny)
