"""round_gated: turn a solution of the gated program into a ReLU network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.networks.network import Network
from jaxcvx.networks.recovery import push_inside
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.solvers.neurons.refit import better, refit_outputs


def round_gated(problem: Problem, V: Float[Array, "P p c"], num_cells: int | None = None) -> Network:
    """Turn the gated solution into a ReLU network with neurons in the same cells. The output weights are refitted.

    The candidate neurons of a cell are its gate and both signs of a direction of its block. For c = 1 the direction is
    the block itself; for c > 1 it is a singular direction of the block, and the strongest directions of all cells are
    used, as many as there are cells. Each direction is pushed along the gate until it lies in the cell. Therefore every
    bound over the cells covers the result.

    Args:
      problem: data, loss, beta, cells.
      V: one block per cell (and a last one for a skip connection).
      num_cells: number of cells that give candidates: those with the largest blocks. None: all cells.

    Returns:
      A network of width 3 P, or 3 ``num_cells``. Many of its neurons are zero.
    """
    operator, arrangements = problem.operator, problem.arrangements
    assert arrangements is not None
    blocks, gates, masks = V[: operator.num_cells], arrangements.gates.astype(V.dtype), operator.cone_masks
    if num_cells is not None:
        largest = jax.lax.top_k(group_norms(blocks), num_cells)[1]
        blocks, gates, masks = blocks[largest], gates[largest], masks[largest]
    alive = jnp.any(blocks != 0, axis=(1, 2))
    if V.shape[2] > 1:
        left, size, _ = jnp.linalg.svd(blocks, full_matrices=False)
        rounding = 64 * jnp.finfo(V.dtype).eps * size[:, :1]  # singular directions below it would be arbitrary
        size = jnp.where(size > rounding, size, 0.0)
        blocks = left * size[:, None, :]
        chosen = jax.lax.top_k(size.reshape(-1), blocks.shape[0])[1]
        cell, column = chosen // size.shape[1], chosen % size.shape[1]
        directions = blocks[cell, :, column]
    else:
        cell, directions = jnp.arange(blocks.shape[0]), blocks[:, :, 0]
    signed = jnp.stack([directions, -directions], axis=2)
    inside = push_inside(CellOperator(operator.Z, masks[cell]), signed, gates[cell])
    hidden = jnp.concatenate([gates * alive[:, None].astype(gates.dtype), inside[:, :, 0], inside[:, :, 1]])
    skip = V[-1] if operator.linear else None
    output = jnp.zeros((hidden.shape[0], V.shape[2]), V.dtype)
    candidates = Network(hidden, output, skip, problem.features)
    fitted = refit_outputs(problem, candidates, tol=1e-3, max_steps=200)
    zero = jax.tree.map(jnp.zeros_like, candidates)
    return better(problem, fitted, zero)
