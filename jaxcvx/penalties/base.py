"""The contract of a penalty: value, dual norm, proximal operator, and what the solvers need beside them.

A penalty h acts on blocks of weights W of shape (P, p, q), one p x q block per cell. Solvers minimise

    min_W  loss(A W) + beta h(W)

for a linear map A. The dual problem has the constraint ``h°(A^T R) <= beta`` on the dual residual R, where
``h°(G) = max {<G, W> : h(W) <= 1}`` is the dual norm. So a solver sees a penalty only through its value, its dual norm
and its proximal operator.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import norm

Blocks = Float[Array, "P p q"]
Scalar = Float[Array, ""]


class Penalty(abc.ABC):
    """A convex penalty h with ``h(W) >= 0`` and ``h(s W) = s h(W)`` for every s >= 0.

    ``value``, ``dual_norm`` and ``prox`` define a penalty; the other methods have defaults that serve most penalties.
    Every method is a pure function of arrays, works under jit and vmap, and keeps the dtype of its arguments.

    A penalty that a solver holds as a field is static under jit, so it must be hashable: make it a frozen dataclass of
    numbers and strings. ``jax.tree_util.register_static`` makes it an argument of jitted functions too. A penalty with
    arrays must be a registered pytree.

    Example:
      The sum of absolute values, an own penalty in ten lines:

      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> from jaxcvx import Penalty
      >>> @dataclasses.dataclass(frozen=True)
      ... class AbsoluteValues(Penalty):
      ...     def value(self, W):
      ...         return jnp.sum(jnp.abs(W))
      ...     def dual_norm(self, G):
      ...         return jnp.max(jnp.abs(G))
      ...     def prox(self, W, t):
      ...         return jnp.sign(W) * jnp.maximum(jnp.abs(W) - t, 0)
      >>> print(AbsoluteValues().prox(jnp.array([[[3.0, 0.5]]]), 1.0))
      [[[2. 0.]]]
    """

    bounds_neurons: ClassVar[bool] = False
    """True if ``h(u v^T) <= ||u|| ||v||`` for every block that is a single neuron u with output weights v.

    Then ``dual_norm`` is at least every neuron's dual constraint, and the program's dual value bounds the training
    problem over the cells. Solvers compute another norm for that bound if it is False.
    """

    @abc.abstractmethod
    def value(self, W: Blocks) -> Scalar:
        """The penalty h(W)."""

    @abc.abstractmethod
    def dual_norm(self, G: Blocks) -> Scalar:
        """``max {<G, W> : h(W) <= 1}``, or a number above it by rounding only.

        Solvers call it with ``G = A^T R``. A value that is too small would make their lower bounds wrong.
        """

    @abc.abstractmethod
    def prox(self, W: Blocks, t: Scalar) -> Blocks:
        """The proximal operator ``argmin_V t h(V) + 1/2 ||V - W||^2``, for t >= 0."""

    def derivative(self, W: Blocks, t: Scalar) -> Callable[[Blocks], Blocks]:
        """The derivative of ``prox(., t)`` at W as a linear function; a symmetric element of the generalised Jacobian.

        The default is ``prox``'s own derivative. Most penalties will not need another one.
        """
        return jax.linearize(lambda V: self.prox(V, t), W)[1]

    def group_norms(self, W: Blocks) -> Float[Array, "P a b"]:
        """Euclidean norm of each group of weights, in a shape that broadcasts against W.

        From the norms at its start point a Newton method chooses its first step size. Only their scale matters, so most
        penalties will not need another definition than the default, in which each block is a group.
        """
        return norm(W, axis=(1, 2), keepdims=True)

    def start_memory(self, W: Blocks) -> Any:
        """The memory for a first call of ``prox_with_memory`` at a point shaped like W; empty by default."""
        return ()

    def prox_with_memory(self, W: Blocks, t: Scalar, memory: Any) -> tuple[Blocks, Any]:
        """``prox(W, t)`` from the memory of an earlier call, and the memory for the next call.

        Override it, with ``start_memory``, if the prox is an iteration that a good start makes short.
        """
        return self.prox(W, t), memory
