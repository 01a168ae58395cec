"""Semismooth Newton augmented Lagrangian for least squares with a norm penalty (Li, Sun and Toh 2018).

    min_W  1/2 ||B W - Y||^2 + beta h(W)

The method works on the dual ``max_R <R, Y> - 1/2 ||R||^2`` subject to ``h°(B^T R) <= beta``, with W as multiplier. The
inner problem at augmentation sigma has gradient ``R - Y + B prox(W + sigma B^T R)`` and generalised Hessian
``I + sigma B J B^T``, where J is a derivative of the prox of ``sigma beta h``. Programs differ in B, in the prox, and
in the way of solving that linear system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divisor

_WARM = 30.0  # first sigma, in units of (mean norm of the active blocks) / beta; measured


class LassoProgram(NamedTuple):
    """What the method needs of a program.

    Attributes:
      forward, adjoint: the linear map B and its adjoint.
      prox: ``(V, t) -> argmin_W t h(W) + 1/2 ||W - V||^2``.
      solve: ``(V, sigma, g) -> H^{-1} g`` with H the generalised Hessian at the prox's argument V.
    """

    forward: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]
    prox: Callable[[Array, Array], Array]
    solve: Callable[[Array, Array, Array], Array]


class LassoState(NamedTuple):
    """An iterate: ``params = prox(multiplier + sigma B^T R)`` is the primal candidate."""

    params: Any
    multiplier: Any
    R: Float[Array, "n c"]
    sigma: Array
    target: Array  # gradient norm at which the multiplier is updated


def lasso_start(
    program: LassoProgram,
    Y: Array,
    beta: Array,
    params: Array,
    norms: Array,
    curvature: Array,
    largest: Array,
) -> LassoState:
    """The first state.

    Args:
      program: the maps B and B^T, the prox, and the solver of the Newton system.
      Y: targets.
      beta: weight of the norm.
      params: start.
      norms: size of each block of ``params``.
      curvature: estimate of ``||B||^2``.
      largest: limit on sigma.
    """
    mean = jnp.sum(norms) / jnp.maximum(jnp.sum(norms > 0), 1).astype(norms.dtype)
    warm = _WARM * mean / divisor(beta)
    cold = 100 / jnp.maximum(curvature, jnp.finfo(Y.dtype).tiny)
    sigma = jnp.minimum(jnp.where((mean > 0) & (beta > 0), warm, cold), largest)
    return LassoState(params, params, Y - program.forward(params), sigma, 1e-3 * jnp.linalg.norm(Y))


def lasso_step(
    program: LassoProgram, Y: Array, beta: Array, state: LassoState, growth: float, largest: Array
) -> LassoState:
    """One Newton step with a line search. It updates the multiplier and sigma once the inner problem is solved."""
    sigma, threshold = state.sigma, state.sigma * beta
    V = state.multiplier + sigma * program.adjoint(state.R)
    g = state.R - Y + program.forward(program.prox(V, threshold))
    direction = -program.solve(V, sigma, g)
    shift = sigma * program.adjoint(direction)

    def potential(t):
        R = state.R + t * direction
        shrunk = program.prox(V + t * shift, threshold)
        return 0.5 * jnp.sum(R**2) - jnp.sum(R * Y) + jnp.sum(shrunk**2) / (2 * sigma)

    lengths = 0.5 ** jnp.arange(14, dtype=Y.dtype)
    here = potential(jnp.zeros((), Y.dtype))
    slack = 16 * jnp.finfo(Y.dtype).eps * jnp.abs(here)
    slope = jnp.sum(g * direction)
    enough = jax.vmap(potential)(lengths) <= here + 1e-4 * lengths * slope + slack
    length = jnp.where(jnp.any(enough), lengths[jnp.argmax(enough)], 0.0)
    R = state.R + length * direction
    params = program.prox(V + length * shift, threshold)
    # By the second test, the remaining decrease is below the rounding of the potential.
    solved = (jnp.linalg.norm(R - Y + program.forward(params)) <= state.target) | (-slope <= slack)
    stuck = jnp.where(length == 0, 0.1 * sigma, sigma)
    return LassoState(
        params=params,
        multiplier=jnp.where(solved, params, state.multiplier),
        R=R,
        sigma=jnp.where(solved, jnp.minimum(growth * sigma, largest), stuck),
        target=jnp.where(solved, 0.1 * state.target, state.target),
    )
