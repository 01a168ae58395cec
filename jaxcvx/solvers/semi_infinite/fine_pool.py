"""Column generation in float64 on the host: weights, residual and constraint values of a pool, below float32 rounding.

A neuron that improves the objective by less than float32 rounding cannot be detected in float32, but its violated
constraint still loosens the bound. Arguments and results are numpy arrays, so callers need not enable float64.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.safe import divisor
from jaxcvx.pricing.base import neuron_values
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.semi_infinite.pool import Pool, fit_weights, insert, pool_objective
from jaxcvx.solvers.semi_infinite.scaling import scaled_problem


def fine_problem(problem: Problem) -> Problem:
    """Scale the problem and convert it to float64, for the functions below."""
    with double_precision():
        return jax.device_get(scaled_problem(to_double(problem), jnp.float64)[0])


def fit_finely(fine: Problem, pool: Pool) -> tuple[Pool, np.ndarray, float]:
    """Fit the output weights exactly. Return the pool, its dual residual and its objective."""
    with double_precision():
        work, given = to_double((fine, pool))
        size = jnp.linalg.norm(given.directions, axis=1, keepdims=True)  # 1 to the rounding of float32
        unit = given.directions / divisor(size)
        pool, R = fit_weights(work, Pool(unit, given.weights * size))
        return jax.device_get(pool), np.asarray(R), float(pool_objective(work, pool))


def price_finely(fine: Problem, R: np.ndarray, directions: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Evaluate neurons from float32 pricing in float64: unit vectors, constraint values, and the estimated bound."""
    with double_precision():
        work, exact, found = to_double((fine, R, directions))
        size = jnp.linalg.norm(found, axis=1, keepdims=True)
        found = found / divisor(size)
        values = neuron_values(work.rows, work.readout.lift(exact), found)
        low = scaled_bound(work, exact, jnp.maximum(jnp.max(values), work.beta))
        return np.asarray(found), np.asarray(values), float(low)


def insert_finely(pool: Pool, directions: np.ndarray, wanted: np.ndarray) -> Pool:
    """Put the wanted neurons, best first, into free slots of the pool."""
    with double_precision():
        return jax.device_get(insert(*to_double((pool, directions)), jnp.asarray(wanted)))
