"""The cone-constrained ReLU program: its maps, objective, bounds, and networks from its solutions.

    min_{V, W}  loss(sum_i D_i Z (V_i - W_i), Y) + beta sum_i (||V_i|| + ||W_i||)
    subject to  (2 D_i - I) Z V_i >= 0,  (2 D_i - I) Z W_i >= 0

(Pilanci and Ergen 2020.) With one column q = 1, or with one group per column, every feasible point is a network of
the same objective. With q > 1 columns (several outputs, or output weights per position) and shared groups (one
Frobenius norm per block) the value belongs to no network and bounds no network. The solvers work on the stacked
variable Q = [V; W] of shape (2P, p, q).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import (
    bound_from_residuals,
    dual_residuals,
    relaxed_dual_norm,
    scaled_bound,
    search_cones,
)
from jaxcvx.networks.network import Network
from jaxcvx.networks.recovery import network_from_cone
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.numerics.safe import divisor
from jaxcvx.operators.cells import CellOperator
from jaxcvx.penalties.cones import ConeGroups
from jaxcvx.penalties.groups import ColumnGroups, FrobeniusGroups
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import ActiveRows, face_projector
from jaxcvx.solvers.core.solution import Outcome, Parts
from jaxcvx.solvers.gated.program import gated_from_network, zero_blocks

Stack = Float[Array, "q p c"]


class ConeProgram(NamedTuple):
    """The program's linear map and penalty on stacked variables, for a given problem."""

    operator: CellOperator
    penalty: ConeGroups

    def forward(self, Q: Stack) -> Float[Array, "n c"]:
        """Predictions of stacked blocks."""
        half = Q.shape[0] // 2
        return self.operator.forward(Q[:half] - Q[half:])

    def adjoint(self, R: Float[Array, "n c"]) -> Stack:
        """Adjoint of ``forward``."""
        blocks = self.operator.adjoint(R)
        return jnp.concatenate([blocks, -blocks])

    def objective(self, problem: Problem, Q: Stack) -> Float[Array, ""]:
        """Value of the program at Q."""
        return problem.loss.value(self.forward(Q), problem.targets) + problem.beta * self.penalty.value(Q)


def cone_program(problem: Problem, grouping: str) -> ConeProgram:
    """The program for ``problem``. With one column both groupings are the same, and the cheaper one is taken."""
    operator = problem.operator
    groups = FrobeniusGroups() if grouping == "shared" or problem.num_columns == 1 else ColumnGroups()
    return ConeProgram(operator, ConeGroups(operator.Z, jnp.tile(operator.signs(), (2, 1)), groups))


def stack(params: tuple[Array, Array]) -> Stack:
    """(V, W) as one array."""
    return jnp.concatenate(params)


def unstack(Q: Stack) -> tuple[Array, Array]:
    """The pair (V, W)."""
    half = Q.shape[0] // 2
    return Q[:half], Q[half:]


def cone_optimality(problem: Problem, params: tuple[Array, Array], grouping: str) -> Optimality:
    """Optimality of a solution (V, W) among its neighbours, from which its derivatives follow.

    Zero groups stay zero, and constraint rows with a positive multiplier stay active.
    """

    def objective(problem: Problem, params: tuple[Array, Array]) -> Array:
        return cone_program(problem, grouping).objective(problem, stack(params))

    def face(problem: Problem, active: tuple[Array, ActiveRows], params: tuple[Array, Array]) -> tuple[Array, Array]:
        live, rows = active
        program = cone_program(problem, grouping)

        def column(signs, rows, x):
            return face_projector(program.penalty.rows, signs, rows) @ x

        cell = jax.vmap(column, in_axes=(None, 0, 1), out_axes=1)
        return unstack(jnp.where(live, jax.vmap(cell)(program.penalty.signs, rows, stack(params)), 0.0))

    program, Q = cone_program(problem, grouping), stack(params)
    norms = program.penalty.group_norms(Q)
    gradient = program.adjoint(problem.loss.grad(program.forward(Q), problem.targets))
    # A solution is a multiple of the projection of Q - step * gradient. The step gives both terms the same size.
    step = norms / divisor(problem.beta)
    _, rows = program.penalty.project(Q - step * gradient, program.penalty.start_memory(Q))
    return Optimality(objective, face, (norms > 0, rows))


def zero_pair(problem: Problem) -> tuple[Array, Array]:
    """The zero point of the program."""
    zero = zero_blocks(problem)
    return zero, zero


def pair_from_network(problem: Problem, network: Network) -> tuple[Array, Array]:
    """(V, W) that collects a network's neurons by cell, split by the sign of each output weight."""
    positive = gated_from_network(problem, _with_output(network, jnp.maximum(network.output, 0.0)))
    negative = gated_from_network(problem, _with_output(network, jnp.maximum(-network.output, 0.0)))
    if problem.operator.linear:
        negative = negative.at[-1].set(0.0)
    return positive, negative


def _with_output(network: Network, output: Array) -> Network:
    return Network(network.hidden, output, network.skip, network.features)


def evaluate_cone(problem: Problem, outcome: Outcome, grouping: str) -> Parts:
    """Objective, bounds and network at the returned (V, W).

    Dual residuals are the one of the weights and, if there is one, the solver's own; the better bound counts.
    """
    program = cone_program(problem, grouping)
    V, W = outcome.params
    Q = stack((V, W))
    network = network_from_cone(problem, V, W)
    residuals = dual_residuals(problem, program.forward(Q), outcome.dual)
    bounds, norms = [], []
    operator = program.operator.carefully()
    live = jnp.any((V != 0) | (W != 0), axis=(1, 2))[: operator.num_cells]  # where the norm is beta at a solution
    rows = None
    for R in residuals:
        norm, rows = search_cones(operator, R, grouping, rows=rows, first=live)
        bounds.append(scaled_bound(problem, R, norm))
        norms.append(norm if problem.num_columns == 1 else relaxed_dual_norm(operator, R))
    lower = bound_from_residuals(problem, network, residuals, norms)
    return Parts(network, program.objective(problem, Q), jnp.max(jnp.stack(bounds)), lower)
