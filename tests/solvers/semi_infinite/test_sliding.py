"""One round of the sliding Frank-Wolfe method: merging, fitting and pricing, each against its definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.networks.network import network_objective
from jaxcvx.numerics.safe import unit_rows
from jaxcvx.solvers.neurons.refit import refit_outputs
from jaxcvx.solvers.semi_infinite.pool import Pool, dual_residual, pool_network, pool_objective
from jaxcvx.solvers.semi_infinite.sliding import (
    Candidates,
    Settings,
    add,
    merge_cells,
    neuron_prices,
    price,
    refit,
    row_curvature,
)
from tests.helpers import gaussian_data, targets_for


def problem_of(loss="squared", n=40, d=3, outputs=1, beta=2.0):
    X, Y = gaussian_data(0, n, d, outputs)
    return jaxcvx.make_problem(X, targets_for(loss, Y), beta, loss=loss)


def random_pool(problem, m=12, seed=0, empty=3):
    first, second = jax.random.split(jax.random.key(seed))
    directions = unit_rows(jax.random.normal(first, (m, problem.rows.shape[1])))
    weights = 0.3 * jax.random.normal(second, (m, problem.num_columns))
    used = (jnp.arange(m) < m - empty)[:, None]
    return Pool(jnp.where(used, directions, 0.0), jnp.where(used, weights, 0.0))


@pytest.mark.parametrize(("loss", "outputs"), [("squared", 1), ("squared", 2), ("logistic", 1), ("softmax", 3)])
def test_refit_reaches_the_optimum_of_the_weights(loss, outputs):
    problem = problem_of(loss, outputs=outputs)
    pool = random_pool(problem)
    fitted = refit(problem, pool, 2000)
    other = refit_outputs(problem, pool_network(problem, pool), tol=1e-8, max_steps=5000)
    np.testing.assert_allclose(pool_objective(problem, fitted), network_objective(other, problem), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 5])
def test_refit_is_never_worse(steps):
    problem = problem_of(beta=50.0)
    pool = random_pool(problem)
    assert pool_objective(problem, refit(problem, pool, steps)) <= pool_objective(problem, pool)


def test_neurons_of_one_cell_are_joined():
    problem = problem_of(d=2)
    u = jnp.array([1.0, 0.0])
    near = unit_rows(jnp.array([[1.0, 1e-4]]))[0]
    assert bool(jnp.all((problem.X @ u > 0) == (problem.X @ near > 0)))
    pool = Pool(jnp.stack([u, near, -u, u]), jnp.array([[1.0], [2.0], [1.0], [-1.0]]))
    merged = merge_cells(problem, pool)
    size = jnp.abs(merged.weights[:, 0])
    assert int(jnp.sum(size > 0)) == 3  # u and near join; the opposite neuron and the opposite sign stay
    before, after = (pool_network(problem, p)(problem.X) for p in (pool, merged))
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert jnp.sum(size) <= 5.0 + 1e-12


def test_merging_keeps_the_objective_of_a_dense_pool():
    problem = problem_of(n=8, d=2)
    pool = random_pool(problem, m=40, empty=0)
    merged = merge_cells(problem, pool)
    assert int(jnp.sum(jnp.any(merged.weights != 0, axis=1))) < 40
    assert pool_objective(problem, merged) <= pool_objective(problem, pool) * (1 + 1e-4)


@pytest.mark.parametrize(("loss", "outputs"), [("squared", 1), ("softmax", 3)])
def test_prices_are_those_of_the_candidates_and_not_below_the_pools_own(loss, outputs):
    problem = problem_of(loss, outputs=outputs)
    pool = random_pool(problem)
    found = price(problem, pool, jax.random.key(1), Settings(), row_curvature(problem))
    R = dual_residual(problem, pool)
    kept = found.prices > 0  # repetitions have the price 0
    assert int(jnp.sum(kept)) >= 3
    exact = neuron_prices(problem, R, found.directions)
    np.testing.assert_allclose(found.prices[kept], exact[kept], rtol=1e-9)
    assert np.all(np.diff(found.prices) <= 0)
    own = neuron_prices(problem, R, pool.directions[jnp.any(pool.weights != 0, axis=1)])
    if outputs > 1:  # with one output an own neuron keeps its sign, whose price may be the smaller one
        assert found.prices[0] >= jnp.max(own) * (1 - 1e-12)


def test_candidates_take_empty_slots_only():
    problem = problem_of()
    pool = random_pool(problem, m=6, empty=2)
    candidates = Candidates(unit_rows(jnp.ones((4, 3)) + jnp.eye(4, 3)), jnp.array([4.0, 3.0, 2.0, 1.0]))
    grown = add(pool, candidates, jnp.array([True, True, True, False]))
    np.testing.assert_array_equal(grown.weights, pool.weights)
    np.testing.assert_array_equal(grown.directions[:4], pool.directions[:4])
    np.testing.assert_array_equal(grown.directions[4:], candidates.directions[:2])
