"""CopositiveADMM: the doubly non-negative relaxation of training, for several outputs."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.psd_cone import project_psd, symmetric
from jaxcvx.solvers.copositive.interior_point import CopositiveInterior
from jaxcvx.solvers.copositive.program import (
    Blocks,
    Dual,
    FacetProblem,
    congruence,
    facet_rows,
    fit_multipliers,
    make_feasible,
    relaxed_bound,
    relaxed_objective,
    with_facets,
    zero_relaxed,
)
from jaxcvx.solvers.copositive.rounding import evaluate_relaxed
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap

_INTERIOR_MAX_SIZE = 1500  # n c, the dimension of the interior-point method's linear systems
_INTERIOR_MAX_WORK = 3e7  # entries of the matrix they are made from
_PENALTY = 3.0  # rho in units of beta * ||Z||; measured


class _Cache(NamedTuple):
    """Factorisations that are computed once. They do not depend on the penalty parameter rho."""

    A: Float[Array, "P k p"]
    facet_values: Float[Array, "P p"]  # eigenvalues of A^T A
    facet_vectors: Float[Array, "P p p"]
    values: Float[Array, n]  # eigenvalues of sum_i B_i B_i^T
    vectors: Float[Array, "n n"]


class _State(NamedTuple):
    params: Blocks  # feasible, made at each check
    matrix: Float[Array, "P pq pq"]  # copy that is positive semidefinite
    slack: Float[Array, "P k k"]  # copy of A U A^T that is non-negative
    dual_matrix: Float[Array, "P pq pq"]
    dual_slack: Float[Array, "P k k"]
    rho: Array
    primal: Array  # relative residuals of the last step, for the penalty's adaptation
    change: Array
    cache: _Cache
    dual: Dual
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class CopositiveADMM(Solver):
    """Solves the doubly non-negative relaxation of training with several outputs (squared loss). Chooses its method.

    See :mod:`jaxcvx.solvers.copositive.program` for the program. Its optimum is that of training where every cell has
    at most four facets, so always for two features. :func:`jaxcvx.solvers.copositive.program.relaxation_is_exact`
    tests this. Otherwise it is a lower bound.

    With ``phases="auto"`` and moderate sizes an interior-point method solves it. It takes some 10 to 30 steps to any
    gap that rounding allows. Larger programs are solved by ADMM (Boyd et al. 2011) with a semidefinite copy of each
    cell's block and a non-negative copy of its facet values. One n x n matrix is diagonalised once, and a step costs
    one batched eigendecomposition. ADMM needs many steps for small beta.

    ``solution.params`` is a triple (U, V, W) of (P, p, p), (P, p, q), (P, q, q) blocks, feasible to rounding.
    ``objective`` is the relaxation's value there, never below its optimum. ``solution.network`` is rounded from the
    blocks, and its output weights are refitted. ``lower_bound`` is the relaxation's dual value, or that of training
    itself if that is larger and the cells have few enough faces to price neurons exactly. In that case, and if the
    cells are complete, the scope is "global".

    The cells' facets are computed on the host before the loop, so X and the arrangements must be concrete. Under
    jit and vmap Y and beta may be traced. To trace the others too, pass ``solver.prepare(problem)`` as the problem.

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit on ADMM steps.
      check_every: steps between evaluations of the gap.
      phases: "auto", or "admm" for ADMM alone.
      relaxation: over-relaxation factor in (0, 2).

    Example:
      >>> import jaxcvx
      >>> X, Y = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
      >>> problem = jaxcvx.make_problem(X, Y, beta=0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> solution = jaxcvx.solve(problem, jaxcvx.CopositiveADMM(tol=1e-4))
      >>> solution.scope, bool(solution.gap < 1e-2)
      ('relaxation', True)
    """

    tol: float = 1e-5
    max_steps: int = 10_000
    check_every: int = 50
    phases: str = "auto"
    relaxation: float = 1.6

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        p, size = problem.rows.shape[1], problem.Y.size
        work = problem.operator.num_cells * p * (p + 1) / 2 * size
        if self.phases == "admm" or size > _INTERIOR_MAX_SIZE or work > _INTERIOR_MAX_WORK:
            return (self,)
        return (CopositiveInterior(tol=0.1 * self.tol), self)

    requires = frozenset({"cells", "squared loss", "no sample weights", "no skip", "no free bias"})

    def validate(self, problem: Problem) -> None:
        if self.phases not in ("auto", "admm"):
            raise invalid("phases", repr(self.phases), "'auto' or 'admm'")
        if not 0 < self.relaxation < 2:
            raise invalid("relaxation", self.relaxation, "a number between 0 and 2")

    def prepare(self, problem: Problem) -> Problem:
        return with_facets(problem)

    def initial_params(self, problem: Problem, key: Any) -> Blocks:
        return zero_relaxed(problem)

    def init(self, problem: Problem, key: Any, params: Blocks) -> _State:
        operator, Y = problem.operator, problem.Y
        A = facet_rows(problem)
        own = jnp.linalg.eigh(jnp.swapaxes(A, 1, 2) @ A)
        joint = jnp.linalg.eigh(operator.gram())
        cache = _Cache(A, own[0], own[1], jnp.maximum(joint[0], 0.0), joint[1])
        one = jnp.ones((), Y.dtype)
        top = jnp.linalg.norm(operator.Z, ord=2)
        rho = jnp.maximum(_PENALTY * problem.beta * top, jnp.finfo(Y.dtype).tiny)
        matrix, slack = _assemble(params), jnp.maximum(congruence(A, params.U), 0.0)
        dual = Dual(Y - operator.forward(params.V), jnp.zeros_like(slack))
        return _State(
            params=params,
            matrix=matrix,
            slack=slack,
            dual_matrix=jnp.zeros_like(matrix),
            dual_slack=jnp.zeros_like(slack),
            rho=rho,
            primal=one,
            change=one,
            cache=cache,
            dual=dual,
            step=jnp.asarray(0, jnp.int32),
            residual=jnp.inf * one,
            objective=one,
            bound=one,
        )

    def step(self, problem: Problem, state: _State) -> _State:
        cache, rho, operator = state.cache, state.rho, problem.operator
        A, Q = cache.A, cache.facet_vectors
        p = A.shape[2]
        T = state.matrix - state.dual_matrix
        wanted = T[:, :p, p:]
        error = cache.vectors.T @ (problem.Y - operator.forward(wanted))
        V = wanted + operator.adjoint(cache.vectors @ (error / (2 * rho + cache.values)[:, None]))
        shift = 0.5 * problem.beta / rho
        pull = congruence(jnp.swapaxes(A, 1, 2), state.slack - state.dual_slack)
        target = T[:, :p, :p] + pull - shift * jnp.eye(p, dtype=T.dtype)
        scale = 1 + cache.facet_values[:, :, None] * cache.facet_values[:, None, :]
        U = congruence(Q, congruence(jnp.swapaxes(Q, 1, 2), target) / scale)
        W = T[:, p:, p:] - shift * jnp.eye(T.shape[1] - p, dtype=T.dtype)

        over = self.relaxation
        values, blocks = congruence(A, U), _assemble(Blocks(U, V, W))
        relaxed = over * blocks + (1 - over) * state.matrix
        relaxed_values = over * values + (1 - over) * state.slack
        matrix = project_psd(relaxed + state.dual_matrix)
        slack = jnp.maximum(relaxed_values + state.dual_slack, 0.0)

        def size(a, b):
            return jnp.sqrt(jnp.sum(a**2) + jnp.sum(b**2))

        dual_matrix = state.dual_matrix + relaxed - matrix
        dual_slack = state.dual_slack + relaxed_values - slack
        tiny = jnp.finfo(T.dtype).tiny
        primal = size(blocks - matrix, values - slack) / jnp.maximum(size(matrix, slack), tiny)
        change = size(matrix - state.matrix, slack - state.slack)
        return state._replace(
            matrix=matrix,
            slack=slack,
            dual_matrix=dual_matrix,
            dual_slack=dual_slack,
            primal=primal,
            change=change / jnp.maximum(size(dual_matrix, dual_slack), tiny),
            step=state.step + 1,
        )

    def check(self, problem: Problem, state: _State) -> _State:
        p = problem.rows.shape[1]
        blocks = Blocks(state.matrix[:, :p, :p], state.matrix[:, :p, p:], state.matrix[:, p:, p:])
        blocks = make_feasible(problem, blocks)
        objective = relaxed_objective(problem, blocks)
        S = jnp.maximum(-2 * state.rho * symmetric(state.dual_slack), 0.0)
        own = Dual(problem.Y - problem.operator.forward(blocks.V), S)
        fitted = fit_multipliers(problem, own)
        bounds = relaxed_bound(problem, own), relaxed_bound(problem, fitted)
        bound = jnp.maximum(*bounds)
        dual = own._replace(S=jnp.where(bounds[0] >= bounds[1], own.S, fitted.S))
        state = self._adapt(state)
        residual = relative_gap(objective, bound)
        return state._replace(params=blocks, dual=dual, objective=objective, bound=bound, residual=residual)

    def _adapt(self, state: _State) -> _State:
        """Balance primal against dual residuals by rho, in the first half of the steps. Scaled duals follow rho."""
        tiny = jnp.finfo(state.primal.dtype).tiny
        ratio = jnp.sqrt(state.primal / jnp.maximum(state.change, tiny))
        early = (state.step > 0) & (2 * state.step < self.max_steps)
        useful = early & jnp.isfinite(ratio) & ((ratio > 2) | (ratio < 0.5))
        factor = jnp.where(useful, jnp.clip(ratio, 0.5, 2.0), 1.0)
        return state._replace(
            rho=state.rho * factor,
            dual_matrix=state.dual_matrix / factor,
            dual_slack=state.dual_slack / factor,
        )

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.dual)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_relaxed(problem, outcome, max(0.03 * self.tol, 1e-9))

    def scope(self, problem: Problem) -> str:
        assert problem.arrangements is not None
        if not problem.arrangements.complete:
            return "sampled-cells"
        exact = isinstance(problem, FacetProblem) and problem.faces is not None
        return "global" if exact else "relaxation"


def _assemble(blocks: Blocks) -> Float[Array, "P pq pq"]:
    """``[[U, V], [V^T, W]]``."""
    top = jnp.concatenate([blocks.U, blocks.V], axis=2)
    return jnp.concatenate([top, jnp.concatenate([jnp.swapaxes(blocks.V, 1, 2), blocks.W], axis=2)], axis=1)
