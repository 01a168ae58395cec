"""Restriction of filters to a subspace, which makes the cells of a convolutional network few enough to enumerate."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np

from jaxcvx.arrangements.cells import host_rows
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.features.convolution import ConvFlatten, ConvPool

_Conv = TypeVar("_Conv", ConvPool, ConvFlatten)


def restrict_filters(features: _Conv, X: Any, rank: int) -> _Conv:
    """Restrict filters to the span of the top principal directions of the patches.

    The patches then have rank ``rank`` (one more with a bias), so the arrangement has far fewer cells. The patches are
    not centred: the principal directions give their best approximation of this rank.

    Args:
      features: ConvPool or ConvFlatten. If it has a basis, the basis is replaced.
      X: the inputs whose patches are used; not traced.
      rank: number of directions, at most the number of entries of a patch.

    Returns:
      The same architecture with ``basis`` set to the principal directions.

    Raises:
      InvalidInputError: the rank is too large, or X has a bad shape or is not finite.
      InvalidTypeError: ``features`` is not a convolution, or X is traced or not numeric.

    >>> import numpy as np, jaxcvx
    >>> X = np.random.default_rng(0).standard_normal((5, 8))  # five signals with patches of 4 entries
    >>> jaxcvx.restrict_filters(jaxcvx.ConvPool(4), X, rank=2).num_weights(8)
    2
    """
    if not isinstance(features, ConvPool | ConvFlatten):
        raise wrong_type("features", features, "ConvPool or ConvFlatten")
    patches = host_rows(X, dataclasses.replace(features, bias=False, basis=None)).rows
    size = patches.shape[1]
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 1 <= rank <= size:
        raise invalid("rank", repr(rank), f"an integer from 1 to {size}, the length of a patch")
    top = np.linalg.eigh(patches.T @ patches)[1][:, ::-1][:, :rank]
    top = top * np.where(top.sum(axis=0) < 0, -1.0, 1.0)  # the sign of an eigenvector is arbitrary
    return dataclasses.replace(features, basis=tuple(map(tuple, top.tolist())))
