"""Observed entries of a matrix ``L R^T``, and products with the sparse matrix that has weights at these places.

The places are stored row by row in an array of slots (K, C). Each of its C columns, called a chunk, holds up to K
places of one row. A row with more than K places takes several chunks, so a few long rows do not make the array large.
The places are stored a second time column by column. So all products are gathers; none needs a scatter or a d1 x d2
array. One product with n observations and factors of r columns takes O(n r) operations.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcvx.numerics.trees import is_traced
from jaxcvx.operators.observation import Observation

_BLOCK = 8  # slots of a chunk that one step of a loop handles


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """Places (row, col) of a matrix, stored by rows: slot (k, c) is the k-th place of chunk c.

    Attributes:
      index: (K, C) column of each place; 0 in empty slots.
      filled: (K, C) True if the slot holds a place.
      owner: (C,) row of each chunk, increasing. None if chunk c belongs to row c.
      num_rows: static; number of rows of the matrix.
    """

    index: Int[Array, "K C"]
    filled: Bool[Array, "K C"]
    owner: Int[Array, C] | None
    num_rows: int = dataclasses.field(metadata={"static": True})

    def dot(self, L: Float[Array, "d1 k"], R: Float[Array, "d2 k"]) -> Float[Array, "K C"]:
        """``<L_row, R_col>`` for every slot, and 0 for empty slots."""
        left = L if self.owner is None else L[self.owner]

        def block(_, index):
            columns = zip(left.T, R.T, strict=True)
            return None, sum(a * b.at[index].get(mode="promise_in_bounds") for a, b in columns)

        # In a loop XLA computes each number once; otherwise it would repeat the computation for every use.
        _, sums = jax.lax.scan(block, None, self.index.reshape(-1, _BLOCK, self.index.shape[1]))
        return jnp.where(self.filled, sums.reshape(self.index.shape), 0)

    def line(self, L: Array, R: Array, P: Array, Q: Array) -> tuple[Array, Array, Array]:
        """The coefficients of the polynomial ``<(L + t P)_row, (R + t Q)_col>`` in t.

        Three separate loops are faster than one loop for all coefficients.
        """
        mixed = self.dot(jnp.concatenate([L, P], axis=1), jnp.concatenate([Q, R], axis=1))
        return self.dot(L, R), mixed, self.dot(P, Q)

    def multiply(self, z: Float[Array, "K C"], R: Float[Array, "d2 k"]) -> Float[Array, "d1 k"]:
        """The product of the sparse matrix with entries ``z`` and R. Empty slots of ``z`` must be 0."""

        def add(total, block):
            weights, index = block
            rows = (w[:, None] * R.at[i].get(mode="promise_in_bounds") for w, i in zip(weights, index, strict=True))
            return total + sum(rows), None

        blocks = (x.reshape(-1, _BLOCK, x.shape[1]) for x in (z, self.index))
        sums, _ = jax.lax.scan(add, jnp.zeros((z.shape[1], R.shape[1]), R.dtype), tuple(blocks))
        if self.owner is None:
            return sums
        return jax.ops.segment_sum(sums, self.owner, self.num_rows, indices_are_sorted=True)


def _pack(rows: np.ndarray, cols: np.ndarray, num_rows: int) -> tuple[Slots, Any]:
    """Return the slots for places in any order, and the flat index of each place's slot."""
    order = np.lexsort((cols, rows))
    counts = np.bincount(rows, minlength=num_rows)
    length = _chunk_length(counts)
    chunks = -(-counts // length)
    owner = None if (chunks <= 1).all() else np.repeat(np.arange(num_rows, dtype=np.int32), chunks)
    first_chunk = np.arange(num_rows) if owner is None else np.cumsum(chunks) - chunks
    total = num_rows if owner is None else len(owner)
    rows_sorted = rows[order]
    position = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows_sorted]
    slot = np.empty(len(rows), np.int32)
    slot[order] = (position % length) * total + first_chunk[rows_sorted] + position // length
    index, filled = np.zeros(length * total, np.int32), np.zeros(length * total, bool)
    index[slot], filled[slot] = cols, True
    owners = None if owner is None else jnp.asarray(owner)
    shape = (length, total)
    return Slots(jnp.asarray(index.reshape(shape)), jnp.asarray(filled.reshape(shape)), owners, num_rows), slot


def _pack_traced(rows: Array, cols: Array, num_rows: int, num_cols: int) -> tuple[Slots, Any]:
    """The same for traced places. Shapes cannot depend on them, so every place of the matrix gets a slot."""
    length = -(-num_cols // _BLOCK) * _BLOCK
    slot = cols * num_rows + rows
    filled = jnp.zeros(length * num_rows, bool).at[slot].set(True).reshape(length, num_rows)
    index = jnp.where(filled, jnp.arange(length, dtype=jnp.int32)[:, None], 0)
    return Slots(index, filled, None, num_rows), slot


def _chunk_length(counts: np.ndarray) -> int:
    """The chunk length K that needs the least memory, a multiple of the block. Of equal ones the longest."""
    longest = max(2, -(-int(counts.max(initial=1)) // _BLOCK))
    lengths = sorted({-(-longest // 1.2**j) * _BLOCK for j in range(2 + int(np.log(longest) / np.log(1.2)))})

    def memory(k: float) -> float:
        return k * len(counts) if k >= counts.max(initial=0) else (k + 1) * np.ceil(counts / k).sum()

    return int(min(reversed(lengths), key=memory))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Entries(Observation):
    """The entries of a matrix at n places. Values are stored as an array (K, C) of slots.

    Attributes:
      by_rows: slots of the places.
      by_columns: slots of the transposed places.
      source: for each slot of ``by_columns`` the flat index of the same place's slot in ``by_rows``.
      slot: (n,) flat index of each place's slot in ``by_rows``, in the caller's order.
    """

    by_rows: Slots
    by_columns: Slots
    source: Int[Array, "K2 C2"]
    slot: Int[Array, n]

    @property
    def shape(self) -> tuple[int, int]:
        return self.by_rows.num_rows, self.by_columns.num_rows

    @property
    def count(self) -> int:
        return self.slot.shape[0]

    def apply(self, L: Float[Array, "d1 k"], R: Float[Array, "d2 k"]) -> Float[Array, "K C"]:
        return _dot(self, L, R)

    def line(self, L: Array, R: Array, P: Array, Q: Array) -> tuple[Array, Array, Array]:
        return self.by_rows.line(L, R, P, Q)

    def times(self, z: Float[Array, "K C"], R: Float[Array, "d2 k"]) -> Float[Array, "d1 k"]:
        return self.by_rows.multiply(jnp.where(self.by_rows.filled, z, 0), R)

    def transposed_times(self, z: Float[Array, "K C"], L: Float[Array, "d1 k"]) -> Float[Array, "d2 k"]:
        transposed = jnp.where(self.by_columns.filled, z.reshape(-1)[self.source], 0)
        return self.by_columns.multiply(transposed, L)

    def mean_square(self) -> Any:
        return jnp.sum(self.by_rows.filled) / (self.shape[0] * self.shape[1])

    def spread(self, values: Float[Array, n]) -> Float[Array, "K C"]:
        """Put numbers, given in the caller's order, into their slots."""
        shape = self.by_rows.index.shape
        return jnp.zeros(shape[0] * shape[1], values.dtype).at[self.slot].set(values).reshape(shape)

    def only(self, kept: Bool[Array, n]) -> Entries:
        """Drop the places where ``kept`` is False. Their slots become empty, and ``count`` stays the same."""
        filled = self.spread(kept)
        transposed = self.by_columns.filled & filled.reshape(-1)[self.source]
        return dataclasses.replace(
            self,
            by_rows=dataclasses.replace(self.by_rows, filled=filled),
            by_columns=dataclasses.replace(self.by_columns, filled=transposed),
        )

    def collect(self, z: Float[Array, "K C"]) -> Float[Array, n]:
        """The numbers in the slots, in the caller's order."""
        return z.reshape(-1)[self.slot]

    def places(self, slots: Int[Array, b] | None = None) -> tuple[Int[Array, b], Int[Array, b]]:
        """Rows and columns of the places in some slots (flat indices). By default all places, in the caller's order."""
        slots = self.slot if slots is None else slots
        chunk, owner = slots % self.by_rows.index.shape[1], self.by_rows.owner
        return (chunk if owner is None else owner[chunk]), self.by_rows.index.reshape(-1)[slots]


@jax.custom_vjp
def _dot(entries: Entries, L: Array, R: Array) -> Array:
    return entries.by_rows.dot(L, R)


_dot.defvjp(
    lambda entries, L, R: (entries.by_rows.dot(L, R), (entries, L, R)),
    lambda kept, z: (None, kept[0].times(z, kept[2]), kept[0].transposed_times(z, kept[1])),
)


def observe_entries(rows: Any, cols: Any, shape: tuple[int, int]) -> Entries:
    """Build the map from a matrix to its entries at distinct places ``(rows[i], cols[i])``.

    Traced places (inside jit or vmap) are possible too. Then the slots take O(d1 d2) memory.

    Args:
      rows: (n,) row of each place.
      cols: (n,) column of each place.
      shape: (d1, d2) of the matrix.
    """
    if is_traced(rows, cols):
        rows, cols = jnp.asarray(rows, jnp.int32), jnp.asarray(cols, jnp.int32)
        by_rows, slot = _pack_traced(rows, cols, *shape)
        by_columns, slot_t = _pack_traced(cols, rows, *shape[::-1])
        source: Any = jnp.zeros(by_columns.index.size, jnp.int32).at[slot_t].set(slot)
    else:
        rows, cols = np.asarray(rows, np.int32), np.asarray(cols, np.int32)
        by_rows, slot = _pack(rows, cols, shape[0])
        by_columns, slot_t = _pack(cols, rows, shape[1])
        source = np.zeros(by_columns.index.size, np.int32)
        source[slot_t] = slot
    source = jnp.asarray(source).reshape(by_columns.index.shape)
    return Entries(by_rows, by_columns, source, jnp.asarray(slot))
