"""Sums of Euclidean norms over groups of weights: the group lasso over cells, and one group per output column."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide, norm
from jaxcvx.penalties.base import Blocks, Penalty, Scalar
from jaxcvx.proximal.norms import shrink_groups

Groups = Float[Array, "P 1 g"]


@dataclasses.dataclass(frozen=True)
class GroupDerivative:
    """The derivative of group soft-thresholding: ``E -> scale E + <line, E> line`` on every group.

    Attributes:
      scale: ``1 - t / ||W_g||`` on groups longer than t, 0 on the others.
      line: ``W_g`` times ``sqrt(t / ||W_g||) / ||W_g||`` on the same groups, 0 on the others.
      axis: the axes of one group.
    """

    scale: Groups
    line: Blocks
    axis: int | tuple[int, ...]

    def __call__(self, E: Blocks) -> Blocks:
        return self.scale * E + jnp.sum(self.line * E, axis=self.axis, keepdims=True) * self.line


class GroupPenalty(Penalty):
    """The sum of the groups' Euclidean norms. Subclasses say which axes of W make a group."""

    axis: ClassVar[int | tuple[int, ...]]

    def group_norms(self, W: Blocks) -> Groups:
        return norm(W, axis=self.axis, keepdims=True)

    def inner(self, W: Blocks, E: Blocks) -> Groups:
        """Inner product of each group of W with that of E, in the shape of ``group_norms``."""
        return jnp.sum(W * E, axis=self.axis, keepdims=True)

    def value(self, W: Blocks) -> Scalar:
        return jnp.sum(self.group_norms(W))

    def dual_norm(self, G: Blocks) -> Scalar:
        return jnp.max(self.group_norms(G))

    def prox(self, W: Blocks, t: Scalar) -> Blocks:
        return shrink_groups(W, t, self.axis)

    def derivative(self, W: Blocks, t: Scalar) -> GroupDerivative:
        norms = self.group_norms(W)
        on, share = norms > t, divide(t, norms)
        scale = jnp.where(on, 1 - share, 0.0)
        return GroupDerivative(scale, W * jnp.where(on, divide(jnp.sqrt(share), norms), 0.0), self.axis)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class FrobeniusGroups(GroupPenalty):
    """The group lasso over cells: ``h(W) = sum_i ||W_i||_F``.

    Source: Mishkin, Sahiner and Pilanci 2022.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcvx import FrobeniusGroups
      >>> W = jnp.array([[[3.0], [4.0]], [[0.3], [0.4]]])  # two cells, two weights each
      >>> print(FrobeniusGroups().value(W), FrobeniusGroups().dual_norm(W))
      5.5 5.0
      >>> print(FrobeniusGroups().prox(W, 1.0)[:, :, 0])
      [[2.4 3.2]
       [0.  0. ]]
    """

    axis = (1, 2)
    bounds_neurons = True


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ColumnGroups(GroupPenalty):
    """One group per cell and output column: ``h(W) = sum_i sum_k ||W_i e_k||``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcvx import ColumnGroups
      >>> W = jnp.array([[[3.0, 0.3], [4.0, 0.4]]])  # one cell, two outputs
      >>> print(ColumnGroups().group_norms(W))
      [[[5.  0.5]]]
    """

    axis = 1
