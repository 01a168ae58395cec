"""Starts with neurons that no gradient moves, and fixed points that are not minima."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.networks.objective import TrainingObjective

X = np.random.default_rng(0).normal(size=(12, 2))
Y = np.maximum(X[:, 0], 0) - np.maximum(X[:, 1], 0)
ZEROS = jaxcvx.Network(np.zeros((8, 2)), np.zeros((8, 1)))


def _problem(**options):
    return jaxcvx.make_problem(X, Y, 0.1, **options)


STARTS = {
    "one neuron": jaxcvx.Network(np.array([[1.0, 0.0]]), np.array([[1.0]])),
    "a zero neuron": jaxcvx.Network(np.zeros((1, 2)), np.zeros((1, 1))),
    "zeros": ZEROS,
    "zero hidden weights": jaxcvx.Network(np.zeros((8, 2)), np.ones((8, 1))),
    "all neurons the same zero": jaxcvx.Network(np.zeros((2, 2)), np.array([[1.0], [-1.0]])),
}


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize(
    "solver",
    [
        jaxcvx.GradientDescent(width=8, max_steps=1000),
        jaxcvx.Jaxopt(optax.lbfgs(), width=8, max_steps=200),
        jaxcvx.AnnealedNoise(width=8, max_steps=2000, epoch_length=100),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_every_start_uses_the_whole_width(name, solver):
    cold = float(jaxcvx.solve(_problem(), solver, key=jax.random.key(0)).upper_bound)
    warm = jaxcvx.solve(_problem(), solver, init=STARTS[name], key=jax.random.key(0))
    assert float(warm.upper_bound) < 1.5 * cold


def test_neurons_that_are_active_nowhere_are_replaced():
    positive = jaxcvx.make_problem(np.abs(X), Y, 0.1)
    idle = jaxcvx.Network(-np.ones((8, 2)), np.ones((8, 1)))
    solver = jaxcvx.GradientDescent(width=8, max_steps=500)
    nothing = float(positive.loss.value(0 * positive.Y, positive.Y))
    assert float(jaxcvx.solve(positive, solver, init=idle, key=jax.random.key(0)).upper_bound) < 0.9 * nothing


@pytest.mark.parametrize("features", [jaxcvx.Dense(), jaxcvx.Dense(bias=True, output_bias=True), jaxcvx.FreeBias()])
def test_predictions_and_living_neurons_of_the_start_stay(features):
    problem = _problem(features=features)
    objective = TrainingObjective(problem, 6)
    rng, p = np.random.default_rng(1), problem.rows.shape[1]
    bias = jnp.array([0.4]) if features.output_bias else None
    start = jaxcvx.Network(
        jnp.asarray(rng.normal(size=(3, p))), jnp.asarray(rng.normal(size=(3, 1))), None, features, bias
    )
    full = jax.jit(lambda net: objective.completed(objective.adopt(net), jax.random.key(0)))(start)
    np.testing.assert_allclose(full(problem.X), start(problem.X), rtol=1e-12)
    np.testing.assert_array_equal(full.hidden[:3], start.hidden)
    assert not np.any(objective.idle(full))
    assert float(objective.objective(full)) < float(objective.objective(start)) * (1 + 1e-3)


def test_a_point_with_idle_neurons_that_would_pay_is_not_converged():
    objective = TrainingObjective(_problem(), 8)
    assert bool(objective.improvable(jax.tree.map(jnp.asarray, ZEROS)))
    beyond = TrainingObjective(_problem().replace(beta=1e3), 8)
    assert not bool(beyond.improvable(jax.tree.map(jnp.asarray, ZEROS)))


def test_a_zero_start_at_a_beta_without_network_is_converged_at_zero():
    problem = _problem().replace(beta=1e3)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=8, max_steps=3000), init=ZEROS, key=jax.random.key(0))
    assert float(solution.upper_bound) == pytest.approx(0.5 * float(np.sum(Y**2)), rel=1e-3)


def test_saddle_points_of_other_smooth_problems_are_not_converged():
    operators = np.random.default_rng(2).normal(size=(30, 4, 4))
    operators = operators + operators.transpose(0, 2, 1)
    truth = np.outer(np.arange(4.0), np.arange(4.0))
    sensing = jaxcvx.MatrixSensing(operators, np.einsum("nij,ij->n", operators, truth), rank=1)
    rows, cols = np.divmod(np.arange(12), 4)
    completion = jaxcvx.MatrixCompletion(rows, cols, np.outer([1.0, 2, 3], [1.0, -1, 2, 1])[rows, cols], (3, 4), rank=1)
    starts = (np.zeros((4, 1)), jax.tree.map(jnp.zeros_like, completion.initial_params(jax.random.key(0))))
    for problem, init in zip((sensing, completion), starts, strict=True):
        for solver in (jaxcvx.GradientDescent(max_steps=100), jaxcvx.Jaxopt(optax.adam(1e-2), max_steps=100)):
            solution = jaxcvx.solve(problem, solver, init=init, key=jax.random.key(0))
            assert int(solution.status) != jaxcvx.Status.CONVERGED
    good = jaxcvx.solve(sensing, jaxcvx.GradientDescent(max_steps=3000), key=jax.random.key(0))
    assert int(good.status) == jaxcvx.Status.CONVERGED


def test_warm_starts_of_estimators_from_strong_to_weak_decay():
    from jaxcvx.estimators import ConvexReLURegressor

    options = {"beta_scale": "relative", "max_iter": 16, "random_state": 0}
    warm = ConvexReLURegressor(beta=1.5, warm_start=True, **options).fit(X, Y)
    assert not warm.network_.output.any()
    for beta in (0.5, 0.01):
        warm.set_params(beta=beta).fit(X, Y)
    cold = ConvexReLURegressor(beta=0.01, **options).fit(X, Y)
    assert warm.score(X, Y) > 0.95 and warm.objective_ == pytest.approx(cold.objective_, rel=1e-3)
