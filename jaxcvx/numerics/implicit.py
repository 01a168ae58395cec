"""Implicit differentiation: derivatives of a convex program's solution with respect to its data.

A group is a block of weights that is penalised by its norm. Suppose that strict complementarity holds at a solution.
Then small changes of the data keep the zero groups at zero and the active constraints active. So the solution x
minimises a smooth function f over a linear space, which we call its face. Let P be the orthogonal projector onto the
face. The solution is the root of

    G(x) = x - P x + P grad f(P x),        dG/dx = (I - P) + P (Hessian of f) P.

By the implicit function theorem its derivative is the solution of one symmetric linear system. P may depend on the
data, as the active rows of a cone do. Zero groups have derivative zero. At a kink, where strict complementarity fails,
the result is the derivative of the solution with its zero groups held at zero; it is always finite.

Source: S. Vaiter, C. Deledalle, G. Peyre, J. Fadili and C. Dossal, "The degrees of freedom of partly smooth
regularizers" (2017), for the group lasso.
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

# Systems of up to so many unknowns are solved by Cholesky. With a preconditioner the limit is lower, because the matrix
# of a small system costs less than the preconditioner.
_MAX_DENSE = 1024
_MAX_DENSE_PRECONDITIONED = 64

_Tree = TypeVar("_Tree")


class Optimality(NamedTuple):
    """The optimality conditions of a solution: its objective and its face.

    Attributes:
      objective: function of (problem, params) that returns the program's value. It is twice differentiable wherever no
        active group is zero.
      face: function of (problem, active, params) that returns the orthogonal projection of params onto the face.
      active: arrays that say which groups and constraints are active. They are treated as constants.
      inverse: function of (problem, params) that returns a function, which solves dG/dx v = b approximately for a b
        like params. It preconditions large systems. None if there is no such function.
    """

    objective: Callable[[Any, Any], Float[Array, ""]]
    face: Callable[[Any, Any, Any], Any]
    active: Any
    inverse: Callable[[Any, Any], Callable[[Any], Any]] | None = None


def differentiable_params(optimality: Optimality, problem: Any, params: _Tree) -> _Tree:
    """Attach derivatives with respect to the problem's arrays to the params of a solution.

    The derivatives work in forward and in reverse mode, to any order, under jit and vmap. Only differentiation has a
    cost, one linear solve. With ``optimality.inverse`` it uses preconditioned conjugate gradients. Without, it uses
    Cholesky for up to 1024 unknowns, and plain conjugate gradients for more.

    Args:
      optimality: the program's optimality conditions.
      problem: the problem that was solved.
      params: its solution.

    Returns:
      The same params, as a differentiable function of ``problem``.
    """
    objective, face, active, inverse = optimality
    flat, unravel = ravel_pytree(params)

    def stationarity(x):
        inside = face(problem, active, unravel(x))
        gradient = jax.grad(objective, argnums=1)(problem, inside)
        return x + ravel_pytree(face(problem, active, gradient))[0] - ravel_pytree(inside)[0]

    def tangent(matvec, b):
        if b.size <= (_MAX_DENSE if inverse is None else _MAX_DENSE_PRECONDITIONED):
            solve = _solve_dense
        elif inverse is None:
            solve = _solve_by_cg
        else:
            rough = inverse(jax.lax.stop_gradient(problem), params)
            solve = functools.partial(_solve_by_cg, precondition=lambda x: ravel_pytree(rough(unravel(x)))[0])
        return jax.lax.custom_linear_solve(matvec, b, solve, symmetric=True)

    return unravel(jax.lax.custom_root(stationarity, flat, lambda _, x: x, tangent))


def _solve_dense(matvec: Callable[[Array], Array], b: Float[Array, k]) -> Float[Array, k]:
    """Cholesky with damping. Two steps of refinement undo the damping, except where the matrix is singular."""
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
    """Attach derivatives with respect to the problem's arrays to the optimal value.

    By the envelope theorem the derivative is that of the objective at ``face(problem, active, params)``. There the
    params change only because the face depends on the problem. So no linear solve is needed. Second derivatives are
    right if ``params`` come from :func:`differentiable_params`.

    Args:
      optimality: the program's optimality conditions.
      problem: the problem that was solved.
      params: its solution.
      value: the program's value at ``params``.

    Returns:
      The same value, as a differentiable function of ``problem``.
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
    """Return the outputs unchanged, but refuse derivatives with respect to the inputs.

    Args:
      inputs: what the outputs were computed from.
      outputs: any pytree.
      name: the solver's name, for the message.

    Raises:
      InvalidTypeError: as soon as a derivative of the outputs is requested.
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
