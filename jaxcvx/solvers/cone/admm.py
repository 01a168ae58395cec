"""ConeADMM: the ReLU network's convex program with exact cone constraints."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.numerics.rounding import spectral_norm
from jaxcvx.numerics.safe import divide, divisor
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import ActiveRows
from jaxcvx.solvers.cone.program import (
    ConeProgram,
    Stack,
    cone_optimality,
    cone_program,
    evaluate_cone,
    pair_from_network,
    stack,
    unstack,
    zero_pair,
)
from jaxcvx.solvers.cone.proximal_gradient import ConeProximal
from jaxcvx.solvers.cone.ssnal import ConeNewton
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap

_NEWTON_MAX_ROWS = 4096  # size n c of the Newton system
_FIRST_STEPS = 100  # of ADMM, before Newton is tried at any gap; measured from 100 to 1000
_NEWTON_MAX_WORK = 3e8  # entries of all cells' constraint matrices together


class _Cache(NamedTuple):
    """Factorisations that are made once, because they do not depend on the penalty parameters rho."""

    cone_rows: Float[Array, "N p"]  # scaled rows of the constraints
    inverse: Float[Array, "p p"]  # (I + cone_rows^T cone_rows)^{-1}, the same for all cells
    vectors: Float[Array, "n k"]  # eigenvectors of B (I (x) inverse) B^T, k = min(n, P p)
    values: Float[Array, k]


class _State(NamedTuple):
    params: tuple[Array, Array]  # feasible (V, W), made at each check
    group: Stack  # copy that carries the group norms
    slack: Float[Array, "q N c"]  # copy that carries the signs
    fit: Float[Array, "n c"]  # copy that carries the loss (Y for the squared loss)
    dual_group: Stack
    dual_slack: Float[Array, "q N c"]
    dual_fit: Float[Array, "n c"]
    rho: Array
    rho_fit: Array
    primal: Array  # relative residuals of the last step, from which rho adapts
    dual: Array
    primal_fit: Array
    dual_fit_change: Array
    rows: ActiveRows
    cache: _Cache
    R: Float[Array, "n c"]
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class ConeADMM(Solver):
    """Solves the cone-constrained program and chooses its method: ADMM then Newton, or proximal gradient.

    The optimum of the program over all cells is the global optimum of training.

    With ``phases="auto"``, the squared loss and moderate sizes (n c <= 4096), ADMM runs until ``switch_gap``, for at
    most 100 steps, and a semismooth Newton method finds the last digits (:mod:`jaxcvx.solvers.cone.ssnal`). Other
    smooth losses and larger problems are solved by accelerated proximal gradient with exact projections on the cones
    instead (:mod:`jaxcvx.solvers.cone.proximal_gradient`), whose bounds close in a tenth of ADMM's steps. The hinge
    loss is solved by ADMM alone.

    ADMM (Boyd et al. 2011) has three kinds of copies here: groups, constraint slacks, and predictions. Since
    (2 D_i - I)^2 = I, the quadratic of every cell is the same p x p matrix. The cells are coupled through the
    predictions by one n x n matrix of rank at most P p, which is diagonalised once, so the penalty parameters adapt at
    no cost. The iteration is over-relaxed and batched over cells.

    ``solution.params`` is a pair (V, W) of (P, p, c) arrays, projected on the cones and so feasible to rounding. With a
    skip connection their last blocks are free, and V - W is the connection. For c = 1 (and one output weight per
    neuron), or ``grouping="per-output"``, the program's value is the network's objective. For c > 1, or one output
    weight per position (ConvFlatten), with shared Frobenius groups the program's value is below its network's and **no
    bound on the training problem**; ``solution.lower_bound`` then comes from a separate relaxation.

    It works under jit and vmap, in float32 (gaps to about 1e-5) and float64, for every loss, hinge included.
    Under grad, with a smooth loss, ``params`` and ``objective`` carry derivatives. Neighbouring cells can share a
    neuron on their common facet, and then (V, W) is not unique. Only predictions and the objective have derivatives
    then, because they do not depend on the sharing; they are computed from the least change of (V, W).

    Attributes:
      tol: relative program gap to reach.
      max_steps: limit per phase.
      check_every: iterations between evaluations of the gap at a feasible point.
      grouping: "shared" (one Frobenius norm per block) or "per-output" (one norm per block and column).
      phases: "auto", or "admm" for ADMM alone.
      switch_gap: relative gap at which the Newton phase takes over.
      relaxation: over-relaxation factor in (0, 2).
      cone_weight: weight of the constraint copies relative to the group copies.
    """

    tol: float = 1e-6
    max_steps: int = 20_000
    check_every: int = 50
    grouping: str = "shared"
    phases: str = "auto"
    switch_gap: float = 1e-3
    relaxation: float = 1.6
    cone_weight: float = 100.0

    keeps_better_start = True
    differentiable: ClassVar[bool] = True

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        return (self,) if self.phases == "admm" else self._choose_phases(problem)

    def _choose_phases(self, problem: Problem) -> tuple[Solver, ...]:
        """ADMM for the hinge; ADMM, then Newton for small problems with squared loss; else proximal gradient."""
        work = 2.0 * problem.operator.num_blocks * problem.num_columns * problem.rows.size
        small = problem.Y.size <= _NEWTON_MAX_ROWS and work <= _NEWTON_MAX_WORK
        if not problem.loss.is_smooth:
            return (self,)
        if not small or not problem.loss.is_quadratic:
            return (ConeProximal(self.tol, self.max_steps, self.check_every, self.grouping),)
        first = dataclasses.replace(self, tol=self.switch_gap, max_steps=min(self.max_steps, _FIRST_STEPS))
        return (first, ConeNewton(tol=self.tol, grouping=self.grouping))

    def validate(self, problem: Problem) -> None:
        if self.grouping not in ("shared", "per-output"):
            raise invalid("grouping", repr(self.grouping), "'shared' or 'per-output'")
        if self.phases not in ("auto", "admm"):
            raise invalid("phases", repr(self.phases), "'auto' or 'admm'")
        if not 0 < self.relaxation < 2:
            raise invalid("relaxation", self.relaxation, "a number between 0 and 2")
        if not 0 < self.cone_weight < float("inf"):
            raise invalid("cone_weight", self.cone_weight, "a positive number")

    def initial_params(self, problem: Problem, key: Any) -> tuple[Array, Array]:
        return zero_pair(problem)

    def params_from_network(self, problem: Problem, network: Network) -> tuple[Array, Array]:
        return pair_from_network(problem, network)

    def init(self, problem: Problem, key: Any, params: tuple[Array, Array]) -> _State:
        program, Y = cone_program(problem, self.grouping), problem.Y
        Z = program.operator.Z
        cache = _factorise(program, self.cone_weight)
        Q = stack(params)
        one = jnp.ones((), Y.dtype)
        size = jnp.maximum(jnp.linalg.norm(Y), jnp.finfo(Y.dtype).tiny)
        top = problem.readout.gain**0.5 * spectral_norm(Z)
        scale = jnp.where(problem.beta > 0, problem.beta, 1e-3 * top)
        rho = jnp.maximum(3 * scale * top / size, jnp.finfo(Y.dtype).tiny)
        slack = _non_negative(program, _cone(program, cache, Q))
        fit = Y if problem.loss.is_quadratic else program.forward(Q)
        gradient = problem.loss.grad(program.forward(Q), problem.targets)
        rho_fit = one * problem.curvature
        return _State(
            params=params,
            group=Q,
            slack=slack,
            fit=fit,
            dual_group=jnp.zeros_like(Q),
            dual_slack=jnp.zeros_like(slack),
            dual_fit=jnp.zeros_like(fit),
            rho=rho,
            rho_fit=rho_fit,
            primal=one,
            dual=one,
            primal_fit=one,
            dual_fit_change=one,
            rows=program.penalty.start_memory(Q),
            cache=cache,
            R=-gradient,
            step=jnp.asarray(0, jnp.int32),
            residual=jnp.inf * one,
            objective=one,
            bound=one,
        )

    def step(self, problem: Problem, state: _State) -> _State:
        program, cache, Y = cone_program(problem, self.grouping), state.cache, problem.Y
        squared = problem.loss.is_quadratic
        weight = 1.0 if squared else state.rho_fit
        wanted = Y if squared else state.fit - state.dual_fit

        pulled = state.group - state.dual_group + _cone_adjoint(program, cache, state.slack - state.dual_slack)
        mean = jnp.einsum("pr,qrc->qpc", cache.inverse, pulled)
        error = wanted - program.forward(mean)
        pull = (weight / state.rho) * cache.values
        error = error - cache.vectors @ ((pull / (1 + pull))[:, None] * (cache.vectors.T @ error))
        step = jnp.einsum("pr,qrc->qpc", cache.inverse, program.adjoint(error))
        Q = mean + (weight / state.rho) * step

        over = self.relaxation
        cone = _cone(program, cache, Q)
        relaxed, relaxed_cone = over * Q + (1 - over) * state.group, over * cone + (1 - over) * state.slack
        group = program.penalty.groups.prox(relaxed + state.dual_group, problem.beta / state.rho)
        slack = _non_negative(program, relaxed_cone + state.dual_slack)
        dual_group = state.dual_group + relaxed - group
        dual_slack = state.dual_slack + relaxed_cone - slack

        primal = jnp.sqrt(jnp.sum((Q - group) ** 2) + jnp.sum((cone - slack) ** 2))
        change = group - state.group + _cone_adjoint(program, cache, slack - state.slack)
        tiny = jnp.finfo(Y.dtype).tiny
        state = state._replace(
            group=group,
            slack=slack,
            dual_group=dual_group,
            dual_slack=dual_slack,
            primal=primal / jnp.maximum(jnp.sqrt(jnp.sum(group**2) + jnp.sum(slack**2)), tiny),
            dual=jnp.linalg.norm(change) / jnp.maximum(jnp.linalg.norm(dual_group), tiny),
            step=state.step + 1,
        )
        if squared:
            return state
        F = program.forward(Q)
        relaxed_fit = over * F + (1 - over) * state.fit
        fit = problem.loss.prox(relaxed_fit + state.dual_fit, problem.targets, 1 / state.rho_fit)
        dual_fit = state.dual_fit + relaxed_fit - fit
        return state._replace(
            fit=fit,
            dual_fit=dual_fit,
            primal_fit=jnp.linalg.norm(F - fit) / jnp.maximum(jnp.linalg.norm(fit), tiny),
            dual_fit_change=jnp.linalg.norm(fit - state.fit) / jnp.maximum(jnp.linalg.norm(dual_fit), tiny),
        )

    def check(self, problem: Problem, state: _State) -> _State:
        program, loss, Y = cone_program(problem, self.grouping), problem.loss, problem.targets
        Q, rows = program.penalty.project_above(state.group, state.rows, jnp.zeros((), problem.dtype))
        objective = program.objective(problem, Q)
        # Any non-negative multipliers bound the dual norm; those of the slack copies cost nothing.
        constrained = program.penalty.signs[:, :, None] != 0
        multipliers = jnp.where(constrained, jnp.maximum(-state.rho * state.dual_slack, 0.0), 0.0)
        lift = _cone_adjoint(program, state.cache, multipliers)
        residuals = [-loss.grad(program.forward(Q), Y)]
        if not loss.is_quadratic:
            residuals.append(loss.project_dual(-state.rho_fit * state.dual_fit, Y))
        dual_norm = program.penalty.groups.dual_norm
        bounds = [scaled_bound(problem, R, dual_norm(program.adjoint(R) + lift)) for R in residuals]
        best = jnp.argmax(jnp.stack(bounds))
        state = _adapt(state)
        bound = bounds[0] if len(bounds) == 1 else jnp.stack(bounds)[best]
        return state._replace(
            params=unstack(Q),
            rows=rows,
            R=residuals[0] if len(bounds) == 1 else jnp.stack(residuals)[best],
            objective=objective,
            bound=bound,
            residual=relative_gap(objective, bound),
        )

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, state.R)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        return evaluate_cone(problem, outcome, self.grouping)

    def optimality(self, problem: Problem, params: tuple[Array, Array]) -> Optimality | None:
        smooth = problem.loss.curvature is not None
        return cone_optimality(problem, params, self.grouping) if smooth else None

    def scope(self, problem: Problem) -> str:
        assert problem.arrangements is not None
        if not problem.arrangements.complete:
            return "sampled-cells"
        return "global" if problem.num_columns == 1 else "relaxation"


def _factorise(program: ConeProgram, cone_weight: float) -> _Cache:
    operator = program.operator
    Z = operator.Z
    norms = jnp.linalg.norm(Z, axis=1, keepdims=True)
    # Zero rows constrain nothing and do not count. Sharding pads the data with such rows.
    weight = cone_weight * Z.shape[1] / jnp.maximum(jnp.sum(norms > 0), 1).astype(Z.dtype)
    rows = jnp.sqrt(weight) * divide(Z, norms)
    identity = jnp.eye(Z.shape[1], dtype=Z.dtype)
    inverse = jnp.linalg.inv(identity + rows.T @ rows)
    n, width = Z.shape[0] // operator.readout.positions, operator.num_blocks * Z.shape[1]
    if width >= n or operator.readout.kind == "flatten":
        values, vectors = jnp.linalg.eigh(2 * operator.gram(inverse))
        return _Cache(rows, inverse, vectors, jnp.maximum(values, 0.0))
    root = jnp.linalg.cholesky(inverse)
    A = 2**0.5 * operator.each_block(jnp.broadcast_to(root, (operator.num_blocks, *root.shape))).reshape(n, width)
    values, right = jnp.linalg.eigh(A.T @ A)
    values = jnp.maximum(values, 0.0)
    # Vectors of small eigenvalues are inaccurate, and are left out because they contribute next to nothing.
    large = values > width * jnp.finfo(Z.dtype).eps * values[-1]
    vectors = (A @ right) * jnp.where(large, 1 / jnp.sqrt(divisor(values)), 0.0)
    return _Cache(rows, inverse, vectors, values)


def _cone(program: ConeProgram, cache: _Cache, Q: Stack) -> Float[Array, "q N c"]:
    """Scaled constraint values (2 D - I) Z Q, to be >= 0 (in a skip connection's block: free)."""
    return jnp.einsum("np,qpc->qnc", cache.cone_rows, Q) * _copy_signs(program)


def _cone_adjoint(program: ConeProgram, cache: _Cache, S: Float[Array, "q N c"]) -> Stack:
    return jnp.einsum("np,qnc->qpc", cache.cone_rows, S * _copy_signs(program))


def _copy_signs(program: ConeProgram) -> Float[Array, "q N 1"]:
    """Signs of the slack copies. A skip connection has copies too, unconstrained, so all blocks have one shape."""
    return jnp.where(program.penalty.signs == 0, 1.0, program.penalty.signs)[:, :, None]


def _non_negative(program: ConeProgram, S: Float[Array, "q N c"]) -> Float[Array, "q N c"]:
    return jnp.where((program.penalty.signs == 0)[:, :, None], S, jnp.maximum(S, 0.0))


def _adapt(state: _State) -> _State:
    """Balance primal against dual residuals by changing the penalty parameters, in the first 4000 steps only.

    The scaled dual variables are rescaled with them.
    """
    early = state.step <= 4000

    def factor(primal, dual):
        tiny = jnp.finfo(primal.dtype).tiny
        ratio = jnp.sqrt(primal / jnp.maximum(dual, tiny))
        useful = early & (state.step > 0) & jnp.isfinite(ratio) & ((ratio > 2) | (ratio < 0.5))
        return jnp.where(useful, jnp.clip(ratio, 0.2, 5.0), 1.0)

    rho, rho_fit = factor(state.primal, state.dual), factor(state.primal_fit, state.dual_fit_change)
    return state._replace(
        rho=state.rho * rho,
        dual_group=state.dual_group / rho,
        dual_slack=state.dual_slack / rho,
        rho_fit=state.rho_fit * rho_fit,
        dual_fit=state.dual_fit / rho_fit,
    )
