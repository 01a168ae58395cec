"""What every solver of the gated ReLU program shares: objective, dual value, network.

    min_W  loss(sum_i D_i Z W_i, Y) + beta sum_i ||W_i||_F

(Mishkin, Sahiner and Pilanci 2022.) Its dual value at a residual R scaled to ``max_i ||Z^T D_i R||_F <= beta``
bounds the gated optimum, and the training objective of every ReLU network whose neurons lie in the
cells: with V_i = sum_j u_j v_j^T over a cell's neurons, ``||V_i||_F <= sum_j ||u_j|| ||v_j||``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import bound_from_residuals, dual_residuals, relaxed_dual_norm, scaled_bound
from jaxcvx.networks.network import Network
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.penalties.base import Penalty
from jaxcvx.penalties.groups import FrobeniusGroups
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.solvers.core.solution import Outcome, Parts
from jaxcvx.solvers.neurons.rounding import round_gated

Blocks = Float[Array, "P p c"]

FROBENIUS = FrobeniusGroups()


def gated_objective(
    problem: Problem, W: Blocks, F: Float[Array, "n c"], penalty: Penalty = FROBENIUS
) -> Float[Array, ""]:
    """Value of the gated program at W, whose predictions are F."""
    return problem.loss.value(F, problem.Y) + problem.beta * penalty.value(W)


def gated_bound(problem: Problem, R: Float[Array, "n c"], penalty: Penalty = FROBENIUS) -> Float[Array, ""]:
    """Dual value of the gated program at the best multiple of R."""
    return scaled_bound(problem, R, penalty.dual_norm(problem.operator.adjoint(R)))


def evaluate_gated(
    problem: Problem, outcome: Outcome, penalty: Penalty = FROBENIUS, *, room: int | None = None
) -> Parts:
    """Objective, bounds and network at the returned weights.

    Dual residuals are the one of the weights and, if there is one, the solver's own; the better bound counts.

    Args:
      problem: the problem.
      outcome: weights (P, p, q) and a dual residual or None.
      penalty: the program's penalty.
      room: number of blocks to round to a network, at least the number of nonzero blocks; None for all.
    """
    operator = problem.operator
    F = operator.forward(outcome.params)
    network = round_gated(problem, outcome.params, room)
    residuals = dual_residuals(problem, F, outcome.dual)
    careful = operator.carefully()
    norms = [penalty.dual_norm(careful.adjoint(R)) for R in residuals]
    bounds = [scaled_bound(problem, R, norm) for R, norm in zip(residuals, norms, strict=True)]
    neurons = norms if penalty.bounds_neurons else [relaxed_dual_norm(careful, R) for R in residuals]
    lower = bound_from_residuals(problem, network, residuals, neurons)
    return Parts(network, gated_objective(problem, outcome.params, F, penalty), jnp.max(jnp.stack(bounds)), lower)


def live_room(problem: Problem, W: Blocks) -> int | None:
    """A power of two that the number of nonzero cells does not exceed, so that few programs are compiled; or None."""
    cells = np.asarray(W)[: problem.operator.num_cells]
    room = max(16, 1 << int(np.count_nonzero(np.any(cells != 0, axis=(1, 2))) - 1).bit_length())
    return room if room < len(cells) else None


_MAX_ROWS = 4096  # up to which an n x n matrix is factorised


def gated_optimality(W: Blocks) -> Optimality:
    """What a solution W of the gated program is optimal for, its zero blocks held at zero."""

    def objective(problem: Problem, W: Blocks) -> Array:
        return gated_objective(problem, W, problem.operator.forward(W))

    live = jnp.any(W != 0, axis=(1, 2), keepdims=True)
    return Optimality(objective, lambda problem, live, W: jnp.where(live, W, 0.0), live, inverse_hessian)


def inverse_hessian(problem: Problem, W: Blocks) -> Callable[[Blocks], Blocks]:
    """The inverse of the Hessian at a solution W, its zero blocks held at zero: a function of blocks.

    The Hessian is ``A^T A + M - U U^T``: A is the map of the live blocks, M = beta / ||W_i||_F on each of them, U has
    one column per live block, along W_i. So an n x n factorisation and one of the size of the number of cells do,
    however many weights there are (twice Woodbury). Exact for the squared loss; for others the loss counts as squared,
    scaled by its curvature, and beyond 4096 samples as zero, which makes it a preconditioner.
    """
    operator, norms = problem.operator, group_norms(W)
    live = norms > 0
    curvature = problem.loss.curvature or 1.0
    scale = jnp.where(live, norms / jnp.maximum(problem.beta, jnp.finfo(W.dtype).tiny), 0.0)  # of M^-1
    unit = W / jnp.where(live, norms, 1.0)[:, None, None]

    def divide(X):
        return scale[:, None, None] * X

    def blocks(X, inner):
        return jnp.where(live[:, None, None], inner(X), X)

    n = problem.num_samples
    if n > _MAX_ROWS:
        return lambda X: blocks(X, divide)
    K = jnp.eye(n, dtype=W.dtype) / curvature + operator.gram(weights=scale)
    factor = cho_factor(K)

    def solve_without(X):
        Y = divide(X)
        return Y - divide(operator.adjoint(cho_solve(factor, operator.forward(Y))))

    root = jnp.sqrt(scale)
    along = operator.each_block(root[:, None, None] * unit)
    solved = cho_solve(factor, along.reshape(n, -1)).reshape(along.shape)
    small = jnp.einsum("nqc,nrc->qr", along, solved)
    damping = 1e-2 * jnp.finfo(W.dtype).eps ** 0.5 * jnp.mean(jnp.diagonal(small))
    inner = cho_factor(small + jnp.diag(jnp.where(live, damping, 1.0)))
    spread = jnp.where(live, 1 / jnp.where(live, root, 1.0), 0.0)[:, None, None] * unit  # U

    def solve_live(X):
        first = solve_without(jnp.where(live[:, None, None], X, 0.0))
        weights = cho_solve(inner, jnp.einsum("qpc,qpc->q", spread, first))
        return first + solve_without(weights[:, None, None] * spread)

    return lambda X: blocks(X, solve_live)


def zero_blocks(problem: Problem) -> Blocks:
    """The zero point of the program."""
    operator = problem.operator
    columns = operator.readout.columns(problem.num_outputs)
    return jnp.zeros((operator.num_blocks, operator.Z.shape[1], columns), problem.X.dtype)


def gated_from_network(problem: Problem, network: Network) -> Blocks:
    """Blocks that collect a network's neurons by the cell that they lie in, others dropped: a warm start.

    Solutions lie on boundaries of cells, so rows at which a neuron is zero up to rounding agree with any cell.
    """
    operator = problem.operator
    values = network.hidden @ operator.Z.T
    sizes = jnp.linalg.norm(network.hidden, axis=1)[:, None] * jnp.linalg.norm(operator.Z, axis=1)
    level = jnp.where(jnp.abs(values) <= 64 * jnp.finfo(values.dtype).eps * sizes, 0.0, jnp.sign(values))
    cells = operator.cone_masks
    signs = 2 * cells.astype(level.dtype) - 1
    against = jnp.sum(jnp.abs(level), axis=1)[:, None] - level @ signs.T  # twice the number of rows that disagree
    exact = jnp.min(against, axis=1) == 0
    product = network.hidden[:, :, None] * network.output[:, None, :]
    blocks = jax.ops.segment_sum(
        jnp.where(exact[:, None, None], product, 0.0), jnp.argmin(against, axis=1), cells.shape[0]
    )
    if not operator.linear:
        return blocks
    skip = network.skip if network.skip is not None else jnp.zeros_like(blocks[0])
    return jnp.concatenate([blocks, skip[None]])
