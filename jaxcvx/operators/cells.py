"""The linear map W -> lower(sum_i D_i Z W_i) over arrangement cells, without the N x (p P) matrix.

Z (N, p) holds the feature rows (N = n K for K rows per sample, see :mod:`jaxcvx.features.readout`), D_i =
diag(masks[i]) the gates of cell i, W (P, p, q) one block of weights per cell; ``lower`` takes rows to
samples and is the identity for dense networks. Both products contract the masks first, which was measured
to be the fastest order on CPUs while p <= P; for few cells and many features the order with Z first is used.
What lies between the two contractions is larger than all else, so it is made for a block of rows at a time.
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
    """Rows in ``count`` blocks of one size, the last filled up with zeros."""
    padding = [(0, -len(a) % count)] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, padding).reshape(count, -1, *a.shape[1:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CellOperator:
    """The triple (B_i, A_i, phi) of all cells: B_i = lower D_i Z, A_i = (2 D_i - I) Z, phi(u) = (Z u)_+.

    Attributes:
      Z: (N, p) feature rows.
      masks: (P, N) bool, gate patterns.
      linear: static; True if the last block is a skip connection: all gates open and no cone.
      readout: static; how N rows become n samples.
      max_bytes: static; what lies between the contractions of ``forward`` and ``adjoint`` takes at most so many
        bytes; None for no limit.
      careful: static; whether ``adjoint`` bounds its rounding, see :func:`jaxcvx.numerics.rounding.masked_sums`.
    """

    Z: Float[Array, "N p"]
    masks: Bool[Array, "P N"]
    linear: bool = dataclasses.field(default=False, metadata={"static": True})
    readout: Readout = dataclasses.field(default=Readout(), metadata={"static": True})
    max_bytes: int | None = dataclasses.field(default=None, metadata={"static": True})
    careful: bool = dataclasses.field(default=False, metadata={"static": True})

    def carefully(self) -> CellOperator:
        """The same map for bounds that have to be proved: its adjoint costs three products in float32."""
        return dataclasses.replace(self, careful=True)

    @property
    def num_blocks(self) -> int:
        """Number of weight blocks: cells, plus one for a skip connection."""
        return self.masks.shape[0]

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return self.num_blocks - int(self.linear)

    @property
    def cone_masks(self) -> Bool[Array, "cells n"]:
        """Patterns of the blocks that carry a cone constraint."""
        return self.masks[: self.num_cells]

    def signs(self) -> Float[Array, "P n"]:
        """2 D_i - I as +-1 entries, 0 in the row of a skip connection (its constraint is 0 >= 0)."""
        signs = 2 * self.masks.astype(self.Z.dtype) - 1
        return signs.at[-1].set(0.0) if self.linear else signs

    def forward(self, W: Float[Array, "P p q"]) -> Float[Array, "n c"]:
        """Predictions lower(sum_i D_i Z W_i)."""
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
        """What every block contributes to ``forward``: lower(D_i Z W_i)."""
        rows = jnp.einsum("np,qpc->nqc", self.Z, W) * self.masks.T.astype(W.dtype)[:, :, None]
        return jax.vmap(self.readout.lower, in_axes=1, out_axes=1)(rows)

    def adjoint(self, R: Float[Array, "n c"]) -> Float[Array, "P p q"]:
        """Adjoint of ``forward``: the blocks Z^T D_i lift(R)."""
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
        """In how many blocks of rows a product is formed, whose intermediate has ``width`` numbers a row."""
        if self.max_bytes is None:
            return 1
        rows = self.Z.shape[0]
        return min(rows, -(-rows * width * jnp.dtype(dtype).itemsize // self.max_bytes))

    def _split_masks(self, count: int) -> Array:
        return jnp.swapaxes(_split(self.masks.T, count), 1, 2)

    def gram(
        self, inner: Float[Array, "p p"] | None = None, weights: Float[Array, P] | None = None
    ) -> Float[Array, "n n"]:
        """The n x n matrix of ``R -> forward(weights_i * inner @ adjoint(R)_i)``, the same for every output.

        Args:
          inner: symmetric p x p matrix applied to every block; None is the identity.
          weights: a factor for each block; None is ones.
        """
        masks = self.masks.astype(self.Z.dtype)
        weighted = masks.T if weights is None else masks.T * weights
        left = self.Z if inner is None else self.Z @ inner
        return self.readout.lower_gram((weighted @ masks) * (left @ self.Z.T))

    def phi(self, U: Float[Array, "m p"]) -> Float[Array, "N m"]:
        """Hidden activations (Z u)_+ of neurons u."""
        return jax.nn.relu(self.Z @ U.T)

    def cone_margin(self, W: Float[Array, "P p c"]) -> Float[Array, P]:
        """Smallest entry of (2 D_i - I) Z W_i in units of the rows' norms; negative where violated."""
        unit = divide(self.Z, norm(self.Z, keepdims=True))
        slack = jnp.einsum("np,qpc->qnc", unit, W) * self.signs()[:, :, None]
        return jnp.min(slack, axis=(1, 2))

    def max_curvature(self, num_steps: int = 30) -> Float[Array, ""]:
        """Estimate from below of the largest eigenvalue of the map's normal matrix, by power iteration."""
        # Samples are counted without zero rows, so that those that fill up devices change nothing.
        counts = jnp.any(self.Z.reshape(-1, self.readout.positions * self.Z.shape[1]) != 0, axis=1)
        samples = jnp.cumsum(counts, dtype=self.Z.dtype) - 1
        first = jnp.where(counts, 1 + 1e-2 * jnp.cos(samples), 0.0)[:, None]
        size = jnp.maximum(jnp.linalg.norm(first), 1)

        def power(_, carry):
            w = self.forward(self.adjoint(carry[0]))
            size = jnp.linalg.norm(w)
            return w / divisor(size), size

        begin = (first / size, jnp.zeros((), self.Z.dtype))
        return jax.lax.fori_loop(0, num_steps, power, begin)[1]


def largest_penalty(operator: CellOperator) -> Array:
    """Penalty beyond which the Newton system, of condition about sigma ||Z||^2, would lose its digits."""
    info = jnp.finfo(operator.Z.dtype)
    size = operator.readout.gain * jnp.sum(operator.Z**2)
    return 0.01 / info.eps / jnp.maximum(size, info.tiny)
