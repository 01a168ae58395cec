"""Pools in float64: exact weights, constraint values of neurons from float32 pricing, float64 not enabled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import ColumnGeneration, Status, make_problem, solve, training_objective
from jaxcvx.solvers.semi_infinite.fine_pool import fine_problem, fit_finely, insert_finely, price_finely
from jaxcvx.solvers.semi_infinite.pool import Pool
from tests.helpers import gaussian_data


def setting():
    X, Y = gaussian_data(0, 16, 3, 2)
    problem = make_problem(X.astype(np.float32), Y.astype(np.float32), 0.4)
    U = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    U[6:] = 0  # empty slots
    pool = Pool(jnp.asarray(U), jnp.asarray(np.ones((16, 2), np.float32) * (np.arange(16) < 6)[:, None]))
    return problem, pool


@pytest.mark.float32
def test_weights_are_exact_without_enabling_float64():
    problem, pool = setting()
    fine = fine_problem(problem)
    found, R, value = fit_finely(fine, pool)
    assert found.directions.dtype == R.dtype == np.float64 and isinstance(value, float)
    X, Y, beta = np.asarray(fine.X), np.asarray(fine.Y), float(fine.beta)
    atoms = np.maximum(X @ found.directions.T, 0)
    np.testing.assert_allclose(np.linalg.norm(found.directions[found.weights.any(axis=1)], axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(R, Y - atoms @ found.weights, atol=1e-9)
    strength = np.linalg.norm(atoms.T @ R, axis=1)
    used = np.linalg.norm(found.weights, axis=1) > 1e-6
    np.testing.assert_allclose(strength[used], beta, rtol=1e-7)
    expected = 0.5 * (R**2).sum() + beta * np.linalg.norm(found.weights, axis=1).sum()
    assert value == pytest.approx(expected, rel=1e-10)
    again = fit_finely(fine, found)
    assert again[2] <= value * (1 + 1e-14)


@pytest.mark.float32
def test_constraint_values_and_bound_equal_their_definitions():
    problem, pool = setting()
    fine = fine_problem(problem)
    found, R, value = fit_finely(fine, pool)
    rough = np.random.default_rng(2).standard_normal((5, 3)).astype(np.float32)
    unit, prices, low = price_finely(fine, R, jnp.asarray(rough))
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-15)
    X, Y, beta = np.asarray(fine.X), np.asarray(fine.Y), float(fine.beta)
    np.testing.assert_allclose(prices, np.linalg.norm(np.maximum(X @ unit.T, 0).T @ R, axis=1), rtol=1e-12)
    limit = beta / max(prices.max(), beta)
    t = min((R * Y).sum() / (R**2).sum(), limit)
    assert low == pytest.approx(t * (R * Y).sum() - 0.5 * t**2 * (R**2).sum(), rel=1e-12) and low <= value
    larger = insert_finely(found, unit, prices > beta)
    assert np.array_equal(larger.weights, np.where(larger.weights != 0, found.weights, 0))
    news = unit[prices > beta]
    assert len(news) and all(np.isclose(larger.directions, u).all(axis=1).any() for u in news)


@pytest.mark.long
@pytest.mark.float32
def test_column_generation_in_float32_mode_continues_in_float64():
    X, Y = gaussian_data(5, 20, 3)
    problem = make_problem(X.astype(np.float32), Y.astype(np.float32), 0.2)
    assert problem.X.dtype == jnp.float32
    solver = ColumnGeneration(
        pricing="multistart", tol=1e-6, width=32, max_steps=60, move_steps=200, num_starts=64, final_starts=256
    )
    solution = solve(problem, solver)
    gaps = 1 - np.asarray(solution.history.bound) / np.asarray(solution.history.objective)
    assert solution.status == Status.CONVERGED and gaps[-1] <= 1e-6
    assert solution.network.hidden.dtype == jnp.float32
    with jax.enable_x64(True):
        network = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), solution.network)
        data = (np.asarray(a, float) for a in (problem.X, problem.Y))
        value = training_objective(network, *data, float(problem.beta))
    assert float(value) == pytest.approx(float(solution.upper_bound), rel=1e-12)
