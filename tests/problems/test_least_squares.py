"""Least squares: values, samples, and the four models, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.problems.least_squares import (
    LeastSquares,
    generalised_linear,
    linear,
    mixed,
    one_hidden_layer,
    quadratic,
)

RNG = np.random.default_rng(0)
X, SQUARES, Y = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 4, 4)), RNG.standard_normal(6)
THETA = RNG.standard_normal((4, 2))
PHI = mixed(jnp.tanh, 0.3)
CASES = {
    "linear": (linear, X, THETA[:, 0], X @ THETA[:, 0]),
    "glm": (generalised_linear(PHI), X, THETA[:, 0], 0.7 * np.tanh(X @ THETA[:, 0]) + 0.3 * X @ THETA[:, 0]),
    "quadratic": (quadratic, SQUARES, THETA, [np.trace(THETA.T @ A @ THETA) for A in SQUARES]),
    "hidden": (
        one_hidden_layer(jnp.tanh, (0.5, -1.0)),
        X,
        THETA.T,
        np.tanh(X @ THETA) @ np.array([0.5, -1.0]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_models(name):
    model, inputs, theta, outputs = CASES[name]
    problem = LeastSquares(jnp.asarray(inputs), jnp.asarray(Y), jnp.asarray(theta), model)
    np.testing.assert_allclose(problem.outputs(problem.start), outputs, rtol=1e-12)
    np.testing.assert_allclose(problem.objective(problem.start), ((outputs - Y) ** 2).sum() / 2, rtol=1e-12)
    assert problem.num_samples == 6 and problem.lower_bound() == 0


def test_samples_are_unbiased():
    problem = LeastSquares(jnp.asarray(X), jnp.asarray(Y), jnp.asarray(THETA[:, 0]), linear)
    keys = jax.random.split(jax.random.key(0), 20_000)
    values = jax.vmap(lambda key: problem.sampled_objective(problem.start, key, 2))(keys)
    assert abs(float(values.mean() - problem.objective(problem.start))) < 4 * float(values.std()) / 20_000**0.5


def test_solvers_take_it():
    problem = LeastSquares(jnp.asarray(X), jnp.asarray(Y), jnp.zeros(4), linear)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(max_steps=5000))
    best = np.linalg.lstsq(X, Y, rcond=None)[0]
    np.testing.assert_allclose(solution.params, best, atol=1e-4)
    assert solution.scope == "global" and solution.lower_bound == 0
