"""Filters restricted to a subspace, so that the cells of a convolutional network can be enumerated."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from jaxcvx.arrangements.cells import host_rows
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.features.convolution import ConvFlatten, ConvPool

_Conv = TypeVar("_Conv", ConvPool, ConvFlatten)


def restrict_filters(features: _Conv, X: Any, rank: int) -> _Conv:
    """The same architecture with filters in the span of the patches' ``rank`` top principal directions.

    The patches then have that rank (one more with a bias), and the arrangement few enough cells to enumerate.
    Principal directions are those of the patches as they are, not centred: the best approximation of that rank.

    Args:
      features: ConvPool or ConvFlatten; a basis that it has is replaced.
      X: inputs to take the patches from; not traced.
      rank: number of directions, at most the filter's size times channels.

    Raises:
      InvalidInputError, InvalidTypeError: a rank that is too large, or bad X or features.
    """
    if not isinstance(features, ConvPool | ConvFlatten):
        raise wrong_type("features", features, "ConvPool or ConvFlatten")
    patches = host_rows(X, dataclasses.replace(features, bias=False, basis=None)).rows
    size = patches.shape[1]
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= size:
        raise invalid("rank", repr(rank), f"an integer from 1 to {size}, the length of a patch")
    top = np.linalg.eigh(patches.T @ patches)[1][:, ::-1][:, :rank]
    top = top * np.where(top.sum(axis=0) < 0, -1.0, 1.0)  # eigenvectors have no sign of their own
    return dataclasses.replace(features, basis=tuple(map(tuple, top.tolist())))
