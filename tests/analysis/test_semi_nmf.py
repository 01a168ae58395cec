"""Semi-NMF: the factors of a given network, and the optimal factors of spike-free data."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import InvalidInputError, Network, fit_whitening, make_problem, semi_nmf
from jaxcvx.analysis.closed_forms import whitened_value
from tests.helpers import adam_objectives, gaussian_data, network_value


def test_factors_of_a_network():
    X, Y = gaussian_data(0, 7, 3, 2)
    hidden, output = gaussian_data(1, 4, 3, 2)
    output[2] = 0
    factors = semi_nmf(make_problem(X, Y, 0.1), Network(jnp.asarray(hidden), jnp.asarray(output)))
    H, V = np.asarray(factors.H), np.asarray(factors.V)
    assert H.shape == (7, 3) and V.shape == (3, 2) and H.min() >= 0
    predictions = np.maximum(X @ hidden.T, 0) @ output
    np.testing.assert_allclose(H @ V, predictions, atol=1e-12)
    assert float(factors.fit) == pytest.approx(np.linalg.norm(predictions - Y))


@pytest.mark.long
@pytest.mark.parametrize("c", [1, 2])
def test_spike_free_data(c):
    X, Y = gaussian_data(2, 6, 10, c)
    X, beta = np.asarray(fit_whitening(X)(X)), 0.4
    factors = semi_nmf(make_problem(X, Y, beta))
    U, V = np.asarray(factors.network.hidden), np.asarray(factors.V)
    np.testing.assert_allclose(factors.H, X @ U.T, atol=1e-6)  # active on every sample
    value = network_value(U, V, X, Y, beta)
    if c == 1:
        sizes = np.linalg.norm(np.maximum(np.concatenate([Y, -Y], axis=1), 0), axis=0)
        assert value == pytest.approx(float(whitened_value(sizes, beta)), rel=1e-6)
    else:
        best = adam_objectives(X, Y, beta, runs=3, width=12).min()
        assert best * (1 - 1e-6) <= value <= best * 1.1


@pytest.mark.long
def test_rank_one_data_of_one_sign():
    rng = np.random.default_rng(0)
    X, Y = np.abs(rng.standard_normal((6, 1))) @ rng.standard_normal((1, 3)), rng.standard_normal((6, 1))
    factors = semi_nmf(make_problem(X, Y, 0.1))
    assert factors.H.shape == (6, 1) and float(factors.H.min()) >= 0


def test_other_problems_are_refused():
    X, Y = gaussian_data(0, 7, 3)
    with pytest.raises(InvalidInputError, match="^problem.X: got data that are not spike-free"):
        semi_nmf(make_problem(X, Y, 0.1))
    with pytest.raises(InvalidInputError, match="^problem: got loss 'huber'"):
        semi_nmf(make_problem(X, Y, 0.1, loss="huber"))
    with pytest.raises(InvalidInputError, match="^network: got hidden"):
        semi_nmf(make_problem(X, Y, 0.1), Network(jnp.ones((2, 4)), jnp.ones((2, 1))))
