"""Data brought to unit scale: the same problem in other units, so that rates and float32 fit all data.

With X = s X' and, for the squared loss, Y = t Y', a network (u, v) of X has the output t times that of
(u', v') on X' if u v = (t / s) u' v', so that

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
    """Factors s of X and t of Y."""

    x: float
    y: float

    def objective(self, value: float) -> float:
        """Objective in the caller's units."""
        return value * self.y**2

    def residual(self, R: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Dual residual in the caller's units."""
        return R * self.y

    def network(self, network: Network, problem: Problem) -> Network:
        """A network of the scaled problem as one of the caller's."""
        dtype = problem.X.dtype
        hidden = network.hidden.astype(dtype) * (1.0 / self.x)
        return balance(dataclasses.replace(network, hidden=hidden, output=network.output.astype(dtype) * self.y))

    def scale_network(self, network: Network) -> Network:
        """A network of the caller's problem as one of the scaled."""
        return balance(
            dataclasses.replace(network, hidden=network.hidden * self.x, output=network.output * (1.0 / self.y))
        )


def scaled_problem(problem: Problem, dtype: Any = None) -> tuple[Problem, Scaling]:
    """The problem with rows of mean square about 1 per entry and targets of mean square 1, in ``dtype``.

    Not scaled: a bias's column of ones makes X fixed, other losses make Y fixed. For use outside jit.
    """
    dtype = problem.X.dtype if dtype is None else dtype
    X, Y = np.asarray(problem.X, np.float64), np.asarray(problem.Y, np.float64)
    x = 1.0 if problem.features.bias else _size(X)
    y = _size(Y) if problem.loss.is_quadratic else 1.0
    scaled = dataclasses.replace(
        problem,
        X=jnp.asarray(X / x, dtype),
        Y=jnp.asarray(Y / y, dtype),
        beta=jnp.asarray(float(problem.beta) / x / y, dtype),
        arrangements=None,
    )
    return scaled, Scaling(x, y)


def _size(A: np.ndarray) -> float:
    """Power of two near the root mean square, so that scaling back and forth is exact."""
    top = np.abs(A).max()
    if not top > 0:
        return 1.0
    return float(2.0 ** np.round(np.log2(top) + 0.5 * np.log2(np.mean((A / top) ** 2))))
