"""The functions of the neuron pool: inserting, reweighting, moving, resizing."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import ConvFlatten, ConvPool, Dense, Network, make_problem
from jaxcvx.networks.network import network_objective
from jaxcvx.solvers.neurons.group_lasso import fit_atoms
from jaxcvx.solvers.semi_infinite.pool import (
    Pool,
    dual_residual,
    fit_pool,
    fit_weights,
    insert,
    pool_network,
    pool_objective,
    pool_of,
    resize,
)

FEATURES = {"dense": Dense(), "pool": ConvPool((2,)), "flatten": ConvFlatten((2,))}


def setting(name: str, width: int = 6):
    """Build a small problem and a random pool with two empty slots."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3) if name == "dense" else (12, 4, 1))
    problem = make_problem(X, rng.standard_normal((12, 2)), 0.3, features=FEATURES[name])
    p, q = problem.rows.shape[1], problem.num_columns
    hidden = np.concatenate([rng.standard_normal((width, p)), np.zeros((2, p))])
    network = Network(jnp.asarray(hidden), jnp.asarray(rng.standard_normal((width + 2, q))), None, problem.features)
    return problem, network, pool_of(problem, network)


@pytest.mark.routine(2)
@pytest.mark.parametrize("name", FEATURES)
def test_pool_and_network_have_the_same_objective(name):
    problem, network, pool = setting(name)
    back = pool_network(problem, pool)
    np.testing.assert_allclose(back(problem.X), network(problem.X), atol=1e-12)
    norms = np.linalg.norm(np.asarray(pool.directions), axis=1)
    np.testing.assert_allclose(norms, [1] * 6 + [0] * 2, atol=1e-12)
    assert not np.asarray(pool.weights)[6:].any()
    assert float(pool_objective(problem, pool)) == pytest.approx(float(network_objective(back, problem)))
    np.testing.assert_allclose(dual_residual(problem, pool), problem.Y - network(problem.X), atol=1e-12)


def test_neurons_with_underflowing_weights_free_their_slots():
    """Weights of 1e-38 in float32: their squares underflow, so the computed norm is wrong and the direction is lost."""
    hidden = jnp.asarray([[3.0, 4.0], [1e-19, 2e-19], [1.0, 0.0]], jnp.float32)
    output = jnp.asarray([[1.0], [1e-19], [0.5]], jnp.float32)
    problem = make_problem(np.ones((3, 2), np.float32), np.ones(3, np.float32), 1.0)
    pool = pool_of(problem, Network(hidden, output, None, Dense()))
    np.testing.assert_allclose(pool.directions, [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    np.testing.assert_allclose(pool.weights, [[5.0], [0], [0.5]], rtol=1e-6)


@pytest.mark.routine(2)
@pytest.mark.parametrize("name", FEATURES)
def test_reweighting_is_the_group_lasso(name):
    problem, _, pool = setting(name)
    reweighted = fit_pool(problem, pool, 3000)
    atoms = jnp.maximum(problem.rows @ pool.directions.T, 0)
    exact = fit_atoms(atoms, problem.Y, problem.beta, problem.readout)
    assert float(pool_objective(problem, reweighted)) == pytest.approx(float(exact.objective), rel=1e-8)
    assert float(pool_objective(problem, reweighted)) < float(pool_objective(problem, pool))


@pytest.mark.parametrize("output_bias", [False, True])
def test_exact_weights_have_the_residual_of_their_predictions(output_bias):
    problem, network, _ = setting("dense")
    problem = problem.replace(features=Dense(output_bias=output_bias), Y=problem.Y + 100.0)
    pool = pool_of(problem, network)
    fitted, R = fit_weights(problem, pool)
    np.testing.assert_allclose(R, problem.Y - pool_network(problem, fitted)(problem.X), atol=1e-7)
    prices = np.linalg.norm(np.maximum(problem.rows @ fitted.directions.T, 0).T @ R, axis=1)
    used = np.any(np.asarray(fitted.weights) != 0, axis=1)
    np.testing.assert_allclose(prices[used], problem.beta, rtol=1e-6)
    if output_bias:
        np.testing.assert_allclose(np.sum(R, axis=0), 0.0, atol=1e-9)
        assert np.all(np.asarray(fitted.bias) > 50)


def test_inserting_takes_free_slots_only():
    problem, _, pool = setting("dense")
    new = jnp.asarray(np.eye(3))
    fuller = insert(pool, new, jnp.asarray([True, False, True]))
    np.testing.assert_array_equal(fuller.directions[:6], pool.directions[:6])
    np.testing.assert_array_equal(np.asarray(fuller.directions)[6:], np.eye(3)[[0, 2]])
    assert float(pool_objective(problem, fuller)) == float(pool_objective(problem, pool))
    overfull = insert(pool, new, jnp.ones(3, bool))
    np.testing.assert_array_equal(np.asarray(overfull.directions)[6:], np.eye(3)[[0, 1]])


def test_resizing_keeps_the_strongest():
    directions = jnp.asarray(np.eye(4))
    pool = Pool(directions, jnp.asarray([[1.0], [0.0], [-3.0], [2.0]]), jnp.zeros(1))
    small = resize(pool, 2)
    assert small.weights.ravel().tolist() == [-3.0, 2.0]
    large = resize(pool, 8)
    assert large.weights.shape == (8, 1) and np.count_nonzero(large.weights) == 3
