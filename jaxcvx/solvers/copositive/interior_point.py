"""CopositiveInterior: a primal-dual interior-point method for the doubly non-negative relaxation, squared loss.

With V and W eliminated (see :mod:`jaxcvx.solvers.copositive.reduced`) the variables are the p x p blocks U_i
alone, the data enter through the n x n matrix ``K = sum_i B_i U_i B_i^T``, and the Newton system reduces to one
of size n c by the Woodbury identity, however many cells there are. The direction is that of Helmberg, Rendl,
Vanderbei and Wolkowicz (1996) and Kojima, Shindoh and Hara (1997), with the adaptive centring of Mehrotra (1992).
All of it is computed in coordinates in which every U_i is the identity (``U_i = L_i L_i^T`` with L_i stored),
where the systems of thin cells and of nearly rank-one blocks are as well-conditioned as any.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jaxtyping import Array, Float

from jaxcvx.problems.training import Problem
from jaxcvx.proximal.psd_cone import symmetric
from jaxcvx.solvers.copositive.program import (
    Blocks,
    Dual,
    facet_rows,
    facets_of_problem,
    relaxed_bound,
    with_facets,
    zero_relaxed,
)
from jaxcvx.solvers.copositive.rounding import evaluate_relaxed
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap

_TO_BOUNDARY = 0.95  # fraction of the largest step that keeps everything positive


class _Cone(NamedTuple):
    """The constraints, in coordinates: basis of symmetric matrices, pairs of facets."""

    basis: Float[Array, "m p p"]
    first: Any  # indices of the facets of each pair
    second: Any
    live: Any  # (P, pairs)


class _State(NamedTuple):
    params: Blocks
    L: Float[Array, "P p p"]  # U = L L^T
    X: Float[Array, "P p p"]  # L^T (multiplier of U >= 0) L
    s: Float[Array, "P pairs"]  # multipliers of the facet pairs
    dual: Dual
    step: Array
    residual: Array
    objective: Array
    bound: Array


class _Direction(NamedTuple):
    U: Array
    X: Array
    values: Array
    s: Array


def _cone(problem: Problem) -> _Cone:
    p = problem.rows.shape[1]
    rows, columns = np.triu_indices(p)
    basis = np.zeros((len(rows), p, p))
    basis[np.arange(len(rows)), rows, columns] = basis[np.arange(len(rows)), columns, rows] = 0.5**0.5
    basis[rows == columns] *= 2**0.5
    live = facets_of_problem(problem).live
    first, second = np.triu_indices(live.shape[1], 1)
    return _Cone(jnp.asarray(basis, problem.X.dtype), first, second, live[:, first] & live[:, second])


def _vector(cone: _Cone, M: Float[Array, "P p p"]) -> Float[Array, "P m"]:
    return jnp.einsum("mpr,ipr->im", cone.basis, M)


def _matrix(cone: _Cone, v: Float[Array, "P m"]) -> Float[Array, "P p p"]:
    return jnp.einsum("mpr,im->ipr", cone.basis, v)


def _pair_values(cone: _Cone, A: Float[Array, "P k p"], M: Float[Array, "P p p"]) -> Float[Array, "P pairs"]:
    """``a_k^T M a_l`` of every pair, 0 for padded ones."""
    return jnp.einsum("ikp,ipr,ikr->ik", A[:, cone.first], M, A[:, cone.second])


def _pair_adjoint(cone: _Cone, A: Float[Array, "P k p"], s: Float[Array, "P pairs"]) -> Float[Array, "P p p"]:
    return symmetric(jnp.einsum("ikp,ik,ikr->ipr", A[:, cone.first], s, A[:, cone.second]))


def _matrix_step(M: Float[Array, "P p p"], change: Float[Array, "P p p"]) -> Array:
    """Largest t with M + t change positive semidefinite in every cell."""
    inverse = jnp.linalg.inv(jnp.linalg.cholesky(M))
    lowest = jnp.min(jnp.linalg.eigvalsh(inverse @ change @ jnp.swapaxes(inverse, 1, 2)))
    return jnp.where(lowest < 0, -1 / lowest, jnp.inf)


def _vector_step(live: Array, v: Array, change: Array) -> Array:
    falling = live & (change < 0)
    return jnp.min(jnp.where(falling, -v / jnp.where(falling, change, 1.0), jnp.inf), initial=jnp.inf)


def _gram(problem: Problem, L: Float[Array, "P p p"]) -> Float[Array, "n n"]:
    """``sum_i B_i L_i L_i^T B_i^T``."""
    operator = problem.operator
    rows = jnp.einsum("in,np,ipr->nir", operator.masks.astype(L.dtype), operator.Z, L)
    rows = rows.reshape(rows.shape[0], -1)
    return operator.readout.lower_gram(rows @ rows.T)


@dataclasses.dataclass(frozen=True)
class CopositiveInterior(Solver):
    """The interior-point phase of :class:`CopositiveADMM`; squared loss. Starts afresh, whatever it is given."""

    tol: float = 1e-8
    max_steps: int = 100
    check_every: int = 1

    def prepare(self, problem: Problem) -> Problem:
        return with_facets(problem)

    def initial_params(self, problem: Problem, key: Any) -> Blocks:
        return zero_relaxed(problem)

    def init(self, problem: Problem, key: Any, params: Blocks) -> _State:
        facets, Y, beta = facets_of_problem(problem), problem.Y, problem.beta
        A, cone = facet_rows(problem), _cone(problem)
        P, k, p = A.shape
        # U = g g^T + sum of rays r r^T is completely positive; a multiple of I makes it definite in any case.
        norms = jnp.linalg.norm(A, axis=2)
        thin = jnp.min(jnp.where(facets.live, 1 / jnp.where(facets.live, norms, 1.0), 1.0), axis=1)
        floor = 1e-2 / max(k, 1) * thin[:, None, None] * jnp.eye(p, dtype=Y.dtype)
        factors = jnp.concatenate([facets.centers()[:, None, :], facets.rays, floor], axis=1)
        upper = jnp.linalg.qr(factors, mode="r")
        L = jnp.swapaxes(upper / jnp.linalg.norm(upper, axis=(1, 2), keepdims=True), 1, 2)
        energy = jnp.sum(Y**2)
        size = 0.1 * jnp.where(energy > 0, energy, 1.0) / (beta * P)
        mu = 0.1 * beta * size / p
        L = L * jnp.sqrt(size)
        X = jnp.broadcast_to(mu * jnp.eye(p, dtype=Y.dtype), L.shape)
        values = _pair_values(cone, A, L @ jnp.swapaxes(L, 1, 2))
        s = jnp.where(cone.live, mu / jnp.where(cone.live, values, 1.0), 0.0)
        one = jnp.ones((), Y.dtype)
        dual = Dual(Y, jnp.zeros((P, k, k), Y.dtype))
        return _State(zero_relaxed(problem), L, X, s, dual, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        operator, Y, beta = problem.operator, problem.Y, problem.beta
        cone, L, X, s = _cone(problem), state.L, state.X, state.s
        live = cone.live
        P, p, _ = L.shape
        (n, c), m = Y.shape, cone.basis.shape[0]
        transposed = jnp.swapaxes(L, 1, 2)
        A = facet_rows(problem) @ L
        eye = jnp.eye(p, dtype=Y.dtype)
        values = jnp.where(live, _pair_values(cone, A, jnp.broadcast_to(eye, L.shape)), 1.0)
        K = _gram(problem, L) + beta * jnp.eye(n, dtype=Y.dtype)
        R = beta * cho_solve(cho_factor(K), Y)
        G = transposed @ operator.adjoint(R)
        gradient = 0.5 * beta * transposed @ L - G @ jnp.swapaxes(G, 1, 2) / (2 * beta)

        pairs = jnp.einsum("ikp,mpr,ikr->ikm", A[:, cone.first], cone.basis, A[:, cone.second])
        lyapunov = jnp.einsum("mpr,ipt,ltr->iml", cone.basis, X, cone.basis)
        weight = jnp.where(live, s / values, 0.0)
        # H = lyapunov + pairs^T weight pairs, factorised by QR: active facets make its entries differ by 1 / mu^2.
        root = jnp.swapaxes(jnp.linalg.cholesky(symmetric(lyapunov)), 1, 2)
        stacked = jnp.concatenate([jnp.sqrt(weight)[:, :, None] * pairs, root], axis=1)
        factor = jnp.swapaxes(jnp.linalg.qr(stacked, mode="r"), 1, 2)
        # Columns of the derivative of R's prediction, then of its whitened form.
        moved = jnp.einsum("ipr,mrt,itq->impq", L, cone.basis, G)
        masked = operator.masks.astype(Y.dtype)

        def lower(mask, blocks):
            rows = mask[:, None] * (operator.Z @ jnp.moveaxis(blocks, 0, 1).reshape(p, -1))
            one = rows.reshape(-1, m, blocks.shape[2])
            return jax.vmap(operator.readout.lower, in_axes=1)(one)

        T = jax.vmap(lower)(masked, moved).reshape(P, m, n * c)
        T = solve_triangular(factor, T, lower=True)
        flat = T.reshape(P * m, n * c)
        schur = cho_factor(beta * jnp.kron(K, jnp.eye(c, dtype=Y.dtype)) + flat.T @ flat)

        def direction(target, second_U, second_s):
            """Newton direction towards complementarity ``target``, second-order terms included."""
            goal = target * eye - second_U
            wanted = jnp.where(live, (target - second_s) / values, 0.0)
            r = _vector(cone, goal + _pair_adjoint(cone, A, wanted) - gradient)
            h = solve_triangular(factor, r[:, :, None], lower=True)[:, :, 0].reshape(-1)
            h = (h - flat @ cho_solve(schur, flat.T @ h)).reshape(P, m, 1)
            dU = _matrix(cone, solve_triangular(jnp.swapaxes(factor, 1, 2), h, lower=False)[:, :, 0])
            change = jnp.where(live, _pair_values(cone, A, dU), 0.0)
            return _Direction(dU, goal - X - symmetric(X @ dU), change, wanted - s - weight * change)

        def length(d):
            identity = jnp.broadcast_to(eye, L.shape)
            primal = jnp.minimum(_matrix_step(identity, d.U), _vector_step(live, values, d.values))
            dual = jnp.minimum(_matrix_step(X, d.X), _vector_step(live, s, d.s))
            return jnp.minimum(1.0, _TO_BOUNDARY * jnp.minimum(primal, dual))

        def complementarity(t, d):
            matrices = jnp.sum((X + t * d.X) * (eye + t * d.U))
            return (matrices + jnp.sum(jnp.where(live, (s + t * d.s) * (values + t * d.values), 0.0))) / count

        count = P * p + jnp.sum(live)
        nothing = jnp.zeros((), Y.dtype)
        affine = direction(nothing, nothing, nothing)
        mu = complementarity(nothing, affine)
        centring = jnp.clip((complementarity(length(affine), affine) / mu) ** 2, 1e-3, 0.8)
        second = symmetric(affine.X @ affine.U), affine.values * affine.s
        chosen = direction(centring * mu, *second)
        t = length(chosen)
        M = jnp.linalg.cholesky(eye + t * chosen.U)
        X = symmetric(jnp.swapaxes(M, 1, 2) @ (X + t * chosen.X) @ M)
        new = L @ M, X, s + t * chosen.s
        # Past the last digit that rounding allows, factorisations fail: stay where it is.
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in new]))
        L, X, s = (jnp.where(finite, a, b) for a, b in zip(new, (state.L, state.X, state.s), strict=True))
        return state._replace(L=L, X=X, s=s, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        operator, Y, beta = problem.operator, problem.Y, problem.beta
        cone, L = _cone(problem), state.L
        K = _gram(problem, L) + beta * jnp.eye(Y.shape[0], dtype=Y.dtype)
        R = beta * cho_solve(cho_factor(K), Y)
        pulled = jnp.swapaxes(L, 1, 2) @ operator.adjoint(R) / beta
        blocks = Blocks(L @ jnp.swapaxes(L, 1, 2), L @ pulled, jnp.swapaxes(pulled, 1, 2) @ pulled)
        objective = 0.5 * jnp.sum(R * Y) + 0.5 * beta * jnp.sum(L**2)
        P, k = facets_of_problem(problem).live.shape
        S = jnp.zeros((P, k, k), Y.dtype).at[:, cone.first, cone.second].set(state.s)
        dual = Dual(R, S + jnp.swapaxes(S, 1, 2))
        bound = relaxed_bound(problem, dual)
        residual = relative_gap(objective, bound)
        return state._replace(params=blocks, dual=dual, objective=objective, bound=bound, residual=residual)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.dual)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_relaxed(problem, outcome)
