"""Networks from points of the doubly non-negative relaxation, and the bounds that go with them.

A block U with ``A U A^T >= 0`` is, where it is completely positive, a sum of u u^T over neurons u in the cell.
Candidates:

* ``U a_k`` for every facet k: in the cell without further ado, as ``A U a_k >= 0``;
* the columns of a factor of U, rotated until they lie in the cell (Groetzner and Duer 2020). It starts from the
  pivoted Cholesky factor of ``A U A^T``, which for two facets is non-negative, so exact, as it stands.

Output weights are fitted by a group lasso over all candidates. With more than two features a few rounds of pricing
follow, at the group lasso's residual.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcvx.certificates.dual import bound_from_residuals
from jaxcvx.networks.network import Network, balance
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

_MAX_CANDIDATES = 4  # times n c
_ROUNDS = 6  # of pricing
_CLIMB_STEPS = 10


def cholesky_factor(A: Float[Array, "k p"], U: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Q with Q Q^T = U, for A of rank p: columns ``U' a / sqrt(a^T U' a)``, a the pivot, U' what is left of U."""
    tiny = jnp.finfo(U.dtype).eps * jnp.max(jnp.einsum("kp,pr,kr->k", A, U, A), initial=0.0)

    def pivot(left, _):
        values = jnp.einsum("kp,pr,kr->k", A, left, A)
        best = jnp.argmax(values)
        size = jnp.where(values[best] > tiny, values[best], 1.0)
        column = jnp.where(values[best] > tiny, left @ A[best] / jnp.sqrt(size), 0.0)
        return left - jnp.outer(column, column), column

    return jax.lax.scan(pivot, U, length=U.shape[0])[1].T


def rotate_into_cone(A: Float[Array, "k p"], Q: Float[Array, "p r"], num_steps: int = 100) -> Float[Array, "p r"]:
    """Q O with O orthogonal such that ``A Q O >= 0``, as nearly as alternating projections find it."""
    AQ = A @ Q

    def step(_, turn):
        left, _, right = jnp.linalg.svd(AQ.T @ jnp.maximum(AQ @ turn, 0.0))
        return left @ right

    eye = jnp.eye(Q.shape[1], dtype=Q.dtype)
    rotated = Q @ jax.lax.fori_loop(0, num_steps, step, eye)
    return jnp.where(jnp.min(AQ, initial=0.0) >= 0, Q, rotated)


def candidate_neurons(problem: Problem, U: Float[Array, "P p p"]) -> tuple[Array, Array]:
    """Neurons (m, p) and their cells, the largest 4 n c of them if there are more; zero rows where one is missing."""
    A, centers = facet_rows(problem), facets_of_problem(problem).centers()
    columns = jnp.einsum("ipr,ikr->ikp", U, A)
    sizes = jnp.einsum("ikp,ikp->ik", columns, A)
    columns = columns / jnp.sqrt(jnp.where(sizes > 0, sizes, jnp.inf))[:, :, None]
    factors = jnp.swapaxes(jax.vmap(lambda a, u: rotate_into_cone(a, cholesky_factor(a, u)))(A, U), 1, 2)
    exact = A.shape[1] <= 2  # the factor's columns are all that is needed
    all_of = factors if exact else jnp.concatenate([columns, factors], axis=1)  # (P, p or k + p, p)
    inside = push_towards(A[:, None], centers[:, None], all_of)
    hidden = inside.reshape(-1, U.shape[1])
    limit = min(hidden.shape[0], _MAX_CANDIDATES * problem.Y.size)
    best = jax.lax.top_k(jnp.sum(hidden**2, axis=1), limit)[1]
    return hidden[best], best // inside.shape[1]


def push_towards(
    A: Float[Array, "*b k p"], centers: Float[Array, "*b p"], U: Float[Array, "*b p"]
) -> Float[Array, "*b p"]:
    """Move each u towards its cell's center, just far enough to meet all facets."""
    slack, room = (A @ v[..., None] for v in (U, centers))
    ratio = jnp.where((slack < 0) & (room > 0), -slack / jnp.where(room > 0, room, 1.0), 0.0)
    return U + jnp.max(ratio, axis=-2, initial=0.0) * centers


def priced_neurons(
    problem: Problem, R: Float[Array, "n c"], found: Float[Array, "m p"], cell: Int[Array, m]
) -> Float[Array, "k p"]:
    """Unit neurons that climb on ``||R^T (Z u)_+||`` within their cells, from ``found`` and from fresh starts.

    In a cell that is ``||G^T u||`` with G = B^T R. Fresh starts are both signs of the first left singular vector of G,
    in the cells where its singular value is largest. Projected power steps never go downhill. A start whose projection
    on its cell is the origin stays there: a row of zeros.
    """
    facets, num = facets_of_problem(problem), _num_starts(problem)
    G = problem.operator.adjoint(R)
    left, size, _ = jnp.linalg.svd(G, full_matrices=False)
    chosen = jax.lax.top_k(size[:, 0], num)[1]
    first = jnp.concatenate([found, left[chosen, :, 0], -left[chosen, :, 0]])
    cell = jnp.concatenate([cell, chosen, chosen])
    A, G, signs = facet_rows(problem)[cell], G[cell], facets.live[cell].astype(R.dtype)

    def project(U):
        return unit_rows(jax.vmap(lambda a, s, u: project_cone(a, s, u)[0])(A, signs, U))

    def step(_, U):
        return project(jnp.einsum("mpq,mrq,mr->mp", G, G, U))

    climbed = jax.lax.fori_loop(0, _CLIMB_STEPS, step, project(first))
    return unit_rows(push_towards(A, facets.centers()[cell], climbed))


def _num_starts(problem: Problem) -> int:
    return min(problem.operator.num_cells, _MAX_CANDIDATES // 2 * problem.Y.size)


def unit_rows(U: Float[Array, "m p"]) -> Float[Array, "m p"]:
    """Rows of norm 1; zero rows stay."""
    norms = jnp.linalg.norm(U, axis=1, keepdims=True)
    return jnp.where(norms > 0, U / jnp.where(norms > 0, norms, 1.0), 0.0)


def round_relaxed(problem: Problem, U: Float[Array, "P p p"], tol: float = 1e-9) -> Network:
    """A network of candidates and what they climb to, with output weights fitted to a relative gap of ``tol``.

    Never worse than the zero network.
    """
    operator = problem.operator
    found, cell = candidate_neurons(problem, U)
    found = unit_rows(found)

    def fit(hidden):
        return fit_atoms(operator.phi(hidden), problem.Y, problem.beta, operator.readout, tol=tol, max_steps=60)

    def improve(_, carry):
        hidden, fitted = carry
        new = priced_neurons(problem, fitted.R, found, cell)
        strongest = jax.lax.top_k(group_norms(fitted.output[:, None, :]), hidden.shape[0] - new.shape[0])[1]
        hidden = jnp.concatenate([hidden[strongest], new])
        return hidden, fit(hidden)

    hidden, fitted = found, fit(found)
    if U.shape[1] > 2:  # two facets: the candidates are exact
        hidden = jnp.concatenate(
            [found, jnp.zeros_like(found, shape=(len(found) + 2 * _num_starts(problem), U.shape[1]))]
        )
        hidden, fitted = jax.lax.fori_loop(0, _ROUNDS, improve, (hidden, fit(hidden)))
    network = balance(Network(hidden, fitted.output, None, problem.features))
    return better(problem, network, jax.tree.map(jnp.zeros_like, network))


def evaluate_relaxed(problem: Problem, outcome: Outcome, tol: float = 1e-9) -> Parts:
    """Objective, network (its output weights fitted to ``tol``) and bounds at the returned blocks.

    All bounds depend on a residual alone, so the solver's own, that of the blocks and that of the network are tried.
    """
    blocks = make_feasible(problem, outcome.params)
    network = round_relaxed(problem, blocks.U, tol)
    duals = [Dual(problem.Y - problem.operator.forward(blocks.V), outcome.dual.S), outcome.dual]
    duals.append(fit_multipliers(problem, Dual(problem.Y - network(problem.X), outcome.dual.S)))
    bounds = [relaxed_bound(problem, dual) for dual in duals]
    norms = [training_dual_norm(problem, dual) for dual in duals]
    lower = bound_from_residuals(problem, network, [dual.R for dual in duals], norms)
    return Parts(network, relaxed_objective(problem, blocks), jnp.max(jnp.stack(bounds)), lower)
