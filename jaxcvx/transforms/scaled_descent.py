"""Optimisers for the factors of low-rank problems, as optax transformations.

``conjugate_descent`` needs no step size. Gradients are scaled by the inverse Gram matrix of the other factor (ScaledGD:
Tong, Ma and Chi, JMLR 2021), so that the rate does not depend on the condition number of X; directions are made
conjugate (Polak and Ribiere, with restarts); and since everything measured is quadratic along a line, the
objective there is a function of one variable that costs three passes to set up, a quartic for squared losses.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide, divisor

Factors = Any  # U, or (U, V)

_RIDGE = 1e-4  # relative, on Gram matrices
_FADING = 0.85  # per step, of the shrinkage
_NEWTON_STEPS, _SLOPE_LEFT = 20, 1e-4  # of the line search: evaluations, and what may remain of the slope


class LineSearchable(Protocol):
    """A problem over factors whose measurements are quadratic along a line; see ``jaxcvx.LowRankProblem``."""

    @property
    def rank(self) -> int:
        """Number of columns of the factors."""

    @property
    def symmetric(self) -> bool:
        """Whether params are one factor."""

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
        """Everything the objective is made of."""

    def line(self, params: Factors, direction: Factors) -> tuple[dict[str, Array], ...]:
        """The coefficients z, a, b of ``measure(params + t direction) = z + t a + t^2 b``."""

    def energy(self, measured: dict[str, Array]) -> Float[Array, ""]:
        """The objective, from what was measured."""

    def quartic(self, z: dict[str, Array], a: dict[str, Array], b: dict[str, Array]) -> list[Array] | None:
        """Coefficients of ``energy(z + t a + t^2 b)`` as a polynomial in t, where it is one."""


class _Conjugate(NamedTuple):
    gradient: Factors
    scaled: Factors
    direction: Factors
    unit: Array  # of the shrinkage: curvature times the largest singular value of X
    share: Array  # of that unit that may still be used


def _dot(a: Any, b: Any) -> Float[Array, ""]:
    products = jax.tree.map(jnp.vdot, a, b)
    return sum(jax.tree.leaves(products), start=jnp.zeros(()))


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
      problem: whose objective is to be minimised.
      shrinkage: how strongly the factors' squared norms are penalised at first, relative to curvature times
        the largest singular value. The penalty fades with the loss, and geometrically with the steps. From a random
        start it keeps rows that few observations hold from running away.
    """
    import optax

    def init(params: Factors) -> _Conjugate:
        zero, one = jax.tree.map(jnp.zeros_like, params), jnp.ones((), problem.dtype)
        unit = problem.curvature * largest_singular_value(problem) if shrinkage else 0.0
        return _Conjugate(zero, zero, zero, shrinkage * unit * one, one)

    def update(gradient: Factors, state: _Conjugate, params: Factors) -> tuple[Factors, _Conjugate]:
        weight = jnp.zeros((), problem.dtype)
        if shrinkage:
            measured = problem.measure(params)
            nothing = problem.energy(jax.tree.map(jnp.zeros_like, measured))
            weight = state.unit * jnp.minimum(state.share, problem.energy(measured) / nothing)
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
    """Of the spectral estimate of X; 1 where that is zero."""
    columns = [jnp.max(jnp.sum(F**2, axis=0)) for F in problem.factors(problem.spectral_params())]
    size = jnp.sqrt(columns[0] * columns[1])
    return divisor(size)


def exact_step(
    problem: LineSearchable, params: Factors, direction: Factors, weight: Float[Array, ""]
) -> Float[Array, ""]:
    """A local minimiser t > 0 of ``objective + weight/2 ||.||^2`` along ``params + t direction``."""
    start, slope, bend = problem.line(params, direction)
    linear, square = weight * _dot(params, direction), weight * _dot(direction, direction)
    coefficients = problem.quartic(start, slope, bend)
    if coefficients is not None:
        _, c1, c2, c3, c4 = coefficients

        def derivatives(t):
            slope = c1 + linear + t * (2 * c2 + square + t * (3 * c3 + t * 4 * c4))
            return slope, 2 * c2 + square + t * (6 * c3 + t * 12 * c4)

    else:

        def first(t):
            at = jax.tree.map(lambda z, a, b: z + t * (a + t * b), start, slope, bend)
            velocity = jax.tree.map(lambda a, b: a + 2 * t * b, slope, bend)
            return _dot(jax.grad(problem.energy)(at), velocity) + linear + t * square

        def derivatives(t):
            return jax.jvp(first, (t,), (jnp.ones_like(t),))

    return _first_root(derivatives, problem.dtype)


def _first_root(derivatives: Any, dtype: Any) -> Float[Array, ""]:
    """Where a function's derivative, negative at 0, comes up to zero: Newton's method within a bracket."""

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
    """Gradient steps of constant size: a quarter over curvature times largest singular value of X.

    With mini-batches of b observations that is multiplied by b / (b + degrees of freedom): a batch sees no
    more than b directions, and far more strongly.
    """
    import optax

    share = 1.0 if batch_size is None else batch_size / (batch_size + problem.degrees_of_freedom)

    def init(params: Factors) -> Float[Array, ""]:
        return 0.25 * share / (problem.curvature * largest_singular_value(problem))

    def update(gradient: Factors, state: Float[Array, ""], params: Factors) -> tuple[Factors, Float[Array, ""]]:
        return jax.tree.map(lambda g: -state * g, gradient), state

    return optax.GradientTransformation(init, update)
