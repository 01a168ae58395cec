"""The largest price of any neuron, over all cells."""

from __future__ import annotations

import jax.numpy as jnp

import jaxcvx
from jaxcvx.pricing.faces import face_table, price_exact


def exact_value(X, R) -> float:
    """The largest price of all neurons, by the faces of all cells."""
    cells = jaxcvx.enumerate_arrangements(X)
    table = face_table(X, cells.masks, cells.gates)
    return float(price_exact(table, jnp.asarray(X), cells.masks, jnp.asarray(R)).values[0])
