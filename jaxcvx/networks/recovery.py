"""Networks from the variables of the convex programs.

In the cone program the columns of V_i and W_i lie in the cone of cell i, where D_i Z u = (Z u)_+. So each column is the
hidden weights of a neuron. In the gated program the columns are free. Each one is first written as the difference of
two points of the cone. This keeps all predictions, but it can increase the penalty.

Sources: M. Pilanci and T. Ergen, "Neural networks are convex regularizers" (2020), Theorem 1; A. Mishkin, A. Sahiner
and M. Pilanci, "Fast convex optimization for two-layer ReLU networks" (2022), cone decomposition.
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
    """One neuron for each column of each block. Column l feeds output l with weight ``sign``."""
    q, p, c = directions.shape
    hidden = jnp.moveaxis(directions, 2, 1).reshape(q * c, p)
    output = sign * jnp.tile(jnp.eye(c, dtype=directions.dtype), (q, 1))
    return hidden, output


def network_from_cone(problem: Problem, V: Float[Array, "P p c"], W: Float[Array, "P p c"]) -> Network:
    """The network of a feasible point (V, W) of the cone program. It has 2 P c neurons, many of them zero.

    If c = 1, or if the groups are per output, its training objective equals the program's value.
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
    """Write z as a difference u - w of two points of a cell's cone.

    There are two candidates: the one with the shortest w, and the one with the shortest u. The candidate with the
    smaller ||u|| + ||w|| is returned.

    Args:
      operator: the operator over the cells.
      mask_sign: the cell's diagonal of 2 D - I.
      z: any vector.

    Returns:
      The pair (u, w).
    """
    slack = mask_sign * (operator.Z @ z)
    w = least_norm_shift(operator.Z, mask_sign, jnp.maximum(-slack, 0.0))
    u = least_norm_shift(operator.Z, mask_sign, jnp.maximum(slack, 0.0))
    shortest_w = jnp.linalg.norm(z + w) + jnp.linalg.norm(w) <= jnp.linalg.norm(u) + jnp.linalg.norm(u - z)
    return jnp.where(shortest_w, z + w, u), jnp.where(shortest_w, w, u - z)


def network_from_gated(problem: Problem, V: Float[Array, "P p c"]) -> Network:
    """The ReLU network with the same predictions on X as the gated network V, by cone decomposition.

    Each block is first written as the sum of its singular pairs s_k a_k b_k^T. So a cell gives 2 min(p, c) neurons.
    Zero blocks give zero neurons.
    """
    operator = problem.operator
    cells = operator.num_cells
    signs = operator.signs()[:cells]
    left, size, right = jnp.linalg.svd(V[:cells], full_matrices=False)
    blocks = left * size[:, None, :]

    def decompose(sign, z):
        return jax.lax.cond(
            jnp.any(z != 0), lambda: decompose_in_cone(operator, sign, z), lambda: (jnp.zeros_like(z),) * 2
        )

    u, w = jax.vmap(jax.vmap(decompose, in_axes=(None, 1), out_axes=1))(signs, blocks)
    flat = [jnp.moveaxis(a, 2, 1).reshape(-1, a.shape[1]) for a in (u, w)]
    rows = right.reshape(-1, right.shape[2])
    skip = V[-1] if operator.linear else None
    network = Network(jnp.concatenate(flat), jnp.concatenate([rows, -rows]), skip, problem.features)
    return balance(network)


def push_inside(
    operator: CellOperator, V: Float[Array, "P p c"], centers: Float[Array, "P p"]
) -> Float[Array, "P p c"]:
    """Move every column towards a point inside its cell's cone, just far enough to satisfy all constraints.

    Args:
      operator: the operator over the cells.
      V: blocks of weights.
      centers: for each cell a point strictly inside its cone. A constraint that this point violates is ignored.

    Returns:
      The blocks after the move.
    """
    signs = operator.signs()
    slack = jnp.einsum("np,qpc->qnc", operator.Z, V) * signs[:, :, None]
    center_slack = (centers @ operator.Z.T) * signs
    ratio = divide(jnp.maximum(-slack, 0.0), center_slack[:, :, None])
    length = jnp.max(ratio, axis=1)
    return V + centers[:, :, None] * length[:, None, :]


def widen(network: Network, width: int) -> Network:
    """Pad with zero neurons up to ``width``. The function stays the same."""
    extra = max(0, width - network.width)
    return dataclasses.replace(
        network,
        hidden=jnp.pad(network.hidden, ((0, extra), (0, 0))),
        output=jnp.pad(network.output, ((0, extra), (0, 0))),
    )


@with_full_precision
def gated_to_relu(problem: Problem, params: Float[Array, "P p c"]) -> Network:
    """The ReLU network with the same predictions on X as a gated solution, without zero neurons.

    Its loss is that of the gated solution. Its penalty ``balanced_penalty(network)`` is at least the gated program's
    penalty ``sum_i ||V_i||_F``. The width depends on the values, so this does not work under jit.

    Args:
      problem: the problem that was solved.
      params: ``solution.params`` of ProximalGradient.

    Source: A. Mishkin, A. Sahiner and M. Pilanci, "Fast convex optimization for two-layer ReLU networks" (2022), cone
    decomposition; here the second point is the shortest one.

    >>> import jax.numpy as jnp, jaxcvx
    >>> X = [[1.0], [2.0]]
    >>> problem = jaxcvx.make_problem(X, [1.0, 2.0], 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
    >>> jaxcvx.gated_to_relu(problem, jnp.array([[[0.5]], [[0.0]]])).width  # one of the two blocks is zero
    1
    """
    return prune(network_from_gated(problem, jnp.asarray(params)))
