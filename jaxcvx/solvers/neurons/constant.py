"""The output bias as one more block of the accelerated method, and the best output bias of a network.

Let A be the linear map from weights W to predictions, and C the map that subtracts the mean over samples, weighted by
the samples' weights. The predictions are ``C A(W) + b``. This is another parametrisation of ``A(W) + bias``, in which W
and b do not interact for the squared loss. So the steps in W are no smaller than without an output bias.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.methods.fista import LinearMap, Prox
from jaxcvx.networks.network import Network
from jaxcvx.numerics.safe import divisor
from jaxcvx.problems.training import Problem, best_constant


class WithConstant(NamedTuple):
    """A smooth loss of linear predictions plus a penalty. The variables may hold a constant for each output.

    With constants the variables are a vector: the flattened weights, then the constants.

    Attributes:
      linear: the map from variables to predictions.
      prox: the proximal operator of the weights' penalty, which leaves the constants as they are.
      params: the variables at the start, with the best constants for the given weights.
    """

    linear: LinearMap
    prox: Prox
    params: Array


def with_constant(
    problem: Problem, linear: LinearMap, prox: Prox, weights: Array, lipschitz: Float[Array, ""]
) -> WithConstant:
    """Add a constant for each output to a linear map.

    Args:
      problem: loss, targets and sample weights. The loss must be smooth.
      linear: the map from weights to predictions.
      prox: the proximal operator of the weights' penalty.
      weights: the weights at the start.
      lipschitz: guess of the Lipschitz constant of the loss's gradient in the weights. The constants are scaled such
        that it suits them too.
    """
    n, c = problem.Y.shape
    one = jnp.ones((n, 1), problem.dtype)
    share = one if problem.sample_weight is None else problem.sample_weight[:, None]
    share = share / divisor(jnp.sum(share))
    scale = jnp.sqrt(divisor(lipschitz / (n * divisor(jnp.asarray(problem.curvature, problem.dtype)))))
    size, shape = weights.size, weights.shape

    def centred(F: Array) -> Array:
        return F - jnp.sum(share * F, axis=0)

    def forward(x: Array) -> Array:
        return centred(linear.forward(x[:size].reshape(shape))) + scale * x[size:]

    def adjoint(R: Array) -> Array:
        total = jnp.sum(R, axis=0)
        return jnp.concatenate([linear.adjoint(R - share * total).ravel(), scale * total])

    def free_prox(x: Array, step: Array, carry: Any) -> tuple[Array, Any]:
        W, carry = prox(x[:size].reshape(shape), step, carry)
        return jnp.concatenate([W.ravel(), x[size:]]), carry

    constant = best_constant(problem, centred(linear.forward(weights))) / scale
    return WithConstant(LinearMap(forward, adjoint), free_prox, jnp.concatenate([weights.ravel(), constant]))


def with_best_constant(problem: Problem, network: Network) -> Network:
    """The network with the best output bias for its other weights; the network itself if it has none.

    The loss must be smooth; otherwise the bias stays.
    """
    if network.output_bias is None or not problem.loss.is_smooth:
        return network
    F = dataclasses.replace(network, output_bias=None)(problem.X)
    bias = best_constant(problem, F).astype(network.output_bias.dtype)
    return dataclasses.replace(network, output_bias=bias)


def without_mean(problem: Problem) -> Problem:
    """The problem with centred targets, if adding a constant to Y only adds it to predictions; else the problem."""
    if not problem.loss.shift_invariant:
        return problem
    weight = jnp.ones((problem.num_samples, 1), problem.dtype)
    weight = weight if problem.sample_weight is None else problem.sample_weight[:, None]
    return problem.replace(Y=problem.Y - jnp.sum(weight * problem.Y, axis=0) / divisor(jnp.sum(weight)))
