"""The numbers that a path reports are those of its networks, in the caller's units."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.solvers.core.solution import Status
from jaxcvx.solvers.semi_infinite.neuron_path import NeuronPath
from jaxcvx.solvers.semi_infinite.path_report import report
from jaxcvx.solvers.semi_infinite.pool import Pool
from jaxcvx.solvers.semi_infinite.scaling import scaled_problem
from jaxcvx.solvers.semi_infinite.sliding import Candidates
from tests.helpers import gaussian_data, network_value

BETAS = jnp.array([2.0, 0.5, 1.0, -1.0])


@pytest.fixture
def reported():
    """Four networks: two random ones, one with a NaN, and one at a negative beta. X and Y are far from unit scale."""
    X, Y = gaussian_data(0, 20, 3)
    X, Y = 8.0 * X, 32.0 * Y
    problem = jaxcvx.make_problem(X, Y, 1.0)
    rng = np.random.default_rng(1)
    U, W = rng.standard_normal((4, 5, 3)), rng.standard_normal((4, 5, 1))
    U /= np.linalg.norm(U, axis=2, keepdims=True)
    W[2, 0] = np.nan
    found = rng.standard_normal((4, 200, 3))  # enough to pay more than the own neurons
    pools = Pool(jnp.asarray(U), jnp.asarray(W), jnp.zeros((4, 1)))
    candidates = Candidates(jnp.asarray(found), jnp.ones((4, 200)))
    path = NeuronPath(pools, candidates, jnp.zeros((4, 2, 3)), jnp.arange(4))
    _, scaling = scaled_problem(problem)
    return X, Y, U, found, report(problem, BETAS, path, scaling, jnp.asarray(0.5), jnp.float64)


def test_objectives_and_bounds_by_numpy(reported):
    X, Y, U, found, solution = reported
    for k in range(2):
        hidden, output = np.asarray(solution.network.hidden[k]), np.asarray(solution.network.output[k])
        beta = float(BETAS[k])
        assert solution.upper_bound[k] == pytest.approx(network_value(hidden, output, X, Y, beta, "squared"))
        R = Y - np.maximum(X @ hidden.T, 0) @ output
        units = np.concatenate([U[k], found[k] / np.linalg.norm(found[k], axis=1, keepdims=True)])
        prices = np.abs(R.T @ np.maximum(X @ units.T, 0))[0]
        price = prices.max()
        assert np.argmax(prices) >= 5
        share = np.clip((R * Y).sum() / (R**2).sum(), 0, beta / price)  # the best feasible multiple of R
        dual = share * (R * Y).sum() - 0.5 * share**2 * (R**2).sum()
        assert solution.heuristic_bound[k] == pytest.approx(min(dual, float(solution.upper_bound[k])))
    assert np.all(solution.lower_bound == -np.inf) and np.all(solution.gap == np.inf)  # nothing is proved


def test_failures_have_a_status_and_no_nan(reported):
    solution = reported[-1]
    assert list(solution.status[2:]) == [Status.DIVERGED, Status.INVALID_INPUT]
    assert np.all(solution.upper_bound[2:] == np.inf) and np.all(solution.heuristic_bound[2:] == -np.inf)
    assert np.all(solution.network.hidden[2:] == 0) and solution.num_steps[3] == 0
