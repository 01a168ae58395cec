"""ConeGroups: group norms of blocks whose columns lie in the polyhedral cones of their cells."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.fold import fold_marked
from jaxcvx.penalties.base import Blocks, Penalty, Scalar
from jaxcvx.penalties.groups import FrobeniusGroups, GroupPenalty, Groups
from jaxcvx.proximal.polyhedral_cone import ActiveRows, lifted_by, no_active_rows, project_cone

_CHUNK = 16  # blocks projected at a time


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ConeGroups(Penalty):
    """The groups' Euclidean norms on blocks with ``signs[i, k] * (rows[k] @ W_i) >= 0`` in every column.

    The penalty is infinite off the cones; ``value`` does not test that, and every ``prox`` lies in the cones to
    rounding. By Moreau's decomposition the prox is group soft-thresholding of the projection on the cones, and the
    dual norm is the largest group norm of the projection.

    Attributes:
      rows: (n, p) constraint normals, shared by all cells.
      signs: (P, n) +-1, or 0 where a row does not constrain a block.
      groups: static; the groups.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcvx import ConeGroups
      >>> quadrant = ConeGroups(jnp.eye(2), jnp.ones((1, 2)))
      >>> print(quadrant.prox(jnp.array([[[3.0], [-1.0]]]), 1.0)[0, :, 0].round(3))
      [2. 0.]
    """

    rows: Float[Array, "n p"]
    signs: Float[Array, "P n"]
    groups: GroupPenalty = dataclasses.field(default=FrobeniusGroups(), metadata={"static": True})

    def group_norms(self, W: Blocks) -> Groups:
        return self.groups.group_norms(W)

    def value(self, W: Blocks) -> Scalar:
        return self.groups.value(W)

    def dual_norm(self, G: Blocks) -> Scalar:
        return self.groups.dual_norm(self.project(G, self.start_memory(G))[0])

    def prox(self, W: Blocks, t: Scalar) -> Blocks:
        return self.prox_with_memory(W, t, self.start_memory(W))[0]

    def start_memory(self, W: Blocks) -> ActiveRows:
        """No active rows, for every column of every block: shape (P, q, ...)."""
        return no_active_rows(W.shape[1], W.dtype, (W.shape[0], W.shape[2]))

    def prox_with_memory(self, W: Blocks, t: Scalar, memory: ActiveRows) -> tuple[Blocks, ActiveRows]:
        projected, memory = self.project_above(W, memory, t)
        return self.groups.prox(projected, t), memory

    def project(self, W: Blocks, warm: ActiveRows) -> tuple[Blocks, ActiveRows]:
        """Projection of every column on its cell's cone, started from the active rows ``warm``."""
        return self._project(self.signs, W, warm)

    def project_above(self, W: Blocks, warm: ActiveRows, threshold: Scalar) -> tuple[Blocks, ActiveRows]:
        """``project`` if a group's projection may be longer than ``threshold``; else a point that is no longer than it.

        For any multipliers l >= 0 of a block's constraints A, the projection of v is no longer than ``v + A^T l``. If
        that point, with the multipliers of ``warm``, is no longer than the threshold, it is returned in place of the
        projection. Most groups of a solution are zero, so few projections are left. They run in chunks, and the
        iteration of a group of one column stops as soon as its point is short enough.
        """
        lifted = jax.vmap(lifted_by, in_axes=(None, 0, 0, 0))(self.rows, self.signs, W, warm)
        eps = jnp.finfo(W.dtype).eps
        long = jnp.any(self.group_norms(lifted) > threshold * (1 - 16 * eps), axis=(1, 2))
        single_columns = self.groups.axis == 1 or W.shape[2] == 1

        def project_chunk(carry, index):
            warm = jax.tree.map(lambda a: a[index], carry[1])
            projected = self._project(self.signs[index], W[index], warm, threshold if single_columns else None)
            return jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), carry, projected)

        return fold_marked(long, _CHUNK, project_chunk, (lifted, warm))

    def _project(
        self, signs: Float[Array, "k n"], W: Blocks, warm: ActiveRows, enough: Scalar | None = None
    ) -> tuple[Blocks, ActiveRows]:
        def column(signs, target, warm):
            return project_cone(self.rows, signs, target, warm=warm, enough=enough)

        block = jax.vmap(column, in_axes=(None, 1, 0), out_axes=(1, 0))
        return jax.vmap(block)(signs, W, warm)
