"""What the solvers of the cone-constrained ReLU program share: groups, objective, bounds, networks.

    min_{V, W}  loss(sum_i D_i Z (V_i - W_i), Y) + beta sum_i (||V_i|| + ||W_i||)
    subject to  (2 D_i - I) Z V_i >= 0,  (2 D_i - I) Z W_i >= 0

(Pilanci and Ergen 2020.) With one column q = 1, or with groups per column, every feasible point is a network of
the same objective. For q > 1 columns (several outputs, or output weights per position) and shared groups (one
Frobenius norm per block) the value is that of no network and bounds none. Inside the solvers V and W are
stacked as Q = [V; W] of shape (2P, p, q).
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
from jaxcvx.numerics.fold import fold_marked
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import shrink_groups
from jaxcvx.proximal.polyhedral_cone import (
    ActiveRows,
    face_projector,
    lifted_by,
    no_active_rows,
    project_cone,
)
from jaxcvx.solvers.core.solution import Outcome, Parts
from jaxcvx.solvers.gated.program import gated_from_network, zero_blocks

Stack = Float[Array, "q p c"]


_CHUNK = 16  # blocks projected at a time


class ConeProgram(NamedTuple):
    """The program's maps on stacked variables, for a given problem."""

    operator: CellOperator
    signs: Float[Array, "q n"]
    shared: bool

    def forward(self, Q: Stack) -> Float[Array, "n c"]:
        """Predictions of stacked blocks."""
        half = Q.shape[0] // 2
        return self.operator.forward(Q[:half] - Q[half:])

    def adjoint(self, R: Float[Array, "n c"]) -> Stack:
        """Adjoint of ``forward``."""
        blocks = self.operator.adjoint(R)
        return jnp.concatenate([blocks, -blocks])

    def norms(self, Q: Stack) -> Float[Array, "q 1 g"]:
        """Group norms, broadcastable: g = 1 for shared groups, c for groups per output."""
        square = jnp.sum(Q**2, axis=(1, 2) if self.shared else 1, keepdims=True)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

    def inner(self, Q: Stack, T: Stack) -> Float[Array, "q 1 g"]:
        """Group inner products, broadcastable."""
        return jnp.sum(Q * T, axis=(1, 2) if self.shared else 1, keepdims=True)

    def shrink(self, Q: Stack, threshold: Float[Array, ""]) -> Stack:
        """Group soft-thresholding."""
        if self.shared:
            return shrink_groups(Q, threshold)
        q, p, c = Q.shape
        columns = jnp.moveaxis(Q, 2, 1).reshape(q * c, p, 1)
        return jnp.moveaxis(shrink_groups(columns, threshold).reshape(q, c, p), 1, 2)

    def project(self, Q: Stack, warm: ActiveRows) -> tuple[Stack, ActiveRows]:
        """Column-wise projection on the cones, started from active rows of shape (q, c, ...)."""

        def column(signs, target, start):
            return project_cone(self.operator.Z, signs, target, warm=start)

        cell = jax.vmap(column, in_axes=(None, 1, 0), out_axes=(1, 0))
        return jax.vmap(cell)(self.signs, Q, warm)

    def project_above(self, Q: Stack, warm: ActiveRows, threshold: Float[Array, ""]) -> tuple[Stack, ActiveRows]:
        """``project`` for the groups whose projection may be longer than ``threshold``, the others by a bound.

        For any multipliers l >= 0 of a block's constraints A the projection of v is no longer than v + A^T l. Where
        that is no longer than the threshold for the multipliers of ``warm``, it is returned as it is. Most groups of
        a solution are zero, so few projections are left, which are made in chunks, and no further than to where a
        group of one column is short enough.
        """
        Z = self.operator.Z
        lifted = jax.vmap(lifted_by, in_axes=(None, 0, 0, 0))(Z, self.signs, Q, warm)
        long = jnp.any(self.norms(lifted) > threshold * (1 - 16 * jnp.finfo(Q.dtype).eps), axis=(1, 2))
        enough = None if self.shared and Q.shape[2] > 1 else threshold
        cell = jax.vmap(
            lambda s, v, w: project_cone(Z, s, v, warm=w, enough=enough), in_axes=(None, 1, 0), out_axes=(1, 0)
        )

        def some(carry, index):
            found = jax.vmap(cell)(self.signs[index], Q[index], jax.tree.map(lambda a: a[index], carry[1]))
            return jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), carry, found)

        return fold_marked(long, _CHUNK, some, (lifted, warm))

    def no_rows(self, Q: Stack) -> ActiveRows:
        """Cold start for ``project``."""
        q, p, c = Q.shape
        return no_active_rows(p, Q.dtype, (q, c))

    def objective(self, problem: Problem, Q: Stack) -> Float[Array, ""]:
        """Value of the program at Q."""
        return problem.loss.value(self.forward(Q), problem.Y) + problem.beta * jnp.sum(self.norms(Q))


def cone_program(problem: Problem, grouping: str) -> ConeProgram:
    """The maps for ``problem``; one column makes the groupings equal, the cheaper one is taken."""
    operator = problem.operator
    shared = grouping == "shared" or problem.num_columns == 1
    return ConeProgram(operator, jnp.tile(operator.signs(), (2, 1)), shared)


def stack(params: tuple[Array, Array]) -> Stack:
    """(V, W) as one array."""
    return jnp.concatenate(params)


def unstack(Q: Stack) -> tuple[Array, Array]:
    """The pair (V, W)."""
    half = Q.shape[0] // 2
    return Q[:half], Q[half:]


def cone_optimality(problem: Problem, params: tuple[Array, Array], grouping: str) -> Optimality:
    """What a solution (V, W) is optimal for: zero groups stay zero, rows that push (multiplier > 0) stay active."""

    def objective(problem: Problem, params: tuple[Array, Array]) -> Array:
        return cone_program(problem, grouping).objective(problem, stack(params))

    def face(problem: Problem, active: tuple[Array, ActiveRows], params: tuple[Array, Array]) -> tuple[Array, Array]:
        live, rows = active
        program = cone_program(problem, grouping)

        def column(signs, rows, x):
            return face_projector(program.operator.Z, signs, rows) @ x

        cell = jax.vmap(column, in_axes=(None, 0, 1), out_axes=1)
        return unstack(jnp.where(live, jax.vmap(cell)(program.signs, rows, stack(params)), 0.0))

    program, Q = cone_program(problem, grouping), stack(params)
    norms = program.norms(Q)
    gradient = program.adjoint(problem.loss.grad(program.forward(Q), problem.Y))
    # A solution is a multiple of the projection of this; the step makes the two terms of one size.
    step = norms / jnp.where(problem.beta > 0, problem.beta, 1.0)
    _, rows = program.project(Q - step * gradient, program.no_rows(Q))
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
    """Objective and bounds at the returned (V, W); R comes from the weights and from the solver."""
    program = cone_program(problem, grouping)
    V, W = outcome.params
    Q = stack((V, W))
    network = network_from_cone(problem, V, W)
    residuals = dual_residuals(problem, program.forward(Q), outcome.dual)
    own, norms = [], []
    operator, grouping = program.operator.carefully(), "shared" if program.shared else "per-output"
    live = jnp.any((V != 0) | (W != 0), axis=(1, 2))[: operator.num_cells]  # where the norm is beta at a solution
    rows = None
    for R in residuals:
        norm, rows = search_cones(operator, R, grouping, rows=rows, first=live)
        own.append(scaled_bound(problem, R, norm))
        norms.append(norm if problem.num_columns == 1 else relaxed_dual_norm(operator, R))
    lower = bound_from_residuals(problem, network, residuals, norms)
    return Parts(network, program.objective(problem, Q), jnp.max(jnp.stack(own)), lower)
