"""Scale the data to unit size: the same problem in other units. Then learning rates and float32 suit all data.

Let X = s X' and, for the squared loss, Y = t Y'. If u v = (t / s) u' v', the network (u, v) has on X an output t times
as large as that of (u', v') on X'. Therefore

    objective(u, v; X, Y, beta) = t^2 objective(u', v'; X', Y', beta')   with beta' = beta / (s t).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.networks.network import Network, balance
from jaxcvx.problems.training import Problem


class Scaling(NamedTuple):
    """The factors s of X and t of Y.

    Attributes:
      x: factor s.
      y: factor t.
    """

    x: float
    y: float

    def objective(self, value: float) -> float:
        """Convert an objective to the caller's units."""
        return value * self.y**2

    def residual(self, R: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Convert a dual residual to the caller's units."""
        return R * self.y

    def network(self, network: Network, problem: Problem) -> Network:
        """Convert a network of the scaled problem to the caller's units."""
        dtype = problem.X.dtype
        hidden = network.hidden.astype(dtype) * (1.0 / self.x)
        return balance(dataclasses.replace(network, hidden=hidden, output=network.output.astype(dtype) * self.y))

    def scale_network(self, network: Network) -> Network:
        """Convert a network of the caller's problem to the scaled units."""
        return balance(
            dataclasses.replace(network, hidden=network.hidden * self.x, output=network.output * (1.0 / self.y))
        )


def scaled_problem(problem: Problem, dtype: Any = None) -> tuple[Problem, Scaling]:
    """Scale the problem: the entries of X and of Y then have a mean square of about 1. Works only outside jit.

    X is not scaled if there is a bias, because its column of ones cannot be scaled. Y is scaled for the squared loss
    only.

    Args:
      problem: the problem in the caller's units.
      dtype: type of the scaled arrays; None keeps that of the problem.

    Returns:
      The scaled problem, without arrangements, and the factors.
    """
    dtype = problem.X.dtype if dtype is None else dtype
    X, Y = np.asarray(problem.X, np.float64), np.asarray(problem.Y, np.float64)
    x = 1.0 if problem.features.bias else _size(X)
    y = _size(Y) if problem.loss.unweighted.is_quadratic else 1.0
    scaled = dataclasses.replace(
        problem,
        X=jnp.asarray(X / x, dtype),
        Y=jnp.asarray(Y / y, dtype),
        beta=jnp.asarray(float(problem.beta) / x / y, dtype),
        arrangements=None,
    )
    return scaled, Scaling(x, y)


def _size(A: np.ndarray) -> float:
    """Return a power of two near the root mean square. Scaling by it and back is exact."""
    top = np.abs(A).max()
    if not top > 0:
        return 1.0
    return float(2.0 ** np.round(np.log2(top) + 0.5 * np.log2(np.mean((A / top) ** 2))))
