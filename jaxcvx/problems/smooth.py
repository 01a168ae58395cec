"""SmoothProblem: the base class of problems that consist of an objective of some variables."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.numerics import sphere as spheres
from jaxcvx.numerics.curvature import has_negative_curvature
from jaxcvx.numerics.sphere import unit as unit
from jaxcvx.numerics.trees import all_finite


class SmoothProblem(abc.ABC):
    """A problem ``min objective(params)`` that gradients suffice to solve.

    Subclasses are frozen dataclasses, registered as pytrees. ``solve`` accepts them together with solvers that need
    only gradients: ``GradientDescent``, ``AnnealedNoise`` and, for problems with constraints, ``PrimalDual``. A
    subclass must define ``objective`` and ``initial_params``. Most subclasses need few of the other methods.
    """

    @abc.abstractmethod
    def objective(self, params: Any) -> Float[Array, ""]:
        """The value to minimise."""

    @abc.abstractmethod
    def initial_params(self, key: PRNGKeyArray | None) -> Any:
        """The params to start from. If they are random and the key is None, this raises InvalidInputError."""

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
        """A pytree of bools like ``params``: True for arrays on the unit sphere. None if there are none."""
        return None

    def project(self, params: Any) -> Any:
        """The nearest params that satisfy the hard constraints. Solvers apply it after every step."""
        return params

    def adopt(self, init: Any) -> Any:
        """The params that the argument ``init`` of ``solve`` stands for, if it may have another form than params."""
        return init

    def completed(self, params: Any, key: PRNGKeyArray) -> Any:
        """The params to start from, with fresh random values for parts whose gradient is zero for good."""
        return params

    def improvable(self, params: Any) -> Bool[Array, ""]:
        """True if the params, whose gradient is zero, are known not to be a minimum. False proves nothing.

        By default: a direction of negative curvature, found by 2 x 20 products with the Hessian.
        """
        return has_negative_curvature(lambda at: self.objective(self.retract(at)), params)

    def default_optimizer(self, batch_size: int | None = None) -> Any:
        """An optax optimiser for this problem, or None. ``batch_size`` is None for full gradients."""
        return None

    def gradient_scale(self, params: Any, largest: Float[Array, ""]) -> Float[Array, ""]:
        """The scale of gradients, relative to which the stopping test measures their norms.

        Args:
          params: the current params.
          largest: the largest norm of a gradient so far.
        """
        return largest

    def lower_bound(self) -> Float[Array, ""]:
        """A proved lower bound on the objective over all params, or -inf."""
        return jnp.full((), -jnp.inf, self.dtype)

    def network(self, params: Any) -> Any:
        """The network that ``params`` describe, or None if they describe something else."""
        return None

    def tangent(self, params: Any, gradient: Any) -> Any:
        """Project a gradient onto the tangent space of the spheres at ``params``."""
        return spheres.tangent(self.sphere(params), params, gradient)

    def retract(self, params: Any) -> Any:
        """Scale the arrays on spheres to length 1, then apply the constraints."""
        return self.project(spheres.retract(self.sphere(params), params))
