"""Implicit differentiation: derivatives of a convex program's solution with respect to its data.

Near a solution where strict complementarity holds, the zero groups stay zero and the active constraints stay
active: the solution x minimises a smooth function f over a linear space, its face. With P the orthogonal projector
on the face, it is the root of

    G(x) = x - P x + P grad f(P x),        dG/dx = (I - P) + P (Hessian of f) P,

so its derivative is one symmetric linear solve (implicit function theorem; for the group lasso Vaiter, Deledalle,
Peyre, Fadili and Dossal 2017). P may depend on the data (active rows of cones do). Zero groups have derivative
zero: at kinks this is the derivative of the solution with its zero groups held at zero, always finite.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError

_MAX_DENSE = 1024  # unknowns up to which the matrix is factorised where there is no preconditioner
_FEW = 64  # and where there is one: it costs more than the matrix itself

_Tree = TypeVar("_Tree")


class Optimality(NamedTuple):
    """What a solution is optimal for.

    Attributes:
      objective: value of the program at (problem, params), twice differentiable where no live group is zero.
      face: orthogonal projection of params on the space that the solution moves in, given (problem, active, params).
      active: arrays that say which groups and constraints are active; constants.
      inverse: given (problem, params), a function that solves dG/dx v = params-like numbers, at least roughly: the
        preconditioner where unknowns are many. None where there is none.
    """

    objective: Callable[[Any, Any], Float[Array, ""]]
    face: Callable[[Any, Any, Any], Any]
    active: Any
    inverse: Callable[[Any, Any], Callable[[Any], Any]] | None = None


def differentiable_params(optimality: Optimality, problem: Any, params: _Tree) -> _Tree:
    """The params of a solution, constant so far, as a differentiable function of the problem's arrays.

    Works in forward and reverse mode, to any order, under jit and vmap. Costs nothing unless differentiated,
    then one linear solve: by conjugate gradients with ``optimality.inverse`` as preconditioner; without one by Cholesky
    up to 1024 unknowns and by plain conjugate gradients beyond.
    """
    objective, face, active, inverse = optimality
    flat, unravel = ravel_pytree(params)

    def stationarity(x):
        inside = face(problem, active, unravel(x))
        gradient = jax.grad(objective, argnums=1)(problem, inside)
        return x + ravel_pytree(face(problem, active, gradient))[0] - ravel_pytree(inside)[0]

    def tangent(matvec, b):
        if b.size <= (_MAX_DENSE if inverse is None else _FEW):
            solve = _solve_dense
        elif inverse is None:
            solve = _solve_by_cg
        else:
            rough = inverse(jax.lax.stop_gradient(problem), params)
            solve = functools.partial(_solve_by_cg, precondition=lambda x: ravel_pytree(rough(unravel(x)))[0])
        return jax.lax.custom_linear_solve(matvec, b, solve, symmetric=True)

    return unravel(jax.lax.custom_root(stationarity, flat, lambda _, x: x, tangent))


def _solve_dense(matvec: Callable[[Array], Array], b: Float[Array, k]) -> Float[Array, k]:
    """Cholesky with damping, whose effect two refinements take back except where the matrix is singular."""
    identity = jnp.eye(b.size, dtype=b.dtype)
    matrix = jax.vmap(matvec)(identity)
    damping = 0.01 * jnp.finfo(b.dtype).eps ** 0.5 * jnp.mean(jnp.diagonal(matrix))
    factor = jax.scipy.linalg.cho_factor(0.5 * (matrix + matrix.T) + damping * identity)
    x = jax.scipy.linalg.cho_solve(factor, b)
    for _ in range(2):
        x = x + jax.scipy.linalg.cho_solve(factor, b - matrix @ x)
    return x


def _solve_by_cg(
    matvec: Callable[[Array], Array],
    b: Float[Array, k],
    precondition: Callable[[Array], Array] | None = None,
) -> Float[Array, k]:
    tol = 64 * float(jnp.finfo(b.dtype).eps)
    limit = 2 * b.size if precondition is None else 50
    x, _ = jax.scipy.sparse.linalg.cg(matvec, b, tol=tol, maxiter=limit, M=precondition)
    return x


def differentiable_objective(
    optimality: Optimality, problem: Any, params: Any, value: Float[Array, ""]
) -> Float[Array, ""]:
    """The optimal value, constant so far, as a differentiable function of the problem's arrays.

    By the envelope theorem its derivative is that of the objective at params that move with the face only, so it needs
    no linear solve. Second derivatives are right if ``params`` come from :func:`differentiable_params`.
    """
    objective, face, active = optimality[:3]

    @jax.custom_jvp
    def optimum(problem, params, active, value):
        return value

    @optimum.defjvp
    def _(primals, tangents):
        problem, params, active, _ = primals
        _, slope = jax.jvp(lambda p: objective(p, face(p, active, params)), (problem,), tangents[:1])
        return optimum(*primals), slope

    return optimum(problem, params, active, value)


def refuse_derivatives(inputs: Any, outputs: _Tree, name: str) -> _Tree:
    """The outputs, with an error in place of derivatives with respect to the inputs.

    Raises:
      InvalidTypeError: when a derivative is asked for.
    """

    @jax.custom_jvp
    def tie(inputs, outputs):
        return outputs

    @tie.defjvp
    def _(primals, tangents):
        raise InvalidTypeError(
            f"solver: got {name} under grad, expected ProximalGradient or ConeADMM with a smooth loss: derivatives of "
            "solutions are implemented for these convex programs. Use jax.lax.stop_gradient to treat it as constant."
        )

    return tie(inputs, outputs)
