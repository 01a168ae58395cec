"""CopositiveInterior: a primal-dual interior-point method for the doubly non-negative relaxation, squared loss.

With V and W eliminated (see :mod:`jaxcvx.solvers.copositive.reduced`) the variables are the p x p blocks U_i
alone. The data enter through the n x n matrix ``K = sum_i B_i U_i B_i^T``, and the Newton system reduces to one
of size n c by the Woodbury identity, however many cells there are. The direction is that of Helmberg, Rendl,
Vanderbei and Wolkowicz (1996) and Kojima, Shindoh and Hara (1997), with the adaptive centring of Mehrotra (1992).
All of it is computed in coordinates in which every U_i is the identity (``U_i = L_i L_i^T`` with L_i stored).
There the systems of thin cells and of nearly rank-one blocks are as well-conditioned as any.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float

from jaxcvx.numerics.safe import divide, divisor
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
from jaxcvx.solvers.copositive.reduced import (
    HiddenPoint,
    blocks_from_hidden,
    hidden_gradient,
    hidden_objective,
    hidden_point,
)
from jaxcvx.solvers.copositive.rounding import evaluate_relaxed
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap

_TO_BOUNDARY = 0.95  # fraction of the largest step that keeps everything positive


class _Cone(NamedTuple):
    """The constraints, in coordinates.

    Attributes:
      basis: orthonormal basis of the symmetric matrices, m = p (p + 1) / 2.
      left: index of one facet of each pair.
      right: index of the other.
      live: (P, pairs) False where one of the two is padded.
    """

    basis: Float[Array, "m p p"]
    left: Any
    right: Any
    live: Bool[Array, "P pairs"]

    def vector(self, M: Float[Array, "P p p"]) -> Float[Array, "P m"]:
        """Coordinates of symmetric matrices."""
        return jnp.einsum("mpr,ipr->im", self.basis, M)

    def matrix(self, v: Float[Array, "P m"]) -> Float[Array, "P p p"]:
        """Symmetric matrices from their coordinates."""
        return jnp.einsum("mpr,im->ipr", self.basis, v)

    def pair_values(self, A: Float[Array, "P k p"], M: Float[Array, "P p p"]) -> Float[Array, "P pairs"]:
        """``a_k^T M a_l`` of every pair, 0 for padded ones."""
        return jnp.einsum("ikp,ipr,ikr->ik", A[:, self.left], M, A[:, self.right])

    def pair_adjoint(self, A: Float[Array, "P k p"], s: Float[Array, "P pairs"]) -> Float[Array, "P p p"]:
        """``sum_kl s_kl a_k a_l^T``, made symmetric."""
        return symmetric(jnp.einsum("ikp,ik,ikr->ipr", A[:, self.left], s, A[:, self.right]))


def _cone(problem: Problem) -> _Cone:
    p = problem.rows.shape[1]
    rows, columns = np.triu_indices(p)
    basis = np.zeros((len(rows), p, p))
    basis[np.arange(len(rows)), rows, columns] = basis[np.arange(len(rows)), columns, rows] = 0.5**0.5
    basis[rows == columns] *= 2**0.5
    live = facets_of_problem(problem).live
    left, right = np.triu_indices(live.shape[1], 1)
    return _Cone(jnp.asarray(basis, problem.X.dtype), left, right, live[:, left] & live[:, right])


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
    """Changes of U, X, s and of the values of the facet pairs."""

    U: Float[Array, "P p p"]
    X: Float[Array, "P p p"]
    values: Float[Array, "P pairs"]
    s: Float[Array, "P pairs"]


def _longest_matrix_step(M: Float[Array, "P p p"], change: Float[Array, "P p p"]) -> Float[Array, ""]:
    """Largest t with M + t change positive semidefinite in every cell."""
    inverse = jnp.linalg.inv(jnp.linalg.cholesky(M))
    lowest = jnp.min(jnp.linalg.eigvalsh(inverse @ change @ jnp.swapaxes(inverse, 1, 2)))
    return jnp.where(lowest < 0, -1 / lowest, jnp.inf)


def _longest_vector_step(live: Array, v: Array, change: Array) -> Float[Array, ""]:
    """Largest t with v + t change >= 0 wherever ``live``."""
    return jnp.min(jnp.where(live & (change < 0), v / divisor(-change), jnp.inf), initial=jnp.inf)


def _gram_derivatives(problem: Problem, cone: _Cone, point: HiddenPoint) -> Float[Array, "P m nc"]:
    """``B_i L_i E_m G_i`` for every element E_m of the basis: the derivative of K along it, times R, flattened."""
    operator, dtype = problem.operator, problem.Y.dtype
    num_cells, p, _ = point.L.shape
    num_basis = cone.basis.shape[0]
    blocks = jnp.einsum("ipr,mrt,itq->impq", point.L, cone.basis, point.G)

    def of_cell(mask, block):
        rows = mask[:, None] * (operator.Z @ jnp.moveaxis(block, 0, 1).reshape(p, -1))
        return jax.vmap(operator.readout.lower, in_axes=1)(rows.reshape(-1, num_basis, block.shape[2]))

    return jax.vmap(of_cell)(operator.masks.astype(dtype), blocks).reshape(num_cells, num_basis, -1)


class _System(NamedTuple):
    """The Newton system at a state, factorised once; U is the identity in its coordinates.

    The matrix is ``H + T^T T`` with H block-diagonal over the cells.

    Attributes:
      cone: the constraints.
      A: (P, k, p) facets.
      X: multiplier of U >= 0.
      s: multipliers of the facet pairs.
      values: values of the facet pairs; 1 where padded.
      weight: s / values; 0 where padded.
      gradient: of the objective.
      factor: (P, m, m) Cholesky factors of H.
      T: (P m, n c) :func:`_gram_derivatives`, divided by the factors of H.
      schur: Cholesky factor of the system of order n c, as of ``cho_factor``.
    """

    cone: _Cone
    A: Float[Array, "P k p"]
    X: Float[Array, "P p p"]
    s: Float[Array, "P pairs"]
    values: Float[Array, "P pairs"]
    weight: Float[Array, "P pairs"]
    gradient: Float[Array, "P p p"]
    factor: Float[Array, "P m m"]
    T: Float[Array, "Pm nc"]
    schur: Any

    @classmethod
    def factorise(cls, problem: Problem, state: _State) -> _System:
        """The system at ``state``."""
        cone, L, X, s = _cone(problem), state.L, state.X, state.s
        c, dtype = problem.Y.shape[1], problem.Y.dtype
        A, identity = facet_rows(problem) @ L, jnp.broadcast_to(jnp.eye(L.shape[1], dtype=dtype), L.shape)
        point = hidden_point(problem, L)
        values = jnp.where(cone.live, cone.pair_values(A, identity), 1.0)
        weight = jnp.where(cone.live, s / values, 0.0)
        pairs = jnp.einsum("ikp,mpr,ikr->ikm", A[:, cone.left], cone.basis, A[:, cone.right])
        lyapunov = jnp.einsum("mpr,ipt,ltr->iml", cone.basis, X, cone.basis)
        # H = lyapunov + pairs^T weight pairs, factorised by QR: active facets make its entries differ by 1 / mu^2.
        root = jnp.swapaxes(jnp.linalg.cholesky(symmetric(lyapunov)), 1, 2)
        stacked = jnp.concatenate([jnp.sqrt(weight)[:, :, None] * pairs, root], axis=1)
        factor = jnp.swapaxes(jnp.linalg.qr(stacked, mode="r"), 1, 2)
        T = solve_triangular(factor, _gram_derivatives(problem, cone, point), lower=True)
        T = T.reshape(-1, T.shape[2])
        schur = cho_factor(problem.beta * jnp.kron(point.K, jnp.eye(c, dtype=dtype)) + T.T @ T)
        return cls(cone, A, X, s, values, weight, hidden_gradient(problem, point), factor, T, schur)

    @property
    def identity(self) -> Float[Array, "p p"]:
        """U of one cell."""
        return jnp.eye(self.X.shape[1], dtype=self.X.dtype)

    def direction(self, target: Array, products_U: Array, products_s: Array) -> _Direction:
        """Newton's direction towards complementarity products equal to ``target``.

        Args:
          target: mu, the wanted product.
          products_U: second-order terms of the products of X and U; 0 for the affine direction.
          products_s: those of s and the facet pairs' values.
        """
        cone, factor = self.cone, self.factor
        goal = target * self.identity - products_U
        goal_s = jnp.where(cone.live, (target - products_s) / self.values, 0.0)
        r = cone.vector(goal + cone.pair_adjoint(self.A, goal_s) - self.gradient)
        h = solve_triangular(factor, r[:, :, None], lower=True)[:, :, 0].reshape(-1)
        h = (h - self.T @ cho_solve(self.schur, self.T.T @ h)).reshape(*r.shape, 1)
        dU = cone.matrix(solve_triangular(jnp.swapaxes(factor, 1, 2), h, lower=False)[:, :, 0])
        values = jnp.where(cone.live, cone.pair_values(self.A, dU), 0.0)
        dX = goal - self.X - symmetric(self.X @ dU)
        return _Direction(dU, dX, values, goal_s - self.s - self.weight * values)

    def length(self, d: _Direction) -> Float[Array, ""]:
        """The step along d: a fraction of the largest that keeps everything positive, at most 1."""
        live, identity = self.cone.live, jnp.broadcast_to(self.identity, self.X.shape)
        primal = jnp.minimum(_longest_matrix_step(identity, d.U), _longest_vector_step(live, self.values, d.values))
        dual = jnp.minimum(_longest_matrix_step(self.X, d.X), _longest_vector_step(live, self.s, d.s))
        return jnp.minimum(1.0, _TO_BOUNDARY * jnp.minimum(primal, dual))

    def mean_product(self, t: Array, d: _Direction) -> Float[Array, ""]:
        """Mean of the complementarity products after a step of length t along d."""
        live = self.cone.live
        matrices = jnp.sum((self.X + t * d.X) * (self.identity + t * d.U))
        pairs = jnp.sum(jnp.where(live, (self.s + t * d.s) * (self.values + t * d.values), 0.0))
        count = self.X.shape[0] * self.X.shape[1] + jnp.sum(live)
        return (matrices + pairs) / count.astype(self.X.dtype)


@dataclasses.dataclass(frozen=True)
class CopositiveInterior(Solver):
    """The interior-point phase of :class:`CopositiveADMM`, for the squared loss. It ignores the params given."""

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
        thin = jnp.min(1 / divisor(jnp.where(facets.live, norms, 0.0)), axis=1)
        floor = 1e-2 / max(k, 1) * thin[:, None, None] * jnp.eye(p, dtype=Y.dtype)
        factors = jnp.concatenate([facets.centers()[:, None, :], facets.rays, floor], axis=1)
        upper = jnp.linalg.qr(factors, mode="r")
        L = jnp.swapaxes(upper / jnp.linalg.norm(upper, axis=(1, 2), keepdims=True), 1, 2)
        energy = jnp.sum(Y**2)
        size = 0.1 * divisor(energy) / (beta * P)
        mu = 0.1 * beta * size / p
        L = L * jnp.sqrt(size)
        X = jnp.broadcast_to(mu * jnp.eye(p, dtype=Y.dtype), L.shape)
        values = cone.pair_values(A, L @ jnp.swapaxes(L, 1, 2))
        s = divide(mu, jnp.where(cone.live, values, 0.0))
        one = jnp.ones((), Y.dtype)
        dual = Dual(Y, jnp.zeros((P, k, k), Y.dtype))
        return _State(zero_relaxed(problem), L, X, s, dual, jnp.asarray(0, jnp.int32), jnp.inf * one, one, one)

    def step(self, problem: Problem, state: _State) -> _State:
        system, zero = _System.factorise(problem, state), jnp.zeros((), problem.Y.dtype)
        affine = system.direction(zero, zero, zero)
        mu = system.mean_product(zero, affine)
        centring = jnp.clip((system.mean_product(system.length(affine), affine) / mu) ** 2, 1e-3, 0.8)
        chosen = system.direction(centring * mu, symmetric(affine.X @ affine.U), affine.values * affine.s)
        t = system.length(chosen)
        M = jnp.linalg.cholesky(system.identity + t * chosen.U)
        X = symmetric(jnp.swapaxes(M, 1, 2) @ (state.X + t * chosen.X) @ M)
        new = state.L @ M, X, state.s + t * chosen.s
        # Past the last digit that rounding allows, factorisations fail: the state stays then.
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in new]))
        L, X, s = (jnp.where(finite, a, b) for a, b in zip(new, (state.L, state.X, state.s), strict=True))
        return state._replace(L=L, X=X, s=s, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        point, cone = hidden_point(problem, state.L), _cone(problem)
        objective = hidden_objective(problem, point)
        num_cells, k = facets_of_problem(problem).live.shape
        S = jnp.zeros((num_cells, k, k), problem.Y.dtype).at[:, cone.left, cone.right].set(state.s)
        dual = Dual(point.R, S + jnp.swapaxes(S, 1, 2))
        bound = relaxed_bound(problem, dual)
        return state._replace(
            params=blocks_from_hidden(problem, point),
            dual=dual,
            objective=objective,
            bound=bound,
            residual=relative_gap(objective, bound),
        )

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.dual)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_relaxed(problem, outcome)
