"""Shared by all pricing methods: the price of a neuron, and the best distinct ones of many.

The price of a unit neuron u is ||Rl^T (Z u)_+||. Z holds the feature rows, and Rl is the dual residual lifted from
samples to rows. Pricing asks for the neuron of largest price: it belongs to the most violated dual constraint of the
training problem, so it is the neuron to add. Methods: :mod:`jaxcvx.pricing.faces` (all faces of all cells, low rank),
:mod:`jaxcvx.pricing.sweep` (rank two), :mod:`jaxcvx.pricing.spike_free` (spike-free data),
:mod:`jaxcvx.pricing.search` (branch and bound: a proved bound at any time), :mod:`jaxcvx.pricing.multistart` (any
size, no bound).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Priced(NamedTuple):
    """Neurons and their prices.

    Attributes:
      directions: (m, p) unit vectors, best first.
      values: (m,) price of each, 0 for repetitions.
      upper: upper bound on the price of every neuron in the cells that were searched; inf if none is proved.
    """

    directions: Float[Array, "m p"]
    values: Float[Array, m]
    upper: Float[Array, ""]


def neuron_values(Z: Float[Array, "N p"], Rl: Float[Array, "N q"], U: Float[Array, "m p"]) -> Float[Array, m]:
    """The price ||Rl^T (Z u)_+|| of each row u of U."""
    return jnp.linalg.norm(jax.nn.relu(U @ Z.T) @ Rl, axis=1)


def distinct(
    directions: Float[Array, "m p"], values: Float[Array, m], num: int, radius: float = 1e-4
) -> tuple[Int[Array, k], Float[Array, k]]:
    """The k = min(num, m) best distinct unit directions.

    A direction within ``radius`` of a better one is a repetition. Repetitions have nearly equal values, so each
    direction is compared only with the 8 before it in falling order of value.

    Returns:
      The directions' indices and values, in falling order of value; repetitions come last, with value 0.
    """
    values, order = jax.lax.top_k(values, len(values))
    sorted_ = directions[order]

    def compare(back, repeated):
        near = jnp.sum((sorted_ - jnp.roll(sorted_, back, axis=0)) ** 2, axis=1) < radius**2
        return repeated | (near & (jnp.arange(len(values)) >= back))

    repeated = jax.lax.fori_loop(1, min(9, len(values)), compare, jnp.zeros(len(values), bool))
    values, best = jax.lax.top_k(jnp.where(repeated, 0.0, values), min(num, len(values)))
    return order[best], values
