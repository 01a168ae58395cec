"""The copositive program in the hidden Gram matrices alone (Sahiner, Ergen, Pauly and Pilanci 2021), squared loss.

For fixed U_i the best V_i and W_i of the block form are closed forms, which leaves

    f(U) = (beta/2) [ tr(Y^T (K + beta I)^{-1} Y) + sum_i tr U_i ],      K = sum_i B_i U_i B_i^T,

smooth and convex in the p x p blocks U_i, however many outputs there are. Over completely positive blocks, sums of
u u^T with u in cell i, its minimum is the optimum of training; over doubly non-negative ones it is the
relaxation's. Some texts use ``U' = U / (2 beta)``.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.problems.training import Problem
from jaxcvx.solvers.copositive.program import Blocks

Hidden = Float[Array, "P p p"]


def hidden_gram(problem: Problem, U: Hidden) -> Float[Array, "n n"]:
    """``K = sum_i B_i U_i B_i^T``, the same for every output."""
    operator = problem.operator
    masks = operator.masks.astype(U.dtype)
    rows = jnp.einsum("in,np,ipr->nir", masks, operator.Z, U)
    other = jnp.einsum("in,np->nip", masks, operator.Z)
    return operator.readout.lower_gram(jnp.einsum("nip,mip->nm", rows, other))


def dual_residual(problem: Problem, U: Hidden) -> Float[Array, "n c"]:
    """``R = beta (K + beta I)^{-1} Y``, the residual of the best network with these hidden Gram matrices."""
    n = problem.Y.shape[0]
    K = hidden_gram(problem, U) + problem.beta * jnp.eye(n, dtype=U.dtype)
    return problem.beta * cho_solve(cho_factor(K), problem.Y)


def completely_positive_objective(problem: Problem, U: Hidden) -> Float[Array, ""]:
    """f(U)."""
    penalty = jnp.sum(jnp.trace(U, axis1=1, axis2=2))
    return 0.5 * (jnp.sum(dual_residual(problem, U) * problem.Y) + problem.beta * penalty)


def completely_positive_gradient(problem: Problem, U: Hidden) -> Hidden:
    """``(1 / (2 beta)) (beta^2 I - G_i G_i^T)`` with ``G_i = B_i^T R``."""
    G, beta = problem.operator.adjoint(dual_residual(problem, U)), problem.beta
    return 0.5 * (beta * jnp.eye(U.shape[1], dtype=U.dtype) - jnp.einsum("ipq,irq->ipr", G, G) / beta)


def blocks_from_hidden(problem: Problem, U: Hidden) -> Blocks:
    """The best blocks for given U: ``V_i = U_i G_i / beta``, ``W_i = V_i^T U_i^+ V_i = G_i^T U_i G_i / beta^2``."""
    G = problem.operator.adjoint(dual_residual(problem, U)) / problem.beta
    V = U @ G
    return Blocks(U, V, jnp.swapaxes(G, 1, 2) @ V)


def constrained_nuclear_norm(V: Float[Array, "p q"], U: Float[Array, "p p"]) -> Float[Array, ""]:
    """``1/2 [tr U + tr(V^T U^+ V)]``: at least the norm of V that the cell's neurons generate, for any completely
    positive U whose range holds that of V, and equal to it at the best one. Infinite if the range does not hold V."""
    values, vectors = jnp.linalg.eigh(U)
    cut = values > 1e3 * jnp.finfo(U.dtype).eps * jnp.max(jnp.abs(values), initial=0.0)
    square = jnp.sum((vectors.T @ V) ** 2, axis=1)
    outside = jnp.sum(jnp.where(cut, 0.0, square)) > 1e3 * jnp.finfo(U.dtype).eps * jnp.sum(square)
    spent = jnp.sum(jnp.where(cut, square / jnp.where(cut, values, 1.0), 0.0))
    return jnp.where(outside, jnp.inf, 0.5 * (jnp.trace(U) + spent))
