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
from jaxcvx.solvers.semi_infinite.pool import Pool, dual_residual, fit_pool, pool_network, pool_objective
from jaxcvx.solvers.semi_infinite.sliding import (
    Candidates,
    Pace,
    Settings,
    add,
    merge_cells,
    move_all,
    move_used,
    neuron_prices,
    price,
    row_curvature,
    slide,
    start_of,
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
    return Pool(jnp.where(used, directions, 0.0), jnp.where(used, weights, 0.0), jnp.zeros(problem.num_outputs))


@pytest.mark.parametrize(("loss", "outputs"), [("squared", 1), ("squared", 2), ("logistic", 1), ("softmax", 3)])
def test_refit_reaches_the_optimum_of_the_weights(loss, outputs):
    problem = problem_of(loss, outputs=outputs)
    pool = random_pool(problem)
    fitted = fit_pool(problem, pool, 2000)
    other = refit_outputs(problem, pool_network(problem, pool), tol=1e-8, max_steps=5000)
    np.testing.assert_allclose(pool_objective(problem, fitted), network_objective(other, problem), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 5])
def test_refit_is_never_worse(steps):
    problem = problem_of(beta=50.0)
    pool = random_pool(problem)
    assert pool_objective(problem, fit_pool(problem, pool, steps)) <= pool_objective(problem, pool)


def test_neurons_of_one_cell_are_joined():
    problem = problem_of(d=2)
    u = jnp.array([1.0, 0.0])
    near = unit_rows(jnp.array([[1.0, 1e-4]]))[0]
    assert bool(jnp.all((problem.X @ u > 0) == (problem.X @ near > 0)))
    pool = Pool(jnp.stack([u, near, -u, u]), jnp.array([[1.0], [2.0], [1.0], [-1.0]]), jnp.zeros(1))
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
    start = start_of(problem, pool, Settings())
    found = price(problem, pool, start.scouts, jax.random.key(1), Settings(), row_curvature(problem)).candidates
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


def test_moving_never_makes_it_worse():
    problem = problem_of()
    pool = random_pool(problem)
    moved = move_all(problem, pool, 200, jnp.asarray(1e-2))
    assert float(pool_objective(problem, moved)) < float(pool_objective(problem, pool))
    wild = move_all(problem, moved, 3, jnp.asarray(1e3))
    assert float(pool_objective(problem, wild)) == pytest.approx(float(pool_objective(problem, moved)), rel=1e-12)
    same = move_all(problem, pool, 0, jnp.asarray(1e-2))
    np.testing.assert_allclose(pool_objective(problem, same), pool_objective(problem, pool), rtol=1e-12)


def test_scouts_go_on_from_round_to_round():
    """At a fixed residual ascents that go on reach higher prices than fresh ones."""
    problem = problem_of(n=60, d=6)
    empty = random_pool(problem, m=8, empty=8)
    settings = Settings(starts=24, ascent_rounds=1, ascent_steps=2)
    curvature, start = row_curvature(problem), start_of(problem, empty, settings)
    state, fresh, later = start, [], []
    for k in range(8):
        state = price(problem, empty, state.scouts, jax.random.key(k), settings, curvature)
        later.append(float(jnp.mean(state.candidates.prices[:12])))
        once = price(problem, empty, start.scouts, jax.random.key(k), settings, curvature)
        fresh.append(float(jnp.mean(once.candidates.prices[:12])))
    assert np.mean(later[2:]) > np.mean(fresh[2:])
    assert not bool(jnp.any(jnp.all(state.scouts == 0, axis=1)))


@pytest.mark.parametrize("full", [False, True])
def test_rounds_end_where_nothing_pays_or_no_slot_is_left(full):
    problem = problem_of(n=30, d=2, beta=4.0)
    settings = Settings(starts=32, moves=2, move_steps=50, max_rounds=40, stop_if_full=full)
    pool = random_pool(problem, m=2 if full else 16, empty=1 if full else 16)
    pace = Pace(jnp.asarray(3e-3), jnp.asarray(1e-3), jnp.asarray(2), jnp.asarray(40), jnp.asarray(50))
    start = start_of(problem, pool, settings)
    state, rounds = slide(problem, start, jax.random.key(0), settings, pace, row_curvature(problem))
    if full:
        assert not bool(jnp.any(jnp.all(state.pool.weights == 0, axis=1))) or int(rounds) < 40
    else:
        assert 0 < int(rounds) < 40 and state.candidates.prices[0] <= problem.beta * 1.001
    passed, rounds = slide(
        problem, start, jax.random.key(0), settings, pace, row_curvature(problem), active=jnp.asarray(False)
    )
    assert int(rounds) == 0
    np.testing.assert_array_equal(passed.pool.weights, start.pool.weights)


@pytest.mark.parametrize(("loss", "outputs"), [("squared", 1), ("softmax", 3)])
def test_moves_in_blocks_of_samples_are_the_same(loss, outputs):
    problem = problem_of(loss, outputs=outputs, n=48)
    pool = random_pool(problem)
    whole, parts = (move_all(problem, pool, 20, jnp.asarray(3e-3), blocks) for blocks in (1, 4))
    assert pool_objective(problem, whole) < pool_objective(problem, pool)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("used", [3, 16, 17, 40])
def test_moves_of_few_slots_are_those_of_all(used):
    problem = problem_of()
    pool = random_pool(problem, m=40, empty=40 - used)
    order = jax.random.permutation(jax.random.key(3), 40)
    pool = pool._replace(directions=pool.directions[order], weights=pool.weights[order])
    whole, narrow = (move(problem, pool, 20, jnp.asarray(3e-3)) for move in (move_all, move_used))
    np.testing.assert_allclose(pool_objective(problem, whole), pool_objective(problem, narrow), rtol=1e-5)
    assert not np.any(np.asarray(narrow.weights)[used:])  # neurons stand first
    assert narrow.weights.shape == pool.weights.shape
