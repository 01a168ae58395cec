"""What all pricing oracles share: the value of a neuron, and the best of many.

Pricing asks for a unit neuron u with the largest ||Rl^T (Z u)_+||, Z the feature rows and Rl the lifted dual
residual: the most violated dual constraint of the training problem, hence the neuron to add. Oracles:
:mod:`jaxcvx.pricing.faces` (all faces of all cells, low rank), :mod:`jaxcvx.pricing.branch_and_bound`
(branch and bound, with a proved bound), :mod:`jaxcvx.pricing.multistart` (any size, no bound).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Priced(NamedTuple):
    """Neurons and what they price at.

    Attributes:
      directions: (m, p) unit vectors, best first.
      values: (m,) ||Rl^T (Z u)_+|| at each, 0 for repetitions.
      upper: upper bound on the value of every neuron in the cells priced; inf where none is proved.
    """

    directions: Float[Array, "m p"]
    values: Float[Array, m]
    upper: Float[Array, ""]


def neuron_values(Z: Float[Array, "N p"], Rl: Float[Array, "N q"], U: Float[Array, "m p"]) -> Float[Array, m]:
    """||Rl^T (Z u)_+|| of each row u of U."""
    return jnp.linalg.norm(jax.nn.relu(U @ Z.T) @ Rl, axis=1)


def distinct(
    directions: Float[Array, "m p"], values: Float[Array, m], num: int, radius: float = 1e-4
) -> tuple[Int[Array, k], Float[Array, k]]:
    """The k = min(num, m) best unit directions, of those within ``radius`` of each other the best one.

    Repetitions have nearly equal values, so each direction is compared with the 8 before it in that order.

    Returns:
      Their numbers and their values in falling order; repetitions come last, with value 0.
    """
    values, order = jax.lax.top_k(values, len(values))
    sorted_ = directions[order]
    repeated = jnp.zeros(len(values), bool)
    for back in range(1, min(9, len(values))):
        near = jnp.sum((sorted_[back:] - sorted_[:-back]) ** 2, axis=1) < radius**2
        repeated = repeated.at[back:].set(repeated[back:] | near)
    values, best = jax.lax.top_k(jnp.where(repeated, 0.0, values), min(num, len(values)))
    return order[best], values
