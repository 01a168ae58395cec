"""Trajectories: the recorded params of several solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.problems.least_squares import LeastSquares, linear
from tests.helpers import gaussian_data


def _problem():
    X, y = gaussian_data(0, 5, 8)
    return LeastSquares(jnp.asarray(X), jnp.asarray(y[:, 0]), jnp.zeros(8), linear), X, y[:, 0]


def test_gradient_descent_by_hand():
    problem, X, y = _problem()
    path = jaxcvx.trajectory(problem, jaxcvx.GradientDescent(optimizer=optax.sgd(0.05)), 6)
    theta = np.zeros(8)
    for step in range(7):
        np.testing.assert_allclose(path[step], theta, atol=1e-13)
        theta = theta - 0.05 * X.T @ (X @ theta - y)
    every = jaxcvx.trajectory(problem, jaxcvx.GradientDescent(optimizer=optax.sgd(0.05)), 6, every=3)
    np.testing.assert_allclose(every, path[::3], atol=1e-13)


def test_networks_convex_programs_and_noise():
    X, Y = gaussian_data(1, 8, 2)
    cells = jaxcvx.enumerate_arrangements(X)
    problem = jaxcvx.make_problem(X, Y, 0.1, arrangements=cells)
    key = jax.random.key(0)
    networks = jaxcvx.trajectory(problem, jaxcvx.AnnealedNoise(width=3), 4, key=key)
    assert networks.hidden.shape == (5, 3, 2) and float(jaxcvx.path_report(networks).distance) > 0
    blocks = jaxcvx.trajectory(problem, jaxcvx.ProximalGradient(), 4)
    assert blocks.shape == (5, len(cells), 2, 1) and not blocks[0].any() and blocks[4].any()


def test_works_under_vmap():
    problem, *_ = _problem()
    solver = jaxcvx.GradientDescent(optimizer=optax.sgd(0.01), batch_size=1)
    keys = jax.random.split(jax.random.key(0), 2)
    paths = jax.vmap(lambda key: jaxcvx.trajectory(problem, solver, 3, key=key))(keys)
    assert paths.shape == (2, 4, 8)
    np.testing.assert_allclose(paths[1], jaxcvx.trajectory(problem, solver, 3, key=keys[1]), atol=1e-13)


def test_bad_input_is_named():
    problem, *_ = _problem()
    with pytest.raises(InvalidInputError, match="num_steps"):
        jaxcvx.trajectory(problem, jaxcvx.GradientDescent(), 0)
    with pytest.raises(InvalidInputError, match="every"):
        jaxcvx.trajectory(problem, jaxcvx.GradientDescent(), 3, every=0)
    with pytest.raises(InvalidTypeError, match="solver"):
        jaxcvx.trajectory(problem, jaxcvx.ColumnGeneration(), 3)
