"""Scale the data to unit size: the same problem in other units. Then learning rates and float32 suit all data.

Let X = s X' and, for the squared loss, Y = t Y' + m. If u v = (t / s) u' v', the network (u, v) has on X an output t
times as large as that of (u', v') on X'. Therefore

    objective(u, v; X, Y, beta) = t^2 objective(u', v'; X', Y', beta')   with beta' = beta / (s t).

Wide data, with more feature columns than rows, are turned into the space of their rows: Z' = Z Q, where the columns of
Q are an orthonormal basis of it. No part of a hidden weight outside that space changes a prediction, and without it the
penalty is smaller. So the optimum is the same, and the cost is that of N columns instead of p.

The shift m is the mean of Y if the networks have an output bias, which takes it up, and 0 otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network, balance
from jaxcvx.numerics.safe import divisor
from jaxcvx.numerics.trees import is_traced
from jaxcvx.problems.training import Problem


class Scaling(NamedTuple):
    """The factors s of X and t of Y, and the shift m of Y.

    Attributes:
      x: factor s.
      y: factor t.
      shift: (c,) shift m of the targets, or 0.
      basis: (p, N) orthonormal columns Q that span the rows Z of wide data, or None.
    """

    x: Any
    y: Any
    shift: Any = 0.0
    basis: Any = None

    def objective(self, value: Any) -> Any:
        """Convert an objective to the caller's units."""
        return value * self.y**2

    def betas(self, betas: Any) -> Any:
        """Convert weight decays of the caller's problem to the scaled units."""
        return betas / (self.x * self.y)

    def residual(self, R: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Convert a dual residual to the caller's units."""
        return R * self.y

    def network(self, network: Network, problem: Problem) -> Network:
        """Convert a network of the scaled problem to the caller's units."""
        dtype = problem.X.dtype
        hidden, output = network.hidden.astype(dtype) * (1.0 / self.x), network.output.astype(dtype) * self.y
        hidden = self.turned_back(hidden)
        if self.basis is not None:
            network = dataclasses.replace(network, features=problem.features)
        bias = network.output_bias
        if bias is not None:
            bias = (bias.astype(dtype) * self.y + self.shift).astype(dtype)
        return balance(dataclasses.replace(network, hidden=hidden, output=output, output_bias=bias))

    def turned_back(self, directions: Float[Array, "m q"]) -> Float[Array, "m p"]:
        """Directions of hidden weights in the caller's columns."""
        return directions if self.basis is None else directions @ self.basis.T.astype(directions.dtype)

    def turned(self, directions: Float[Array, "m p"]) -> Float[Array, "m q"]:
        """Directions of hidden weights of the caller's problem in the columns of the scaled one."""
        return directions if self.basis is None else directions @ self.basis.astype(directions.dtype)

    def scale_network(self, network: Network) -> Network:
        """Convert a network of the caller's problem to the scaled units."""
        hidden, output = network.hidden * self.x, network.output * (1.0 / self.y)
        hidden = self.turned(hidden)
        if self.basis is not None:
            network = dataclasses.replace(network, features=_without_bias(network.features))
        bias = network.output_bias
        if bias is not None:
            bias = (bias - self.shift) / self.y
        return balance(dataclasses.replace(network, hidden=hidden, output=output, output_bias=bias))


def scaled_problem(problem: Problem, dtype: Any = None) -> tuple[Problem, Scaling]:
    """Scale the problem: the entries of X and of Y then have a mean square of about 1. Works under jit and vmap.

    X is not scaled if there is a bias, because its column of ones cannot be scaled. Y is scaled for the squared loss
    only, and shifted for losses of real targets if there is an output bias.

    Args:
      problem: the problem in the caller's units.
      dtype: type of the scaled arrays; None keeps that of the problem.

    Returns:
      The scaled problem, without arrangements, and the factors.
    """
    dtype = problem.X.dtype if dtype is None else dtype
    basis = None
    if is_wide(problem) and not is_traced(jnp.zeros(()), *jax.tree.leaves(problem)):
        basis = np.linalg.qr(np.asarray(problem.rows, np.float64).T)[0]  # the same one for every type of the problem
    scaled, scaling = _scaled(problem.replace(arrangements=None), basis, jnp.dtype(dtype))
    x, y = scaling.x, scaling.y
    return scaled, scaling if is_traced(x, y) else scaling._replace(x=float(x), y=float(y))


@functools.partial(jax.jit, static_argnames="dtype")
def _scaled(problem: Problem, basis: Any, dtype: Any) -> tuple[Problem, Scaling]:
    one, weight = jnp.ones((), problem.dtype), problem.sample_weight
    counts = True if weight is None else weight > 0
    features = problem.features
    if is_wide(problem):
        basis = jnp.linalg.qr(problem.rows.T)[0] if basis is None else basis.astype(problem.dtype)
        problem = dataclasses.replace(problem, X=problem.rows @ basis, features=_without_bias(features))
    x: Any = one if features.bias else _size(problem.X, counts)
    y: Any = one
    Y, shift = problem.Y, jnp.zeros_like(problem.Y[0])
    if problem.loss.kind == "real" and problem.features.output_bias:
        shift = jnp.mean(Y, axis=0) if weight is None else weight @ Y / divisor(jnp.sum(weight))
        Y = Y - shift
    if problem.loss.unweighted.is_quadratic:
        y = _size(Y, counts)
    scaled = dataclasses.replace(
        problem,
        X=(problem.X / x).astype(dtype),
        Y=(Y / y).astype(dtype),
        beta=(problem.beta / x / y).astype(dtype),
        sample_weight=None if weight is None else weight.astype(dtype),
    )
    return scaled, Scaling(x, y, shift, basis)


def is_wide(problem: Problem) -> bool:
    """True if the rows of a dense network, whose weights are all penalised, have more columns than there are rows."""
    features = problem.features
    dense = isinstance(features, Dense) and not features.skip
    return dense and features.num_weights(*problem.X.shape[1:]) > problem.num_samples


def _without_bias(features: Any) -> Any:
    return dataclasses.replace(features, bias=False)


def _size(A: Array, counts: Any) -> Array:
    """Return a power of two near the root mean square of the rows that count. Scaling by it and back is exact."""
    A = jnp.where(jnp.reshape(counts, (-1,) + (1,) * (A.ndim - 1)), A, 0.0)
    share = jnp.mean(jnp.asarray(counts, A.dtype))
    top = jnp.max(jnp.abs(A))
    mean = jnp.mean((A / divisor(top)) ** 2) / share
    power = jnp.round(jnp.log2(divisor(top)) + 0.5 * jnp.log2(divisor(mean)))
    return jnp.where(top > 0, jnp.ldexp(jnp.ones_like(top), power.astype(jnp.int32)), 1.0)
