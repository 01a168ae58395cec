"""The rounds in float64: merging that keeps the objective, moves within cells, and where the rounds end."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jaxcvx
from jaxcvx.numerics.safe import unit_rows
from jaxcvx.solvers.semi_infinite.cell_rounds import finish, in_bucket, merged, moved_in_cells, searched
from jaxcvx.solvers.semi_infinite.pool import Pool, dual_residual, fit_pool, pool_network, pool_objective
from jaxcvx.solvers.semi_infinite.sliding import Settings, start_of
from tests.helpers import gaussian_data

SETTINGS = Settings(new_neurons=8, starts=24, ascent_rounds=8, ascent_steps=16)


def pool_of_random(problem, m=8):
    directions = unit_rows(jax.random.normal(jax.random.key(0), (m, problem.rows.shape[1])))
    used = (jnp.arange(m) < m - 2)[:, None]
    weights = 0.2 * jax.random.normal(jax.random.key(1), (m, 1))
    return Pool(jnp.where(used, directions, 0.0), jnp.where(used, weights, 0.0), jnp.zeros(1))


def problem_of(n=30, d=3, beta=1.0):
    return jaxcvx.make_problem(*gaussian_data(0, n, d), beta)


def test_moves_keep_cells_signs_and_empty_slots():
    problem = problem_of()
    pool = fit_pool(problem, pool_of_random(problem), 500)
    moved = moved_in_cells(problem, pool)
    assert float(pool_objective(problem, moved)) < float(pool_objective(problem, pool))
    used = np.any(np.asarray(moved.weights) != 0, axis=1)
    assert not used[-2:].any() and not np.asarray(moved.directions)[~used].any()
    assert np.all(np.sign(moved.weights[used]) == np.sign(pool.weights[used]))
    before, after = (np.asarray(problem.rows @ each.directions[used].T) for each in (pool, moved))
    assert np.all(np.where(before >= 0, after, -after) > -1e-6)


def test_merging_is_undone_where_it_costs():
    """Two neurons of neighbouring cells overlap by little. Joined, they would predict something else."""
    problem = problem_of(n=200, d=2)
    angle = jnp.array([0.3, 0.3 + 1e-3])
    directions = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    pool = Pool(directions, jnp.array([[1.0], [1.0]]), jnp.zeros(1))
    result = merged(problem, pool)
    value, before = (float(pool_objective(problem, each)) for each in (result, pool))
    assert value <= before * (1 + 1e-9)
    same = Pool(jnp.stack([directions[0], directions[0]]), pool.weights, jnp.zeros(1))
    joined = merged(problem, same)
    assert int(jnp.sum(jnp.any(joined.weights != 0, axis=1))) == 1
    np.testing.assert_allclose(pool_network(problem, joined)(problem.X), pool_network(problem, same)(problem.X))


def test_rounds_reach_a_stationary_network_and_zero_rounds_change_nothing():
    problem = problem_of(beta=2.0)
    start = start_of(problem, pool_of_random(problem, 16), SETTINGS)
    state, count = finish(problem, start, jax.random.key(2), SETTINGS, 1e-7, 20)
    assert 1 <= int(count) < 20 and state.candidates.prices[0] <= problem.beta * (1 + 1e-7)
    exact = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(pricing="exact", width=16, move_steps=0, tol=1e-8))
    assert float(pool_objective(problem, state.pool)) >= float(exact.lower_bound)
    np.testing.assert_allclose(pool_objective(problem, state.pool), exact.upper_bound, rtol=1e-5)
    same, count = finish(problem, start, jax.random.key(2), SETTINGS, 1e-7, 0)
    assert int(count) == 0
    np.testing.assert_array_equal(same.pool.directions, start.pool.directions)


def test_a_search_from_fresh_starts_finds_what_few_ascents_missed():
    problem = problem_of()
    pool = fit_pool(problem, pool_of_random(problem), 500)
    state = start_of(problem, pool, SETTINGS)
    nothing = state._replace(candidates=state.candidates._replace(prices=jnp.zeros_like(state.candidates.prices)))
    lifted = problem.readout.lift(dual_residual(problem, pool))
    found = searched(problem, nothing, lifted, jax.random.key(0)).candidates
    assert found.prices.shape == nothing.candidates.prices.shape
    R = np.asarray(problem.targets) - np.asarray(pool_network(problem, pool)(problem.X))
    value = np.linalg.norm(np.maximum(np.asarray(problem.rows @ found.directions[0]), 0) @ R)
    np.testing.assert_allclose(value, found.prices[0], rtol=1e-4)
    assert found.prices[0] > problem.beta
    better = found._replace(prices=np.append(1e6, found.prices[1:]))
    kept = searched(problem, state._replace(candidates=better), lifted, jax.random.key(0)).candidates
    assert kept.prices[0] == 1e6


def test_buckets_hold_the_neurons_and_some_new_ones():
    problem = problem_of()
    sizes = []
    for used in (3, 24, 25, 57, 89, 125, 180):
        weights = jnp.zeros((256, 1)).at[:used].set(1.0)
        directions = jnp.zeros((256, 3)).at[:used, 0].set(1.0)
        state = start_of(problem, Pool(directions, weights, jnp.zeros(1)), SETTINGS)
        state = in_bucket(state, 1.0, SETTINGS)
        assert int((np.asarray(state.pool.weights) != 0).sum()) == used
        sizes.append(len(state.pool.weights))
    assert sizes == [32, 32, 64, 96, 128, 192, 192]
