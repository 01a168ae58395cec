"""NuclearNorm: the sum of the singular values of every block."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxcvx.numerics.rounding import gamma
from jaxcvx.penalties.base import Blocks, Penalty, Scalar
from jaxcvx.proximal.norms import group_norms, nuclear_norms, shrink_groups, shrink_singular_values


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class NuclearNorm(Penalty):
    """``h(W) = sum_i ||W_i||_*``, the nuclear norm of every cell's block; the dual norm is the largest spectral norm.

    The nuclear norm is the largest convex function that is at most ``||u|| ||v||`` at every block u v^T, so no other
    ``bounds_neurons`` penalty gives tighter bounds (Sahiner, Ergen, Pauly and Pilanci 2021).

    Attributes:
      num_frobenius: this many of the last blocks have a Frobenius norm instead; 1 for a skip connection.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcvx import NuclearNorm
      >>> W = jnp.diag(jnp.array([3.0, 1.0]))[None]
      >>> print(NuclearNorm().value(W))
      4.0
    """

    num_frobenius: int = 0
    bounds_neurons = True

    def _split(self, W: Blocks) -> tuple[Blocks, Blocks]:
        """The blocks with nuclear norms, and those with Frobenius norms."""
        count = W.shape[0] - self.num_frobenius
        return W[:count], W[count:]

    def value(self, W: Blocks) -> Scalar:
        cells, last = self._split(W)
        return jnp.sum(nuclear_norms(cells)) + jnp.sum(group_norms(last))

    def dual_norm(self, G: Blocks) -> Scalar:
        """The largest spectral norm, rounded up: the error of a singular value decomposition is added."""
        cells, last = self._split(G)
        rounding = gamma(8 * (G.shape[1] + G.shape[2]) + 64, G.dtype)
        spectral = jnp.max(jnp.linalg.svd(cells, compute_uv=False), initial=0.0) * (1 + rounding)
        return jnp.maximum(spectral, jnp.max(group_norms(last), initial=0.0))

    def prox(self, W: Blocks, t: Scalar) -> Blocks:
        cells, last = self._split(W)
        return jnp.concatenate([shrink_singular_values(cells, t), shrink_groups(last, t)])
