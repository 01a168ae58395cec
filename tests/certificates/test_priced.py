"""Certificates by pricing: their bounds, their scopes, and the constraint of a skip connection."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Dense, Network, beta_max, certify, enumerate_arrangements, make_problem, training_objective
from jaxcvx.certificates.priced import certify_priced
from jaxcvx.pricing.oracles import choose_pricer
from tests.helpers import adam_objectives, gaussian_data


@pytest.mark.routine(1)
@pytest.mark.parametrize("method", ["exact", "multistart", "branch"])
def test_bounds_by_each_pricer(method):
    X, Y = gaussian_data(3, 8, 2, 2)
    beta = 0.3
    problem = make_problem(X, Y, beta)
    rng = np.random.default_rng(0)
    network = Network(jnp.asarray(rng.standard_normal((4, 2))), jnp.asarray(rng.standard_normal((4, 2))))
    pricer = choose_pricer(problem, method, 16, 500)
    made = certify_priced(problem, network, pricer, None, jax.random.key(0), 1, 64)
    best = adam_objectives(X, Y, beta, runs=5).min()
    assert made.upper == pytest.approx(float(training_objective(network, X, Y, beta)), rel=1e-12)
    assert made.lower <= best
    if method == "exact":
        assert made.scope == "global" and made.lower >= 0
        closer = certify_priced(problem, network, pricer, problem.Y, None, 1, 1)
        assert made.lower <= closer.lower <= best  # another dual point can only help
    elif method == "multistart":
        assert made.scope == "heuristic" and made.lower == -np.inf and made.heuristic_bound <= made.upper
    else:
        assert made.scope in ("global", "relaxation") and 0 <= made.lower <= made.heuristic_bound * (1 + 1e-6)


@pytest.mark.long
def test_a_skip_connection_that_the_network_does_not_use_still_counts():
    # Linear targets: a skip connection fits them at a penalty that no neurons match.
    rng = np.random.default_rng(1)
    X = rng.standard_normal((8, 2))
    S = np.array([[3.0, -1.0], [0.5, 2.0]])
    Y, beta, features = X @ S, 2.0, Dense(skip=True)
    zero = jnp.zeros((1, 2))
    linear = Network(zero, zero, jnp.asarray(S), features)
    reached = float(training_objective(linear, X, Y, beta))
    for seed in range(5):
        hidden = np.random.default_rng(seed).standard_normal((3, 2))
        without = Network(jnp.asarray(hidden), jnp.asarray(0.1 * hidden), None, features)
        for method in ("exact", "auto", "relaxed"):
            made = certify(without, X, Y, beta, method=method)
            assert made.lower <= reached, method


def test_beta_max_of_several_outputs_counts_the_skip_connection():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((8, 2))
    Y = X @ np.array([[3.0, -1.0], [0.5, 2.0]])
    cells = enumerate_arrangements(X)
    plain = make_problem(X, Y, 1.0, arrangements=cells)
    skip = make_problem(X, Y, 1.0, arrangements=cells, features=Dense(skip=True))
    assert float(beta_max(skip, "network")) == pytest.approx(np.linalg.norm(X.T @ Y), rel=1e-12)
    assert float(beta_max(plain, "network")) < float(beta_max(skip, "network"))
