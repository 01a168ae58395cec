"""From the convex programs' variables back to networks.

Cone program (Pilanci and Ergen 2020, Theorem 1): V_i and W_i with columns in cell i's cone are neurons as
they stand, because D_i Z u = (Z u)_+ there. Gated program: a free z_i is first written as a difference of
two points of the cone (Mishkin, Sahiner and Pilanci 2022, cone decomposition), which keeps every
prediction but costs penalty.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.networks.network import Network, balance, prune
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.safe import divide
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.polyhedral_cone import least_norm_shift


def _neurons(directions: Float[Array, "q p c"], sign: float) -> tuple[Array, Array]:
    """Every column of every block as a neuron that feeds its own output."""
    q, p, c = directions.shape
    hidden = jnp.moveaxis(directions, 2, 1).reshape(q * c, p)
    output = sign * jnp.tile(jnp.eye(c, dtype=directions.dtype), (q, 1))
    return hidden, output


def network_from_cone(problem: Problem, V: Float[Array, "P p c"], W: Float[Array, "P p c"]) -> Network:
    """Network of a feasible point (V, W) of the cone program; 2 P c neurons, many of them zero.

    For c = 1, or groups per output, its training objective equals the program's value.
    """
    operator = problem.operator
    skip = V[-1] - W[-1] if operator.linear else None
    cells = operator.num_cells
    plus, minus = _neurons(V[:cells], 1.0), _neurons(W[:cells], -1.0)
    hidden, output = (jnp.concatenate(pair) for pair in zip(plus, minus, strict=True))
    return balance(Network(hidden, output, skip, problem.features))


def decompose_in_cone(
    operator: CellOperator, mask_sign: Float[Array, n], z: Float[Array, p]
) -> tuple[Float[Array, p], Float[Array, p]]:
    """Points u, w of a cell's cone with z = u - w and w as short as can be.

    Of the two ways round (shortest w, or shortest u) the one with smaller ||u|| + ||w|| is returned.
    """
    slack = mask_sign * (operator.Z @ z)
    w = least_norm_shift(operator.Z, mask_sign, jnp.maximum(-slack, 0.0))
    u = least_norm_shift(operator.Z, mask_sign, jnp.maximum(slack, 0.0))
    first = jnp.linalg.norm(z + w) + jnp.linalg.norm(w) <= jnp.linalg.norm(u) + jnp.linalg.norm(u - z)
    return jnp.where(first, z + w, u), jnp.where(first, w, u - z)


def network_from_gated(problem: Problem, V: Float[Array, "P p c"]) -> Network:
    """ReLU network with the same predictions on X as the gated network V, by cone decomposition.

    Each block is split into its singular pairs sum_k s_k a_k b_k^T first, so a cell gives
    2 min(p, c) neurons. Zero blocks give zero neurons.
    """
    operator = problem.operator
    cells = operator.num_cells
    signs = operator.signs()[:cells]
    left, size, right = jnp.linalg.svd(V[:cells], full_matrices=False)
    blocks = left * size[:, None, :]

    def one(sign, z):
        return jax.lax.cond(
            jnp.any(z != 0), lambda: decompose_in_cone(operator, sign, z), lambda: (jnp.zeros_like(z),) * 2
        )

    u, w = jax.vmap(jax.vmap(one, in_axes=(None, 1), out_axes=1))(signs, blocks)
    flat = [jnp.moveaxis(a, 2, 1).reshape(-1, a.shape[1]) for a in (u, w)]
    rows = right.reshape(-1, right.shape[2])
    skip = V[-1] if operator.linear else None
    network = Network(jnp.concatenate(flat), jnp.concatenate([rows, -rows]), skip, problem.features)
    return balance(network)


def push_inside(
    operator: CellOperator, V: Float[Array, "P p c"], centers: Float[Array, "P p"]
) -> Float[Array, "P p c"]:
    """Move every column towards its cell's center just far enough to meet all constraints.

    ``centers`` are points strictly inside the cones; a center that is not leaves its cell unmoved.
    """
    signs = operator.signs()
    slack = jnp.einsum("np,qpc->qnc", operator.Z, V) * signs[:, :, None]
    room = (centers @ operator.Z.T) * signs
    ratio = divide(jnp.maximum(-slack, 0.0), room[:, :, None])
    length = jnp.max(ratio, axis=1)
    return V + centers[:, :, None] * length[:, None, :]


def widen(network: Network, width: int) -> Network:
    """Pad with zero neurons up to ``width``: same function."""
    extra = max(0, width - network.width)
    return dataclasses.replace(
        network,
        hidden=jnp.pad(network.hidden, ((0, extra), (0, 0))),
        output=jnp.pad(network.output, ((0, extra), (0, 0))),
    )


@with_full_precision
def gated_to_relu(problem: Problem, params: Float[Array, "P p c"]) -> Network:
    """ReLU network with the same predictions on X as a gated solution, with zero neurons pruned.

    What it costs: the gated program's penalty is ``sum_i ||V_i||_F``, the network's is
    ``balanced_penalty(network)``, never smaller; the loss is the same. For use outside jit.

    Args:
      problem: the problem that was solved.
      params: ``solution.params`` of ProximalGradient.

    Source: Mishkin, Sahiner and Pilanci 2022, cone decomposition, here with the shortest second part.
    """
    return prune(network_from_gated(problem, jnp.asarray(params)))
