"""The cone pricer: exact on spike-free data; on other data its neuron's price is a lower bound."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import enumerate_arrangements, fit_whitening
from jaxcvx.pricing.faces import face_table, price_exact
from jaxcvx.pricing.spike_free import price_cone, spike_free
from tests.helpers import gaussian_data

EPS = 1e-14


def exact_price(X: np.ndarray, R: np.ndarray) -> float:
    cells = enumerate_arrangements(X)
    table = face_table(X, cells.masks, cells.gates)
    return float(price_exact(table, jnp.asarray(X), cells.masks, jnp.asarray(R)).values[0])


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(3))
def test_whitened_rows(seed):
    X, R = gaussian_data(seed, 4, 6)
    X = np.asarray(fit_whitening(X)(X))
    priced = price_cone(jnp.asarray(X), jnp.asarray(R))
    sizes = np.linalg.norm(np.maximum(R, 0)), np.linalg.norm(np.maximum(-R, 0))
    assert spike_free(X, EPS)
    np.testing.assert_allclose(priced.values, sorted(sizes, reverse=True), rtol=1e-12)
    assert max(sizes) <= float(priced.upper) <= max(sizes) * (1 + 1e-9) + 1e-12
    assert exact_price(X, R) == pytest.approx(max(sizes), rel=1e-10)


def test_other_spike_free_rows_and_others():
    rng = np.random.default_rng(0)
    A = np.abs(rng.standard_normal((4, 4)))
    inverse = np.diag(2 * (A + A.T).sum(axis=1)) - (A + A.T)  # an M-matrix
    X, R = np.linalg.cholesky(np.linalg.inv(inverse)), rng.standard_normal((4, 1))
    assert spike_free(X, EPS)
    assert float(price_cone(jnp.asarray(X), jnp.asarray(R)).values[0]) == pytest.approx(exact_price(X, R), rel=1e-9)
    below = []
    for seed in range(5):
        X, R = gaussian_data(seed, 6, 2)
        assert not spike_free(X, EPS)
        found = float(price_cone(jnp.asarray(X), jnp.asarray(R)).values[0])
        assert found <= exact_price(X, R) * (1 + 1e-9)
        below.append(found < 0.99 * exact_price(X, R))
    assert any(below)
