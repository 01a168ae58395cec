"""Spike-freeness: the exact test against the ascent, against its definition, and on known cases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    CuttingPlane,
    InvalidInputError,
    InvalidTypeError,
    fit_whitening,
    is_spike_free,
    make_problem,
    solve,
    spike_free_solution,
    spike_free_witness,
)
from jaxcvx.analysis.spike_free import spike_free_statistic
from tests.helpers import gaussian_data, targets_for


def inverse_m_matrix(seed: int, n: int) -> np.ndarray:
    """Draw rows X for which (X X^T)^-1 is diagonally dominant with off-diagonal entries <= 0."""
    A = np.abs(np.random.default_rng(seed).standard_normal((n, n)))
    M = np.diag(2 * (A + A.T).sum(axis=1)) - (A + A.T)
    return np.linalg.cholesky(np.linalg.inv(M))


def statistic(X: np.ndarray) -> float:
    return float(spike_free_statistic(jnp.asarray(X), jax.random.key(0), num_starts=64, num_steps=300))


def test_known_cases():
    X, _ = gaussian_data(0, 6, 15)
    coefficients, direction = gaussian_data(1, 6, 1)[0], gaussian_data(2, 1, 4)[0]
    white = np.asarray(fit_whitening(X)(X))
    scales = np.arange(1, 7.0)[:, None]
    assert is_spike_free(white) and is_spike_free(scales * white)
    assert is_spike_free(np.abs(coefficients) @ direction) and is_spike_free(-np.abs(coefficients) @ direction)
    assert not is_spike_free(coefficients @ direction)
    assert not is_spike_free(X) and not is_spike_free(X.T)
    assert is_spike_free(np.zeros((2, 3)))


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(3))
def test_inverse_m_matrices_are_spike_free(seed):
    X = inverse_m_matrix(seed, 5)
    assert is_spike_free(X)
    assert statistic(X) == pytest.approx(1, abs=1e-9)
    repeated = np.concatenate([X, 3 * X[:2], np.zeros((1, 5))])
    assert is_spike_free(repeated)
    assert not is_spike_free(np.concatenate([X, -X[:1]]))


def test_the_ascent_finds_spikes_of_data_that_are_not_spike_free():
    for seed in range(4):
        X = inverse_m_matrix(seed, 5)
        inverse = np.linalg.inv(X @ X.T)
        inverse[0, 1] = inverse[1, 0] = 0.2 * np.sqrt(inverse[0, 0] * inverse[1, 1])
        spiked = np.linalg.cholesky(np.linalg.inv(inverse))
        assert not is_spike_free(spiked)
        assert statistic(spiked) > 1 + 1e-3


def test_the_statistic_falls_to_one_from_above():
    values = [statistic(gaussian_data(0, 8, d)[0]) for d in (20, 80, 800)]
    assert 1.05 < values[0] and 1.02 < values[1] < values[0] and 1 < values[2] < 1.01
    assert statistic(np.asarray(fit_whitening(gaussian_data(0, 8, 20)[0])(gaussian_data(0, 8, 20)[0]))) <= 1 + 1e-12


def test_tolerance():
    X = gaussian_data(0, 8, 800)[0]
    assert not is_spike_free(X) and is_spike_free(X, 0.1)
    assert not is_spike_free(gaussian_data(0, 8, 20)[0], 0.01)


def test_bad_arguments_are_refused():
    with pytest.raises(InvalidInputError, match="^tolerance: got -1"):
        is_spike_free(np.ones((2, 3)), -1)
    with pytest.raises(InvalidInputError, match="^X: "):
        is_spike_free(np.full((2, 3), np.nan))
    with pytest.raises(InvalidTypeError, match="is_spike_free: got traced"):
        jax.jit(is_spike_free)(np.ones((2, 3)))


@pytest.mark.routine(2)
@pytest.mark.parametrize("shape", [(5, 8), (5, 5), (8, 3), (6, 1)])
def test_witnesses_can_be_checked_by_least_squares(shape):
    X, _ = gaussian_data(7, *shape)
    u = np.asarray(spike_free_witness(X))
    assert np.linalg.norm(u) == pytest.approx(1)
    target = np.maximum(X @ u, 0)
    w, *_ = np.linalg.lstsq(X, target, rcond=None)
    assert np.linalg.norm(X @ w - target) > 1e-6 or np.linalg.norm(w) > 1 + 1e-9
    assert spike_free_witness(np.asarray(fit_whitening(gaussian_data(0, 4, 6)[0])(gaussian_data(0, 4, 6)[0]))) is None


@pytest.mark.long
@pytest.mark.parametrize("loss", ["squared", "hinge", "logistic"])
def test_two_neurons_solve_spike_free_data(loss):
    X = inverse_m_matrix(0, 5)
    Y = targets_for(loss, gaussian_data(1, 5, 1)[0])
    problem = make_problem(X, Y, 0.05, loss=loss)
    solution = spike_free_solution(problem)
    assert solution.scope == "global" and solution.network.width <= 2
    exact = solve(problem, CuttingPlane(tol=1e-9))
    assert float(solution.upper_bound) == pytest.approx(float(exact.upper_bound), rel=1e-6)
    assert solution.lower_bound <= exact.upper_bound * (1 + 1e-9)
    other = solve(problem, CuttingPlane(tol=1e-8, oracle="faces"))  # an oracle that does not use spike-freeness
    assert float(other.upper_bound) == pytest.approx(float(exact.upper_bound), rel=1e-6)


def test_other_data_have_no_two_neuron_program():
    X, Y = gaussian_data(0, 6, 3)
    with pytest.raises(InvalidInputError, match="^problem.X: got data that are not spike-free"):
        spike_free_solution(make_problem(X, Y, 0.1))
    with pytest.raises(InvalidInputError, match="^problem: got 2 output weights"):
        spike_free_solution(make_problem(np.eye(3), np.eye(3)[:, :2], 0.1))
