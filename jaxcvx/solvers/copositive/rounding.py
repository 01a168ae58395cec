"""Networks from points of the doubly non-negative relaxation, and the bounds of the returned solution.

Let the rows a_k of A be the facets of a cell. A block U with ``A U A^T >= 0`` that is completely positive is a sum of
u u^T over neurons u in the cell. There are two kinds of candidates for these neurons:

* ``U a_k`` for every facet k. It lies in the cell because ``A U a_k >= 0``.
* The columns of a factor of U, rotated until they lie in the cell (Groetzner and Duer 2020). The start is the
  pivoted Cholesky factor of ``A U A^T``. For two facets it is non-negative, so no rotation is needed.

A group lasso over all candidates fits the output weights. With more than two features a few rounds of pricing follow:
they search for neurons with a large ``||R^T (Z u)_+||`` at the group lasso's residual R.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcvx.certificates.dual import bound_from_residuals
from jaxcvx.networks.network import Network, balance
from jaxcvx.numerics.safe import divide, unit_rows
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.proximal.polyhedral_cone import project_cone
from jaxcvx.solvers.copositive.program import (
    Dual,
    facet_rows,
    facets_of_problem,
    fit_multipliers,
    make_feasible,
    relaxed_bound,
    relaxed_objective,
    training_dual_norm,
)
from jaxcvx.solvers.core.solution import Outcome, Parts
from jaxcvx.solvers.neurons.group_lasso import fit_atoms
from jaxcvx.solvers.neurons.refit import better

_MAX_CANDIDATES = 4  # in units of n c
_ROUNDS = 6  # rounds of pricing
_CLIMB_STEPS = 10


def cholesky_factor(A: Float[Array, "k p"], U: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Q with Q Q^T = U, for A of rank p.

    Its columns are ``U' a / sqrt(a^T U' a)``: a is the pivot facet, U' the remainder of U after the columns before.
    """
    tiny = jnp.finfo(U.dtype).eps * jnp.max(jnp.einsum("kp,pr,kr->k", A, U, A), initial=0.0)

    def pivot(remainder, _):
        values = jnp.einsum("kp,pr,kr->k", A, remainder, A)
        best = jnp.argmax(values)
        size = jnp.where(values[best] > tiny, values[best], 1.0)
        column = jnp.where(values[best] > tiny, remainder @ A[best] / jnp.sqrt(size), 0.0)
        return remainder - jnp.outer(column, column), column

    return jax.lax.scan(pivot, U, length=U.shape[0])[1].T


def rotate_into_cone(A: Float[Array, "k p"], Q: Float[Array, "p r"], num_steps: int = 100) -> Float[Array, "p r"]:
    """Q O with O orthogonal and ``A Q O >= 0``, approximately, by alternating projections."""
    AQ = A @ Q

    def step(_, turn):
        left, _, right = jnp.linalg.svd(AQ.T @ jnp.maximum(AQ @ turn, 0.0))
        return left @ right

    eye = jnp.eye(Q.shape[1], dtype=Q.dtype)
    rotated = Q @ jax.lax.fori_loop(0, num_steps, step, eye)
    return jnp.where(jnp.min(AQ, initial=0.0) >= 0, Q, rotated)


def candidate_neurons(problem: Problem, U: Float[Array, "P p p"]) -> tuple[Array, Array]:
    """Candidate neurons (m, p) and their cells: the largest ones, at most 4 n c. Some rows may be zero."""
    A, centers = facet_rows(problem), facets_of_problem(problem).centers()
    columns = jnp.einsum("ipr,ikr->ikp", U, A)
    sizes = jnp.einsum("ikp,ikp->ik", columns, A)
    columns = columns / jnp.sqrt(jnp.where(sizes > 0, sizes, jnp.inf))[:, :, None]
    factors = jnp.swapaxes(jax.vmap(lambda a, u: rotate_into_cone(a, cholesky_factor(a, u)))(A, U), 1, 2)
    planar = A.shape[1] <= 2  # then the factors are exact
    neurons = factors if planar else jnp.concatenate([columns, factors], axis=1)  # (P, p or k + p, p)
    inside = push_towards(A[:, None], centers[:, None], neurons)
    hidden = inside.reshape(-1, U.shape[1])
    limit = min(hidden.shape[0], _MAX_CANDIDATES * problem.Y.size)
    best = jax.lax.top_k(jnp.sum(hidden**2, axis=1), limit)[1]
    return hidden[best], best // inside.shape[1]


def push_towards(
    A: Float[Array, "*b k p"], centers: Float[Array, "*b p"], U: Float[Array, "*b p"]
) -> Float[Array, "*b p"]:
    """Move each u towards the center of its cell, by the least distance after which no facet is violated."""
    slack, center_slack = (A @ v[..., None] for v in (U, centers))
    ratio = jnp.where(slack < 0, divide(-slack, center_slack), 0.0)
    return U + jnp.max(ratio, axis=-2, initial=0.0) * centers


def priced_neurons(
    problem: Problem, R: Float[Array, "n c"], candidates: Float[Array, "m p"], cell: Int[Array, m]
) -> Float[Array, "k p"]:
    """Unit neurons with a large price ``||R^T (Z u)_+||`` within their cells, by projected power steps.

    In a cell the price is ``||G^T u||`` with G = B^T R. The steps start from ``candidates`` and from fresh starts: both
    signs of the first left singular vector of G, in the cells where its singular value is largest. No step lowers the
    price. If the projection of a start on its cell is the origin, its row stays zero.
    """
    facets, num = facets_of_problem(problem), _num_starts(problem)
    G = problem.operator.adjoint(R)
    left, size, _ = jnp.linalg.svd(G, full_matrices=False)
    chosen = jax.lax.top_k(size[:, 0], num)[1]
    starts = jnp.concatenate([candidates, left[chosen, :, 0], -left[chosen, :, 0]])
    cell = jnp.concatenate([cell, chosen, chosen])
    A, G, signs = facet_rows(problem)[cell], G[cell], facets.live[cell].astype(R.dtype)

    def project(U):
        return unit_rows(jax.vmap(lambda a, s, u: project_cone(a, s, u)[0])(A, signs, U))

    def step(_, U):
        return project(jnp.einsum("mpq,mrq,mr->mp", G, G, U))

    climbed = jax.lax.fori_loop(0, _CLIMB_STEPS, step, project(starts))
    return unit_rows(push_towards(A, facets.centers()[cell], climbed))


def _num_starts(problem: Problem) -> int:
    return min(problem.operator.num_cells, _MAX_CANDIDATES // 2 * problem.Y.size)


def round_relaxed(problem: Problem, U: Float[Array, "P p p"], tol: float = 1e-9) -> Network:
    """A network of candidates and priced neurons, with output weights fitted to a relative gap of ``tol``.

    It is never worse than the zero network.
    """
    operator = problem.operator
    candidates, cell = candidate_neurons(problem, U)
    candidates = unit_rows(candidates)

    def fit(hidden):
        return fit_atoms(operator.phi(hidden), problem.Y, problem.beta, operator.readout, tol=tol, max_steps=60)

    def improve(_, carry):
        hidden, fitted = carry
        new = priced_neurons(problem, fitted.R, candidates, cell)
        strongest = jax.lax.top_k(group_norms(fitted.output[:, None, :]), hidden.shape[0] - new.shape[0])[1]
        hidden = jnp.concatenate([hidden[strongest], new])
        return hidden, fit(hidden)

    hidden, fitted = candidates, fit(candidates)
    if U.shape[1] > 2:  # else the candidates are exact
        space = jnp.zeros((len(candidates) + 2 * _num_starts(problem), U.shape[1]), candidates.dtype)
        hidden = jnp.concatenate([candidates, space])
        hidden, fitted = jax.lax.fori_loop(0, _ROUNDS, improve, (hidden, fit(hidden)))
    network = balance(Network(hidden, fitted.output, None, problem.features))
    return better(problem, network, jax.tree.map(jnp.zeros_like, network))


def evaluate_relaxed(problem: Problem, outcome: Outcome, tol: float = 1e-9) -> Parts:
    """Objective, network (its output weights fitted to ``tol``) and bounds at the returned blocks.

    Each bound depends on a residual only. Three residuals are tried: that of the blocks, the solver's own, and that of
    the network.
    """
    blocks = make_feasible(problem, outcome.params)
    network = round_relaxed(problem, blocks.U, tol)
    duals = [Dual(problem.Y - problem.operator.forward(blocks.V), outcome.dual.S), outcome.dual]
    duals.append(fit_multipliers(problem, Dual(problem.Y - network(problem.X), outcome.dual.S)))
    bounds = [relaxed_bound(problem, dual) for dual in duals]
    norms = [training_dual_norm(problem, dual) for dual in duals]
    lower = bound_from_residuals(problem, network, [dual.R for dual in duals], norms)
    return Parts(network, relaxed_objective(problem, blocks), jnp.max(jnp.stack(bounds)), lower)
