"""Optimisers for the factors of low-rank problems, as optax transformations.

``conjugate_descent`` needs no step size. It scales each factor's gradient by the inverse Gram matrix of the other
factor, so that the rate of convergence does not depend on the condition number of X. It makes the directions conjugate
by the formula of Polak and Ribiere, with restarts. Its line search is exact: all measurements are quadratic along a
line, so three products give the objective there as a function of one variable, which is a quartic for squared losses.

Source: T. Tong, C. Ma and Y. Chi, "Accelerating ill-conditioned low-rank matrix estimation via scaled gradient descent"
(JMLR 2021).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide, divisor

Factors = Any  # U, or (U, V)

_RIDGE = 1e-4  # added to Gram matrices, relative to their mean eigenvalue
_FADING = 0.85  # factor of the shrinkage per step
_NEWTON_STEPS = 20  # limit on the line search's evaluations
_SLOPE_LEFT = 1e-4  # slope at which the line search ends, relative to the slope at its start


class LineSearchable(Protocol):
    """A problem over the factors of a matrix whose measurements are quadratic along a line, such as LowRankProblem."""

    @property
    def rank(self) -> int:
        """Number of columns of the factors."""

    @property
    def symmetric(self) -> bool:
        """True if params are a single factor U, with X = U U^T."""

    @property
    def dtype(self) -> Any:
        """Floating type of the data."""

    @property
    def curvature(self) -> Any:
        """Mean curvature of the loss at X = 0 over all directions of unit norm."""

    @property
    def degrees_of_freedom(self) -> int:
        """Dimension of the set of matrices of this rank."""

    def factors(self, params: Factors) -> tuple[Any, Any]:
        """The pair (L, R) with X = L R^T."""

    def spectral_params(self) -> Factors:
        """Factors of the spectral estimate of X."""

    def measure(self, params: Factors) -> dict[str, Array]:
        """The quadratic measurements from which the objective is computed."""

    def line(self, params: Factors, direction: Factors) -> tuple[dict[str, Array], ...]:
        """The coefficients z, a, b of ``measure(params + t direction) = z + t a + t^2 b``."""

    def energy(self, measured: dict[str, Array]) -> Float[Array, ""]:
        """The objective as a function of the measurements."""

    def quartic(self, z: dict[str, Array], a: dict[str, Array], b: dict[str, Array]) -> list[Array] | None:
        """Coefficients of the polynomial ``energy(z + t a + t^2 b)`` in t. None if it is not a polynomial."""


class _Conjugate(NamedTuple):
    gradient: Factors
    scaled: Factors
    direction: Factors
    unit: Array  # largest weight of the shrinkage
    share: Array  # upper bound on the weight, relative to ``unit``; it fades with the steps


def _dot(a: Any, b: Any) -> Float[Array, ""]:
    products = jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))
    return functools.reduce(jnp.add, products)


def scale_gradient(problem: LineSearchable, params: Factors, gradient: Factors) -> Factors:
    """The gradient times the inverse Gram matrix of the other factor, over the mean curvature."""
    L, R = problem.factors(params)

    def solve(G, F):
        gram = F.T @ F
        ridge = _RIDGE * jnp.trace(gram) / problem.rank + jnp.finfo(gram.dtype).tiny
        return jnp.linalg.solve(gram + ridge * jnp.eye(problem.rank, dtype=gram.dtype), G.T).T / problem.curvature

    if problem.symmetric:
        return solve(gradient, L) / 2
    return solve(gradient[0], R), solve(gradient[1], L)


def conjugate_descent(problem: LineSearchable, shrinkage: float = 0.0) -> Any:
    """Nonlinear conjugate gradients in the scaled metric with exact steps, as an optax transformation.

    Args:
      problem: the problem whose objective is minimised.
      shrinkage: initial weight of a penalty on the factors' squared norms, in units of the loss's curvature times the
        largest singular value of X. The weight decreases geometrically with the steps, and also with the loss. After a
        random start the penalty keeps rows with few observations from becoming large.
    """
    import optax

    def init(params: Factors) -> _Conjugate:
        zero, share = jax.tree.map(jnp.zeros_like, params), jnp.ones((), problem.dtype)
        unit = problem.curvature * largest_singular_value(problem) if shrinkage else 0.0
        return _Conjugate(zero, zero, zero, shrinkage * unit * share, share)

    def update(gradient: Factors, state: _Conjugate, params: Factors) -> tuple[Factors, _Conjugate]:
        weight = jnp.zeros((), problem.dtype)
        if shrinkage:
            measured = problem.measure(params)
            at_zero = problem.energy(jax.tree.map(jnp.zeros_like, measured))
            weight = state.unit * jnp.minimum(state.share, problem.energy(measured) / at_zero)
            gradient = jax.tree.map(lambda g, p: g + weight * p, gradient, params)
        scaled = scale_gradient(problem, params, gradient)
        before = _dot(state.scaled, state.gradient)
        change = _dot(scaled, gradient) - _dot(scaled, state.gradient)
        keep = divide(jnp.maximum(change, 0), before)
        direction = jax.tree.map(lambda s, d: keep * d - s, scaled, state.direction)
        downhill = _dot(direction, gradient) < 0
        direction = jax.tree.map(lambda d, s: jnp.where(downhill, d, -s), direction, scaled)
        step = exact_step(problem, params, direction, weight)
        updates = jax.tree.map(lambda d: step * d, direction)
        return updates, _Conjugate(gradient, scaled, direction, state.unit, _FADING * state.share)

    return optax.GradientTransformation(init, update)


def largest_singular_value(problem: LineSearchable) -> Float[Array, ""]:
    """The largest singular value of the spectral estimate of X; 1 if that estimate is zero."""
    columns = [jnp.max(jnp.sum(F**2, axis=0)) for F in problem.factors(problem.spectral_params())]
    size = jnp.sqrt(columns[0] * columns[1])
    return divisor(size)


def exact_step(
    problem: LineSearchable, params: Factors, direction: Factors, weight: Float[Array, ""]
) -> Float[Array, ""]:
    """The step of an exact line search.

    Args:
      problem: the problem.
      params: start of the line.
      direction: a direction of descent.
      weight: weight of the penalty ``weight/2 ||params||^2``, which is added to the objective.

    Returns:
      A local minimiser t > 0 along ``params + t direction``, up to the tolerance of the line search.
    """
    start, slope, bend = problem.line(params, direction)
    linear, square = weight * _dot(params, direction), weight * _dot(direction, direction)
    coefficients = problem.quartic(start, slope, bend)
    if coefficients is not None:
        _, c1, c2, c3, c4 = coefficients

        def derivatives(t):
            slope = c1 + linear + t * (2 * c2 + square + t * (3 * c3 + t * 4 * c4))
            return slope, 2 * c2 + square + t * (6 * c3 + t * 12 * c4)

    else:

        def slope_at(t):
            at = jax.tree.map(lambda z, a, b: z + t * (a + t * b), start, slope, bend)
            velocity = jax.tree.map(lambda a, b: a + 2 * t * b, slope, bend)
            return _dot(jax.grad(problem.energy)(at), velocity) + linear + t * square

        def derivatives(t):
            return jax.jvp(slope_at, (t,), (jnp.ones_like(t),))

    return _first_root(derivatives, problem.dtype)


def _first_root(derivatives: Any, dtype: Any) -> Float[Array, ""]:
    """A root t > 0 of a function's derivative, which is negative at 0, by Newton's method within a bracket.

    Args:
      derivatives: function of t that returns the first and the second derivative.
      dtype: floating type of t.
    """

    class Bracket(NamedTuple):
        t: Array
        low: Array
        high: Array
        slope: Array
        first_slope: Array
        steps: Array

    def unfinished(b):
        return (jnp.abs(b.slope) > _SLOPE_LEFT * b.first_slope) & (b.steps < _NEWTON_STEPS)

    def body(b):
        slope, curvature = derivatives(b.t)
        first_slope = jnp.where(b.steps == 0, jnp.abs(slope), b.first_slope)
        low, high = jnp.where(slope <= 0, b.t, b.low), jnp.where(slope > 0, b.t, b.high)
        newton = b.t - slope / divisor(curvature)
        inside = (curvature > 0) & (newton > low) & (newton < high)
        further = jnp.where(jnp.isinf(high), jnp.maximum(4 * b.t, 1.0), 0.5 * (low + high))
        done = jnp.abs(slope) <= _SLOPE_LEFT * first_slope
        t = jnp.where(done, b.t, jnp.where(inside, newton, further))
        return Bracket(t, low, high, slope, first_slope, b.steps + 1)

    zero, infinity = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    end = jax.lax.while_loop(unfinished, body, Bracket(zero, zero, infinity, infinity, zero, jnp.asarray(0)))
    return jnp.where(jnp.abs(end.slope) <= _SLOPE_LEFT * end.first_slope, end.t, end.low)


def constant_descent(problem: LineSearchable, batch_size: int | None) -> Any:
    """Gradient descent with the constant step 1 / (4 h s), as an optax transformation.

    Here h is the mean curvature of the loss, and s is the largest singular value of X. For mini-batches of b
    observations the step is multiplied by b / (b + degrees of freedom). The reason is that a batch measures at most b
    directions, and has a far larger curvature in these.
    """
    import optax

    share = 1.0 if batch_size is None else batch_size / (batch_size + problem.degrees_of_freedom)

    def init(params: Factors) -> Float[Array, ""]:
        return 0.25 * share / (problem.curvature * largest_singular_value(problem))

    def update(gradient: Factors, state: Float[Array, ""], params: Factors) -> tuple[Factors, Float[Array, ""]]:
        return jax.tree.map(lambda g: -state * g, gradient), state

    return optax.GradientTransformation(init, update)
