"""reduce_width: same predictions, no larger penalty, at most n c + 1 neurons."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import ConvPool, Network, make_problem
from jaxcvx.networks.network import balanced_penalty
from jaxcvx.networks.width import reduce_width


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "c", "width"), [(4, 1, 40), (3, 2, 30), (5, 2, 12)])
@pytest.mark.parametrize("seed", [0, 1])
def test_reduced_width_keeps_predictions_and_penalty(n, c, width, seed):
    rng = np.random.default_rng(seed)
    problem = make_problem(rng.standard_normal((n, 3)), rng.standard_normal((n, c)), 0.1)
    network = Network(jnp.asarray(rng.standard_normal((width, 3))), jnp.asarray(rng.standard_normal((width, c))))
    smaller = reduce_width(problem, network)
    assert smaller.width <= n * c + 1
    np.testing.assert_allclose(smaller(problem.X), network(problem.X), atol=1e-9)
    assert float(balanced_penalty(smaller)) <= float(balanced_penalty(network)) * (1 + 1e-12)


def test_narrow_networks_stay():
    rng = np.random.default_rng(0)
    problem = make_problem(rng.standard_normal((6, 3)), rng.standard_normal((6, 1)), 0.1)
    network = Network(jnp.asarray(rng.standard_normal((7, 3))), jnp.asarray(rng.standard_normal((7, 1))))
    assert reduce_width(problem, network).width == 7


def test_convolutions():
    rng = np.random.default_rng(1)
    features = ConvPool((2,), pool="sum")
    problem = make_problem(rng.standard_normal((3, 5, 1)), rng.standard_normal(3), 0.1, features=features)
    network = Network(
        jnp.asarray(rng.standard_normal((20, 2))), jnp.asarray(rng.standard_normal((20, 1))), None, features
    )
    smaller = reduce_width(problem, network)
    assert smaller.width <= 4
    np.testing.assert_allclose(smaller(problem.X), network(problem.X), atol=1e-9)
