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
