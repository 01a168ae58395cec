"""The copositive program in the hidden Gram matrices alone (Sahiner, Ergen, Pauly and Pilanci 2021), squared loss.

For fixed U_i the best V_i and W_i of the block form are closed forms, which leaves

    f(U) = (beta/2) [ tr(Y^T (K + beta I)^{-1} Y) + sum_i tr U_i ],      K = sum_i B_i U_i B_i^T,

smooth and convex in the p x p blocks U_i, however many outputs there are. Over completely positive blocks, sums of
u u^T with u in cell i, its minimum is the optimum of training; over doubly non-negative ones it is the
relaxation's. Some texts use ``U' = U / (2 beta)``.

All formulas here take factors L_i with ``U_i = L_i L_i^T``. They keep their digits where U_i is nearly singular, and
the blocks that they give are positive semidefinite to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.numerics.safe import divide
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.copositive.program import Blocks

Factors = Float[Array, "P p p"]


class HiddenPoint(NamedTuple):
    """Factors of the hidden Gram matrices, with the parts that the formulas have in common.

    Attributes:
      L: (P, p, p) factors, ``U_i = L_i L_i^T``.
      K: (n, n) ``sum_i B_i U_i B_i^T + beta I``.
      R: (n, c) ``beta K^{-1} Y``, the residual of the best network with these hidden Gram matrices.
      G: (P, p, q) ``L_i^T B_i^T R``.
    """

    L: Factors
    K: Float[Array, "n n"]
    R: Float[Array, "n c"]
    G: Float[Array, "P p q"]


def hidden_point(problem: Problem, L: Factors) -> HiddenPoint:
    """The point with factors L."""
    operator = problem.operator
    masks = operator.masks.astype(L.dtype)
    rows = jnp.einsum("in,np,ipr->nir", masks, operator.Z, L).reshape(operator.Z.shape[0], -1)
    gram = operator.readout.lower_gram(rows @ rows.T)
    K = gram + problem.beta * jnp.eye(problem.Y.shape[0], dtype=L.dtype)
    R = problem.beta * cho_solve(cho_factor(K), problem.Y)
    return HiddenPoint(L, K, R, jnp.swapaxes(L, 1, 2) @ operator.adjoint(R))


def hidden_objective(problem: Problem, point: HiddenPoint) -> Float[Array, ""]:
    """f(U)."""
    return 0.5 * jnp.sum(point.R * problem.Y) + 0.5 * problem.beta * jnp.sum(point.L**2)


def hidden_gradient(problem: Problem, point: HiddenPoint) -> Float[Array, "P p p"]:
    """``L_i^T f'(U)_i L_i``: the gradient in M_i at M_i = I, where ``U_i = L_i M_i L_i^T``.

    In U_i itself it is ``(1 / (2 beta)) (beta^2 I - B_i^T R R^T B_i)``.
    """
    L, G, beta = point.L, point.G, problem.beta
    return 0.5 * beta * jnp.swapaxes(L, 1, 2) @ L - G @ jnp.swapaxes(G, 1, 2) / (2 * beta)


def blocks_from_hidden(problem: Problem, point: HiddenPoint) -> Blocks:
    """The best blocks for given U: ``V_i = U_i B_i^T R / beta`` and ``W_i = V_i^T U_i^+ V_i``."""
    L, pulled = point.L, point.G / problem.beta
    return Blocks(L @ jnp.swapaxes(L, 1, 2), L @ pulled, jnp.swapaxes(pulled, 1, 2) @ pulled)


def constrained_nuclear_norm(V: Float[Array, "p q"], U: Float[Array, "p p"]) -> Float[Array, ""]:
    """``1/2 [tr U + tr(V^T U^+ V)]``, infinite if the range of U does not hold that of V.

    For any completely positive U it is at least the norm of V that the cell's neurons generate. At the best U the two
    are equal.
    """
    values, vectors = jnp.linalg.eigh(U)
    in_range = values > 1e3 * jnp.finfo(U.dtype).eps * jnp.max(jnp.abs(values), initial=0.0)
    square = jnp.sum((vectors.T @ V) ** 2, axis=1)
    outside = jnp.sum(jnp.where(in_range, 0.0, square)) > 1e3 * jnp.finfo(U.dtype).eps * jnp.sum(square)
    spent = jnp.sum(divide(square, jnp.where(in_range, values, 0.0)))
    return jnp.where(outside, jnp.inf, 0.5 * (jnp.trace(U) + spent))
