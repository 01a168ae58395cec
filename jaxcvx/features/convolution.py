"""Convolutional features: the rows are patches, the hidden weights are filters.

A filter u acts on every patch z_(i,k) of sample i. Let Z be the matrix of all n K patches. Then all convex programs of
this library hold unchanged. The hyperplane arrangement is that of the patches in the space of filters. So the number of
cells is exponential only in the rank of the patches, which is at most the filter's size. To enumerate all cells, one
can lower that rank with :func:`jaxcvx.restrict_filters`.

A convolutional network with linear activation is the program over a single cell, whose mask is all True, without cone
constraints. With nuclear norms its convex program is exact. ``skip=True`` adds such a linear part, with a Frobenius
norm, to a ReLU network.

Source: A. Sahiner, T. Ergen, J. Pauly and M. Pilanci, "Vector-output ReLU neural network problems are copositive
programs" (2021).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.features.dense import Features, append_ones
from jaxcvx.features.patches import extract_patches, output_positions
from jaxcvx.features.readout import Readout

Basis = tuple[tuple[float, ...], ...]


def _sizes(name: str, value: Any, rank: int | None = None) -> tuple[int, ...]:
    """Return positive integers, one per spatial axis. If ``rank`` is given, a single integer stands for all axes."""
    items = tuple(value) if isinstance(value, tuple | list | np.ndarray) else (value,) * (rank or 1)
    whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) and i >= 1 for i in items)
    if not whole or len(items) not in ((1, 2) if rank is None else (rank,)):
        raise invalid(name, repr(value), "one or two positive integers" if rank is None else f"{rank} of them")
    return tuple(int(i) for i in items)


def _orthonormal(basis: Any) -> Basis:
    """Return the matrix ``basis`` (h, r) as a tuple of rows, or raise if its columns are not orthonormal."""
    try:
        columns = np.asarray(basis, np.float64)
    except (TypeError, ValueError):
        columns = np.zeros(0)
    if columns.ndim != 2 or not np.allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-6):
        raise invalid("features.basis", f"{basis!r}"[:80], "a matrix with orthonormal columns")
    return tuple(map(tuple, columns.tolist()))


@dataclasses.dataclass(frozen=True)
class _Convolution(Features):
    """The common part of ConvPool and ConvFlatten: everything except the readout."""

    filter_shape: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: str = "VALID"
    bias: bool = False
    skip: bool = False
    basis: Basis | None = None
    output_bias: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        filter_shape = _sizes("features.filter_shape", self.filter_shape)
        object.__setattr__(self, "filter_shape", filter_shape)
        object.__setattr__(self, "stride", _sizes("features.stride", self.stride, len(filter_shape)))
        if self.padding not in ("VALID", "SAME"):
            raise invalid("features.padding", repr(self.padding), "'VALID' or 'SAME'")
        if self.basis is not None:
            object.__setattr__(self, "basis", _orthonormal(self.basis))

    @property
    def ndims(self) -> tuple[int, ...]:
        rank = len(self._filter)
        return (rank + 1, rank + 2)

    @property
    def _filter(self) -> tuple[int, ...]:
        assert isinstance(self.filter_shape, tuple)
        return self.filter_shape

    @property
    def _geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], str]:
        assert isinstance(self.stride, tuple)
        return self._filter, self.stride, self.padding

    def matrix(self, X: Float[Array, "n ..."]) -> Float[Array, "N p"]:
        """The flattened patches. If there is a ``basis``, the patches' coordinates in it."""
        self.num_weights(*X.shape[1:])
        X = X[..., None] if X.ndim == self.ndims[0] else X
        rows = extract_patches(X, *self._geometry)
        if self.basis is not None:
            basis = np.asarray(self.basis, rows.dtype)
            rows = rows @ basis if isinstance(X, np.ndarray) else jnp.matmul(rows, basis, precision="highest")
        return append_ones(rows) if self.bias else rows

    def _split(self, sample_shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Split the shape of a sample into its spatial shape and its number of channels."""
        rank = len(self._filter)
        if len(sample_shape) == rank:
            return sample_shape, 1
        if len(sample_shape) != rank + 1:
            raise invalid("X", f"samples of shape {sample_shape}", f"{rank} axes, and one of channels or none")
        return sample_shape[:-1], sample_shape[-1]

    def num_weights(self, *sample_shape: int) -> int:
        space, channels = self._split(sample_shape)
        output_positions(space, *self._geometry)
        length = math.prod(self._filter) * channels
        if self.basis is None:
            return length + int(self.bias)
        if len(self.basis) != length:
            raise invalid("X", f"patches of {length} entries", f"{len(self.basis)}, as in features.basis")
        return len(self.basis[0]) + int(self.bias)

    def _positions(self, sample_shape: tuple[int, ...]) -> int:
        return math.prod(output_positions(self._split(sample_shape)[0], *self._geometry))


@dataclasses.dataclass(frozen=True)
class ConvPool(_Convolution):
    """Convolution, ReLU, global pooling, output weights: ``f(x) = sum_j pool_k (z_k u_j)_+ v_j``.

    X has shape (n, H, W, channels) if the filter has two sizes, and (n, L, channels) if it has one. The last axis may
    be left out if there is a single channel. The prediction does not depend on the position of a pattern.

    Attributes:
      filter_shape: (fh, fw) in two dimensions; fl or (fl,) in one.
      stride: step between patches, one number for all axes or one for each axis.
      padding: "VALID" for no padding, "SAME" for zeros around X as XLA adds them.
      bias: give each filter a bias. It is the last entry of the hidden weights and is penalised like the others.
      skip: add the pooled linear convolution ``pool_k z_k S``, with penalty ``beta * ||S||_F``.
      basis: restrict the filters to combinations of these orthonormal columns, given as a tuple of rows; see
        :func:`jaxcvx.restrict_filters`. The hidden weights are then the coefficients, whose norm is the filter's.
      pool: "mean" or "sum" over positions.
      output_bias: add a bias to every output, ``network.output_bias``, without penalty (keyword only).

    >>> import jax.numpy as jnp, jaxcvx
    >>> jaxcvx.ConvPool((2, 2)).matrix(jnp.ones((5, 3, 3))).shape  # 4 patches of 4 entries for each of 5 images
    (20, 4)
    """

    pool: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool not in ("mean", "sum"):
            raise invalid("features.pool", repr(self.pool), "'mean' or 'sum'")

    def readout(self, *sample_shape: int) -> Readout:
        K = self._positions(sample_shape)
        return Readout("pool", K, 1 / K if self.pool == "mean" else 1.0)


@dataclasses.dataclass(frozen=True)
class ConvFlatten(_Convolution):
    """Convolution, ReLU, and one output weight per position: ``f(x) = sum_j sum_k (z_k u_j)_+ v_(j,k)``.

    Output weights have shape (m, K c): column ``k * c + l`` feeds output l from position k. So a neuron has several
    output weights even for a single output (if K > 1), and bounds over cells are relaxations. X and the attributes are
    as in :class:`ConvPool`.

    >>> import jaxcvx
    >>> jaxcvx.ConvFlatten(3).readout(8).columns(1)  # signals of length 8 have 6 positions
    6
    """

    def readout(self, *sample_shape: int) -> Readout:
        return Readout("flatten", self._positions(sample_shape))
