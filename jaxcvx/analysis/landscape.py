"""Loss landscapes: tests that separate saddles from minima, isometry constants, a problem with a spurious minimum."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.safe import divisor, norm, unit_rows
from jaxcvx.problems.low_rank import LowRankProblem
from jaxcvx.problems.matrix_sensing import MatrixSensing
from jaxcvx.problems.smooth import SmoothProblem


class SecondOrder(NamedTuple):
    """First and second derivatives at a point.

    Attributes:
      gradient_norm: Euclidean norm of the gradient.
      smallest: estimate of the Hessian's smallest eigenvalue. It is a Ritz value, hence never below the eigenvalue
        (up to rounding).
      direction: unit vector, shaped like params. The curvature along it is ``smallest``.
      error: bound on the distance from ``smallest`` to the nearest eigenvalue.
    """

    gradient_norm: Float[Array, ""]
    smallest: Float[Array, ""]
    direction: Any
    error: Float[Array, ""]

    def kind(self, gradient_tol: float, curvature_tol: float) -> str:
        """Classify the point as "not stationary", "saddle" or "minimum".

        "saddle" is proved by a direction of negative curvature. "minimum" is not proved: it says that the search found
        no such direction.
        """
        if float(self.gradient_norm) > gradient_tol:
            return "not stationary"
        return "saddle" if float(self.smallest) < -curvature_tol else "minimum"


@with_full_precision
@functools.partial(jax.jit, static_argnames="num_steps")
def second_order(problem: SmoothProblem, params: Any, key: PRNGKeyArray, *, num_steps: int = 60) -> SecondOrder:
    """Estimate the smallest eigenvalue of the Hessian of ``problem.objective`` by Lanczos' method, without a matrix.

    A product with the Hessian is a forward derivative of the gradient. Every new basis vector is orthogonalised twice
    against all the others.

    Args:
      problem: any SmoothProblem.
      params: the point at which the Hessian is taken.
      key: random key of the starting vector.
      num_steps: largest number of Hessian products. It is cut to the number of variables.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> problem, _, minimum = jaxcvx.half_rip_counterexample()
      >>> report = jaxcvx.second_order(problem, minimum, jax.random.key(0))
      >>> report.kind(gradient_tol=1e-3, curvature_tol=1e-3)
      'minimum'
    """
    flat, unravel = ravel_pytree(params)
    gradient = jax.grad(lambda x: problem.objective(unravel(x)))
    steps = min(num_steps, flat.size)
    random = jax.random.normal(key, flat.shape, flat.dtype)

    def orthogonal(w, basis):
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        return w

    def body(k, carry):
        basis, images = carry
        image = jax.jvp(gradient, (flat,), (basis[k],))[1]
        w = orthogonal(image, basis)
        # If the basis spans an invariant subspace, a fresh random direction leads out of it.
        fresh = orthogonal(jax.random.normal(jax.random.fold_in(key, k), flat.shape, flat.dtype), basis)
        exhausted = norm(w) <= 1e3 * jnp.finfo(flat.dtype).eps * norm(image)
        w = unit_rows(jnp.where(exhausted, fresh, w))
        return basis.at[k + 1].set(w, mode="drop"), images.at[k].set(image)

    zeros = jnp.zeros((steps, flat.size), flat.dtype)
    start = zeros.at[0].set(random / norm(random))
    basis, images = jax.lax.fori_loop(0, steps, body, (start, zeros))
    projected = basis @ images.T
    values, vectors = jnp.linalg.eigh(0.5 * (projected + projected.T))
    direction = basis.T @ vectors[:, 0]
    error = norm(images.T @ vectors[:, 0] - values[0] * direction)
    return SecondOrder(norm(gradient(flat)), values[0], unravel(direction), error)


class CurvatureRange(NamedTuple):
    """Smallest and largest value of ``<D, H D> / ||D||_F^2`` that a search over low-rank matrices D found.

    The true extremes are at least as far apart.
    """

    low: Float[Array, ""]
    high: Float[Array, ""]

    @property
    def isometry(self) -> Float[Array, ""]:
        """``(high - low) / (high + low)``, a lower estimate of the restricted isometry constant at its best scaling."""
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
    """Estimate restricted strong convexity and smoothness: curvatures of ``loss(A(.))`` at X along low-rank D.

    The method is projected power iteration, ``D <- P_rank(H D)`` and ``D <- P_rank(high D - H D)``, from random starts
    (over symmetric D for symmetric problems). Both values are attained by a matrix D. Therefore ``low`` is at or above
    the true minimum, and ``high`` at or below the true maximum.

    Args:
      problem: gives the loss and the observation operator A.
      X: dense matrix at which the Hessian is taken.
      rank: rank of the directions D.
      key: random key of the starts.
      num_starts: number of random starts.
      num_steps: power iterations from each start.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import jaxcvx
      >>> problem, _, _ = jaxcvx.half_rip_counterexample()
      >>> curvature = jaxcvx.restricted_curvature(problem, jnp.zeros((2, 2)), 2, jax.random.key(0))
      >>> round(float(curvature.low), 3), round(float(curvature.high), 3)
      (0.5, 1.5)
    """
    operator = problem.operator
    observed = operator.full(X)

    def symmetrise(D):
        return 0.5 * (D + D.T) if problem.symmetric else D

    def hessian(D):
        derivative = jax.jvp(jax.grad(problem.loss), (observed,), (operator.full(D),))[1]
        return symmetrise(operator.adjoint(derivative))

    def truncate(D):
        left, size, right = jnp.linalg.svd(D, full_matrices=False)
        D = (left[:, :rank] * size[:rank]) @ right[:rank]
        return D / divisor(norm(D, axis=None))

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
    """Estimate from below the restricted isometry constant of the observations A, at their best scaling.

    Args:
      problem: gives the observation operator A. Its loss must have the curvature of the squared loss.
      key: random key of the starts.
      rank: rank of the matrices; the default is twice the rank of the problem.
      effort: ``num_starts`` and ``num_steps`` of :func:`restricted_curvature`.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> problem, _, _ = jaxcvx.half_rip_counterexample()
      >>> round(float(jaxcvx.isometry_constant(problem, jax.random.key(0))), 3)
      0.5
    """
    rank = min(2 * problem.rank, *problem.shape) if rank is None else rank
    return restricted_curvature(problem, jnp.zeros(problem.shape, problem.dtype), rank, key, **effort).isometry


def half_rip_counterexample() -> tuple[MatrixSensing, Float[Array, "2 1"], Float[Array, "2 1"]]:
    """Build a sensing problem of size 2 and rank 1 that has a spurious local minimum.

    Its isometry constant is exactly 1/2. A problem with a smaller constant has no spurious minimum (Zhang, Sojoudi and
    Lavaei, JMLR 2019, Example 1).

    Returns:
      The problem; the solution z = (1, 0), unique up to its sign; the spurious minimum (0, 1/sqrt(2)), whose objective
      is 3/8.

    Example:
      >>> import jaxcvx
      >>> problem, solution, minimum = jaxcvx.half_rip_counterexample()
      >>> round(float(problem.objective(solution)), 3), round(float(problem.objective(minimum)), 3)
      (0.0, 0.375)
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
