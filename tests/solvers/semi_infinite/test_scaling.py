"""The same problem in other units: objectives, networks and dual residuals are converted correctly."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Dense, Network, make_problem
from jaxcvx.networks.network import balance, network_objective
from jaxcvx.solvers.semi_infinite.scaling import scaled_problem
from tests.helpers import gaussian_data


@pytest.mark.routine(2)
@pytest.mark.parametrize(("x", "y"), [(1.0, 1.0), (1e5, 1e-3), (1e-120, 1e120), (3.0, 7.0)])
def test_objective_and_network(x, y):
    X, Y = gaussian_data(0, 9, 3, 2)
    problem = make_problem(x * X, y * Y, 0.1 * x * y)
    work, scaling = scaled_problem(problem)
    assert 0.5 <= float(jnp.sqrt(jnp.mean(work.X**2))) <= 2 and 0.5 <= float(jnp.sqrt(jnp.mean(work.Y**2))) <= 2
    rng = np.random.default_rng(1)
    network = balance(Network(jnp.asarray(rng.standard_normal((5, 3))), jnp.asarray(rng.standard_normal((5, 2)))))
    value = float(network_objective(network, work))
    back = scaling.network(network, problem)
    assert float(network_objective(back, problem)) == pytest.approx(scaling.objective(value), rel=1e-12)
    again = scaling.scale_network(back)
    np.testing.assert_allclose(again.hidden, network.hidden, rtol=1e-12)
    np.testing.assert_allclose(again.output, network.output, rtol=1e-12)
    residual = work.Y - network(work.X)
    np.testing.assert_allclose(
        scaling.residual(residual), problem.Y - back(problem.X), atol=1e-11 * scaling.y * float(jnp.abs(residual).max())
    )


def test_data_that_must_not_be_scaled_are_kept():
    X, Y = gaussian_data(1, 9, 3)
    _, scaling = scaled_problem(make_problem(1e3 * X, 1e3 * Y, 0.1, features=Dense(bias=True)))
    assert scaling.x == 1.0 and scaling.y > 100
    _, scaling = scaled_problem(make_problem(1e3 * X, np.sign(Y), 0.1, loss="logistic"))
    assert scaling.x > 100 and scaling.y == 1.0


def test_lower_precision():
    X, Y = gaussian_data(2, 9, 3)
    work, scaling = scaled_problem(make_problem(1e60 * X, Y, 1e59), jnp.float32)
    assert work.X.dtype == jnp.float32 and bool(jnp.isfinite(work.X).all())
    assert float(work.beta) == pytest.approx(1e59 / scaling.x / scaling.y, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("features", [Dense(), Dense(bias=True), Dense(bias=True, output_bias=True)])
def test_wide_data_are_turned_into_the_space_of_their_rows(features, weighted):
    X, Y = gaussian_data(0, 5, 40, 1)
    weight = np.arange(1.0, 6.0) if weighted else None
    problem = make_problem(X, Y + 3, 0.1, features=features, sample_weight=weight)
    work, scaling = scaled_problem(problem)
    assert work.rows.shape == (5, 5)
    rng = np.random.default_rng(1)
    bias = jnp.asarray([0.3]) if features.output_bias else None
    inner = Network(
        jnp.asarray(rng.standard_normal((4, 5))), jnp.asarray(rng.standard_normal((4, 1))), None, work.features, bias
    )
    back = scaling.network(balance(inner), problem)
    assert back.features == features and back.hidden.shape == (4, problem.rows.shape[1])
    value = float(scaling.objective(network_objective(balance(inner), work)))
    assert float(network_objective(back, problem)) == pytest.approx(value, rel=1e-11)
    again = scaling.scale_network(back)
    np.testing.assert_allclose(again.hidden, balance(inner).hidden, rtol=1e-10)
    foreign = jnp.asarray(rng.standard_normal((3, problem.rows.shape[1])))
    outside = Network(foreign, jnp.ones((3, 1)), None, features, None if bias is None else bias)
    turned = scaling.scale_network(outside)  # a part of the weights is lost, but no prediction changes
    np.testing.assert_allclose(scaling.network(turned, problem)(problem.X), outside(problem.X), rtol=1e-9)
    assert float(network_objective(scaling.network(turned, problem), problem)) < float(
        network_objective(balance(outside), problem)
    )
