"""Landscapes: saddles told from minima, restricted isometry constants, a problem with a spurious minimum."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.problems.low_rank import LowRankProblem
from jaxcvx.problems.matrix_sensing import MatrixSensing
from jaxcvx.problems.smooth import SmoothProblem


class SecondOrder(NamedTuple):
    """First and second derivatives at a point.

    Attributes:
      gradient_norm: Euclidean norm of the gradient.
      smallest: estimate of the Hessian's smallest eigenvalue: a Ritz value, so never below it (up to rounding).
      direction: unit vector, shaped like params, along which the curvature is ``smallest``.
      error: the eigenvalue nearest to ``smallest`` is no further than this.
    """

    gradient_norm: Float[Array, ""]
    smallest: Float[Array, ""]
    direction: Any
    error: Float[Array, ""]

    def kind(self, gradient_tol: float, curvature_tol: float) -> str:
        """ "not stationary", "saddle" (proved: a direction of negative curvature) or "minimum" (as far as was seen)."""
        if float(self.gradient_norm) > gradient_tol:
            return "not stationary"
        return "saddle" if float(self.smallest) < -curvature_tol else "minimum"


@with_full_precision
@functools.partial(jax.jit, static_argnames="num_steps")
def second_order(problem: SmoothProblem, params: Any, key: PRNGKeyArray, *, num_steps: int = 60) -> SecondOrder:
    """Smallest eigenvalue of the Hessian of ``problem.objective``, by Lanczos' method without a matrix.

    Products with the Hessian are gradients differentiated forwards. The basis is orthogonalised in full, twice.

    Args:
      problem: any SmoothProblem.
      params: where.
      key: of the random start.
      num_steps: Hessian products, at most; no more are made than there are variables.
    """
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda x: problem.objective(unravel(x)))
    steps = min(num_steps, flat.size)
    first = jax.random.normal(key, flat.shape, flat.dtype)

    def orthogonal(w, basis):
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        return w

    def unit_or_zero(w, size):
        return jnp.where(size > 0, w / jnp.where(size > 0, size, 1.0), 0.0)

    def body(k, carry):
        basis, images = carry
        image = jax.jvp(gradient, (flat,), (basis[k],))[1]
        w = orthogonal(image, basis)
        size = jnp.linalg.norm(w)
        # An invariant subspace is left by a fresh random direction.
        fresh = orthogonal(jax.random.normal(jax.random.fold_in(key, k), flat.shape, flat.dtype), basis)
        exhausted = size <= 1e3 * jnp.finfo(flat.dtype).eps * jnp.linalg.norm(image)
        w = jnp.where(exhausted, unit_or_zero(fresh, jnp.linalg.norm(fresh)), unit_or_zero(w, size))
        return basis.at[k + 1].set(w, mode="drop"), images.at[k].set(image)

    zeros = jnp.zeros((steps, flat.size), flat.dtype)
    start = zeros.at[0].set(first / jnp.linalg.norm(first))
    basis, images = jax.lax.fori_loop(0, steps, body, (start, zeros))
    projected = basis @ images.T
    values, vectors = jnp.linalg.eigh(0.5 * (projected + projected.T))
    direction = basis.T @ vectors[:, 0]
    error = jnp.linalg.norm(images.T @ vectors[:, 0] - values[0] * direction)
    return SecondOrder(jnp.linalg.norm(gradient(flat)), values[0], unravel(direction), error)


class CurvatureRange(NamedTuple):
    """Extremes of ``<D, H D> / ||D||_F^2`` that a search over low-rank D found.

    The true extremes are at least as far apart.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]

    @property
    def isometry(self) -> Float[Array, ""]:
        """``(high - low) / (high + low)``: the restricted isometry constant at its best scaling, from below."""
        return (self.high - self.low) / (self.high + self.low)


@functools.partial(jax.jit, static_argnames=("rank", "num_starts", "num_steps"))
def restricted_curvature(
    problem: LowRankProblem,
    X: Float[Array, "d1 d2"],
    rank: int,
    key: PRNGKeyArray,
    *,
    num_starts: int = 16,
    num_steps: int = 200,
) -> CurvatureRange:
    """Restricted strong convexity and smoothness of ``loss(A(.))`` at X: its curvature along matrices of a rank.

    By projected power iterations ``D <- P_rank(H D)`` and ``D <- P_rank(high D - H D)`` from random starts (over
    symmetric D for symmetric problems), so both are attained: ``low`` from above, ``high`` from below.

    Args:
      problem: its loss and observations.
      X: dense matrix at which the Hessian is taken.
      rank: of the directions.
      key: of the starts.
      num_starts, num_steps: effort.
    """
    operator = problem.operator

    observed = operator.full(X)

    def symmetrise(D):
        return 0.5 * (D + D.T) if problem.symmetric else D

    def hessian(D):
        moved = jax.jvp(jax.grad(problem.loss), (observed,), (operator.full(D),))[1]
        return symmetrise(operator.adjoint(moved))

    def truncate(D):
        left, size, right = jnp.linalg.svd(D, full_matrices=False)
        D = (left[:, :rank] * size[:rank]) @ right[:rank]
        return D / jnp.maximum(jnp.linalg.norm(D), jnp.finfo(D.dtype).tiny)

    def power(multiply):
        starts = jax.random.normal(key, (num_starts, *X.shape), X.dtype)

        def iterate(D):
            D = jax.lax.fori_loop(0, num_steps, lambda _, D: truncate(multiply(D)), truncate(symmetrise(D)))
            return jnp.sum(D * hessian(D))

        return jax.vmap(iterate)(starts)

    high = jnp.max(power(hessian))
    low = jnp.min(power(lambda D: 1.01 * high * symmetrise(D) - hessian(D)))
    return CurvatureRange(low, high)


def isometry_constant(problem: LowRankProblem, key: PRNGKeyArray, *, rank: int | None = None, **effort: int) -> Array:
    """Restricted isometry constant of the observations, estimated from below, at their best scaling.

    Args:
      problem: whose operator A is meant (and whose loss has the curvature of the squared one).
      key: of the random starts.
      rank: of the matrices; twice the problem's by default.
      effort: num_starts, num_steps as in :func:`restricted_curvature`.
    """
    rank = min(2 * problem.rank, *problem.shape) if rank is None else rank
    return restricted_curvature(problem, jnp.zeros(problem.shape, problem.dtype), rank, key, **effort).isometry


def half_rip_counterexample() -> tuple[MatrixSensing, Float[Array, "2 1"], Float[Array, "2 1"]]:
    """A sensing problem of size 2 and rank 1 that has a spurious local minimum.

    Its isometry constant is exactly 1/2, and below 1/2 there can be none (Zhang, Sojoudi and Lavaei, JMLR 2019,
    Example 1).

    Returns:
      The problem; the solution z = (1, 0), up to its sign; the spurious minimum (0, 1/sqrt(2)), of objective 3/8.
    """
    root = np.sqrt(3) / 2
    operators = np.array(
        [
            [[1, 0], [0, 0.5]],
            [[0, root], [root, 0]],
            [[0, 0.5**0.5], [-(0.5**0.5), 0]],
            [[0, 0], [0, root]],
        ]
    )
    problem = MatrixSensing(operators, operators[:, 0, 0], 1)
    dtype = problem.dtype
    return problem, jnp.array([[1.0], [0.0]], dtype), jnp.array([[0.0], [0.5**0.5]], dtype)
