"""The gated ReLU program of any penalty h: objective, dual value, network, derivatives.

    min_W  loss(sum_i D_i Z W_i, Y) + beta h(W)

(Mishkin, Sahiner and Pilanci 2022.) The default penalty is ``h(W) = sum_i ||W_i||_F``. Its dual value at a residual R
scaled to ``max_i ||Z^T D_i R||_F <= beta`` bounds the gated optimum. It also bounds the training objective of every
ReLU network whose neurons lie in the cells: with V_i = sum_j u_j v_j^T over a cell's neurons,
``||V_i||_F <= sum_j ||u_j|| ||v_j||``.
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
from jaxcvx.numerics.safe import divide
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
    return problem.loss.value(F, problem.targets) + problem.beta * penalty.value(W)


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
    """A power of two, at least the number of nonzero cells: few values, so few compilations. None for all cells."""
    cells = np.asarray(W)[: problem.operator.num_cells]
    room = max(16, 1 << int(np.count_nonzero(np.any(cells != 0, axis=(1, 2))) - 1).bit_length())
    return room if room < len(cells) else None


_MAX_ROWS = 4096  # largest n for which an n x n matrix is factorised


def gated_optimality(W: Blocks) -> Optimality:
    """Optimality of a solution W of the gated program among blocks with the same zeros; its derivatives follow."""

    def objective(problem: Problem, W: Blocks) -> Array:
        return gated_objective(problem, W, problem.operator.forward(W))

    live = jnp.any(W != 0, axis=(1, 2), keepdims=True)
    return Optimality(objective, lambda problem, live, W: jnp.where(live, W, 0.0), live, inverse_hessian)


def inverse_hessian(problem: Problem, W: Blocks) -> Callable[[Blocks], Blocks]:
    """The inverse of the Hessian at a solution W as a function of blocks; W's zero blocks are held at zero.

    The Hessian is ``A^T A + M - U U^T``: A is the map of the nonzero blocks, M = beta / ||W_i||_F on each of them, and
    U has one column per nonzero block, along W_i. By Woodbury's formula, applied twice, an n x n factorisation and one
    of the size of the number of cells suffice for any number of weights. The result is exact for the squared loss. Any
    other loss is replaced by a squared loss of its curvature, and beyond 4096 samples by zero; the result is then a
    preconditioner.
    """
    operator, norms = problem.operator, group_norms(W)
    live = norms > 0
    curvature = problem.curvature
    scale = jnp.where(live, norms / jnp.maximum(problem.beta, jnp.finfo(W.dtype).tiny), 0.0)  # of M^-1
    unit = divide(W, norms[:, None, None])

    def divide_by_M(X):
        return scale[:, None, None] * X

    def blocks(X, inner):
        return jnp.where(live[:, None, None], inner(X), X)

    n = problem.num_samples
    if n > _MAX_ROWS:
        return lambda X: blocks(X, divide_by_M)
    gram, identity = operator.gram(weights=scale), jnp.eye(n, dtype=W.dtype)
    if problem.sample_weight is None:
        factor, size = cho_factor(identity / curvature + gram), None
    else:  # with S = diag(size): (S^-2 + gram)^-1 = S (I + S gram S)^-1 S, which also holds where size is 0
        size = jnp.sqrt((problem.loss.curvature or 1.0) * problem.sample_weight)[:, None]
        factor = cho_factor(identity + size * gram * size.T)

    def solve_samples(B):
        return cho_solve(factor, B) if size is None else size * cho_solve(factor, size * B)

    def solve_without(X):
        Y = divide_by_M(X)
        return Y - divide_by_M(operator.adjoint(solve_samples(operator.forward(Y))))

    root = jnp.sqrt(scale)
    along = operator.each_block(root[:, None, None] * unit)
    solved = solve_samples(along.reshape(n, -1)).reshape(along.shape)
    small = jnp.einsum("nqc,nrc->qr", along, solved)
    damping = 1e-2 * jnp.finfo(W.dtype).eps ** 0.5 * jnp.mean(jnp.diagonal(small))
    inner = cho_factor(small + jnp.diag(jnp.where(live, damping, 1.0)))
    U = divide(unit, root[:, None, None])

    def solve_live(X):
        without_U = solve_without(jnp.where(live[:, None, None], X, 0.0))
        weights = cho_solve(inner, jnp.einsum("qpc,qpc->q", U, without_U))
        return without_U + solve_without(weights[:, None, None] * U)

    return lambda X: blocks(X, solve_live)


def zero_blocks(problem: Problem) -> Blocks:
    """The zero point of the program."""
    operator = problem.operator
    columns = operator.readout.columns(problem.num_outputs)
    return jnp.zeros((operator.num_blocks, operator.Z.shape[1], columns), problem.X.dtype)


def gated_from_network(problem: Problem, network: Network) -> Blocks:
    """A warm start from a network: the blocks sum its neurons cell by cell. Neurons outside all cells are dropped.

    Solutions lie on boundaries of cells, so a row at which a neuron is zero up to rounding agrees with both sides.
    """
    operator = problem.operator
    values = network.hidden @ operator.Z.T
    sizes = jnp.linalg.norm(network.hidden, axis=1)[:, None] * jnp.linalg.norm(operator.Z, axis=1)
    level = jnp.where(jnp.abs(values) <= 64 * jnp.finfo(values.dtype).eps * sizes, 0.0, jnp.sign(values))
    cells = operator.cone_masks
    signs = 2 * cells.astype(level.dtype) - 1
    against = jnp.sum(jnp.abs(level), axis=1)[:, None] - level @ signs.T  # twice the number of rows that disagree
    inside = jnp.min(against, axis=1) == 0
    product = network.hidden[:, :, None] * network.output[:, None, :]
    blocks = jax.ops.segment_sum(
        jnp.where(inside[:, None, None], product, 0.0), jnp.argmin(against, axis=1), cells.shape[0]
    )
    if not operator.linear:
        return blocks
    skip = network.skip if network.skip is not None else jnp.zeros_like(blocks[0])
    return jnp.concatenate([blocks, skip[None]])
