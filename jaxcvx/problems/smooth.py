"""Problems that are a smooth objective of some variables, without cells or a convex program behind them."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics import sphere as spheres
from jaxcvx.numerics.sphere import unit as unit
from jaxcvx.numerics.trees import all_finite


class SmoothProblem(abc.ABC):
    """``min objective(params)``: the common form of everything that gradients alone can be asked to solve.

    Subclasses are frozen dataclasses, registered as pytrees. ``solve`` takes them with the solvers that need
    nothing but gradients: ``GradientDescent``, ``AnnealedNoise`` and, where there are constraints, ``PrimalDual``.
    """

    @abc.abstractmethod
    def objective(self, params: Any) -> Float[Array, ""]:
        """The value to minimise, in the caller's units."""

    @abc.abstractmethod
    def initial_params(self, key: PRNGKeyArray | None) -> Any:
        """Params to start from; raises where they are random and there is no key."""

    @property
    def dtype(self) -> Any:
        """Floating type of the data."""
        return jnp.result_type(*(x for x in jax.tree.leaves(self) if jnp.issubdtype(x.dtype, jnp.inexact)))

    def is_valid(self) -> Bool[Array, ""]:
        """True if the data are finite."""
        return all_finite(self)

    if TYPE_CHECKING:  # bound in jaxcvx/_methods.py, as the function behind it lies in a higher layer

        def memory_estimate(self, solver: Any) -> int:
            """Bytes that a solve takes at its peak; see :func:`jaxcvx.memory_estimate`."""

    def sampled_objective(self, params: Any, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        """An unbiased estimate of ``objective`` from ``batch_size`` samples."""
        raise invalid("batch_size", batch_size, f"None: {type(self).__name__} has no samples to draw")

    def sphere(self, params: Any) -> Any:
        """A tree of bools like ``params``: which of its arrays live on the unit sphere. None: none of them."""
        return None

    def project(self, params: Any) -> Any:
        """The nearest params that obey the hard constraints; applied after every step."""
        return params

    def adopt(self, init: Any) -> Any:
        """Params that a caller's ``init`` stands for, where that may be something shorter."""
        return init

    def default_optimizer(self, batch_size: int | None = None) -> Any:
        """An optax optimiser that suits this problem's scale (for gradients of mini-batches, if so), or None."""
        return None

    def gradient_scale(self, params: Any, largest: Float[Array, ""]) -> Float[Array, ""]:
        """What a gradient's norm is compared with; ``largest`` is the largest norm seen so far."""
        return largest

    def lower_bound(self) -> Float[Array, ""]:
        """A proved lower bound on the objective of all params; -inf where there is none."""
        return jnp.full((), -jnp.inf, self.dtype)

    def network(self, params: Any) -> Any:
        """The real network that ``params`` describe; None where they describe something else."""
        return None

    def tangent(self, params: Any, gradient: Any) -> Any:
        """The part of a gradient that is tangent to the spheres that ``params`` lie on."""
        return spheres.tangent(self.sphere(params), params, gradient)

    def retract(self, params: Any) -> Any:
        """Back to the spheres and the constraints."""
        return self.project(spheres.retract(self.sphere(params), params))
