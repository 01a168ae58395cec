"""What all pricing oracles share: the value of a neuron, and the best of many.

Pricing asks for a unit neuron u with the largest ||Rl^T (Z u)_+||, Z the feature rows and Rl the lifted dual
residual: the most violated dual constraint of the training problem, hence the neuron to add. Oracles:
:mod:`jaxcvx.operators.pricing_exact` (all faces of all cells, low rank), :mod:`jaxcvx.operators.pricing_branch`
(branch and bound, with a proved bound), :mod:`jaxcvx.operators.pricing_multistart` (any size, no bound).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    directions: Float[Array, "m r"], values: Float[Array, m], num: int
) -> tuple[Float[Array, "k r"], Float[Array, k]]:
    """The first k = min(num, m) unit directions in falling order of value; repetitions come last with value 0."""
    closeness = jnp.sum((directions[:, None] - directions[None]) ** 2, axis=2)
    earlier = jnp.tril(jnp.ones((len(values),) * 2, bool), -1)
    repeated = jnp.any(earlier & (closeness < 1e-8), axis=1)
    values, order = jax.lax.top_k(jnp.where(repeated, 0.0, values), min(num, len(values)))
    return directions[order], values
