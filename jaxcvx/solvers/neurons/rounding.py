"""A ReLU network from a solution of the gated program."""

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


def round_gated(problem: Problem, V: Float[Array, "P p c"], room: int | None = None) -> Network:
    """A ReLU network from the gated solution, with neurons in the same cells and output weights refitted.

    Candidates in each cell: its gate, and both signs of the block's singular directions (for c = 1 of the
    block itself), pushed along the gate until they lie in the cell. So every bound over the cells
    covers the result. Of the directions only the strongest are taken, as many as there are cells.

    Args:
      problem: data, loss, beta, cells.
      V: blocks of the cells (and a last one for a skip connection).
      room: number of cells to take candidates from, those of the largest blocks; None for all.

    Returns:
      A network of width 3 P, or 3 ``room``, many of the neurons zero.
    """
    operator, arrangements = problem.operator, problem.arrangements
    assert arrangements is not None
    blocks, gates, masks = V[: operator.num_cells], arrangements.gates.astype(V.dtype), operator.cone_masks
    if room is not None:
        largest = jax.lax.top_k(group_norms(blocks), room)[1]
        blocks, gates, masks = blocks[largest], gates[largest], masks[largest]
    alive = jnp.any(blocks != 0, axis=(1, 2))
    if V.shape[2] > 1:
        left, size, _ = jnp.linalg.svd(blocks, full_matrices=False)
        rounding = 64 * jnp.finfo(V.dtype).eps * size[:, :1]  # no neurons made of it: they would be arbitrary
        size = jnp.where(size > rounding, size, 0.0)
        blocks = left * size[:, None, :]
        chosen = jax.lax.top_k(size.reshape(-1), blocks.shape[0])[1]
        cell, column = chosen // size.shape[1], chosen % size.shape[1]
        directions = blocks[cell, :, column]
    else:
        cell, directions = jnp.arange(blocks.shape[0]), blocks[:, :, 0]
    both = jnp.stack([directions, -directions], axis=2)
    inside = push_inside(CellOperator(operator.Z, masks[cell]), both, gates[cell])
    hidden = jnp.concatenate([gates * alive[:, None], inside[:, :, 0], inside[:, :, 1]])
    skip = V[-1] if operator.linear else None
    output = jnp.zeros((hidden.shape[0], V.shape[2]), V.dtype)
    zero = Network(hidden, output, skip, problem.features)
    fitted = refit_outputs(problem, zero, tol=1e-3, max_steps=200)
    nothing = jax.tree.map(jnp.zeros_like, zero)
    return better(problem, fitted, nothing)
