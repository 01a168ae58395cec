"""GradientDescent: the baseline must be honest too."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx

X = np.random.default_rng(0).standard_normal((30, 4))
Y = np.random.default_rng(1).standard_normal((30, 1))
FAST = jaxcvx.GradientDescent(width=10, max_steps=500, check_every=100)


def test_matches_a_loop_written_by_hand():
    problem = jaxcvx.make_problem(X, Y, 0.5)
    key = jax.random.key(0)
    start = FAST.initial_params(problem, key)
    weights = (start.hidden, start.output)

    def objective(w):
        F = jnp.maximum(X @ w[0].T, 0) @ w[1]
        return 0.5 * jnp.sum((F - Y) ** 2) + 0.25 * (jnp.sum(w[0] ** 2) + jnp.sum(w[1] ** 2))

    optimizer = optax.adam(1e-2)
    state = optimizer.init(weights)
    step = jax.jit(lambda w, s: optimizer.update(jax.grad(objective)(w), s, w))
    best = np.inf
    for k in range(500):
        updates, state = step(weights, state)
        weights = optax.apply_updates(weights, updates)
        if (k + 1) % 100 == 0:
            best = min(best, float(objective(weights)))
    solution = jaxcvx.solve(problem, FAST, key=key)
    assert float(solution.upper_bound) <= best + 1e-9  # balanced, so it may be a little lower
    np.testing.assert_allclose(float(solution.history.objective[-1]), best, rtol=1e-6)


def test_same_key_same_result_and_keys_vmap():
    problem = jaxcvx.make_problem(X, Y, 0.5)
    keys = jax.random.split(jax.random.key(1), 3)
    batch = jax.vmap(lambda k: jaxcvx.solve(problem, FAST, key=k).upper_bound)(keys)
    single = jaxcvx.solve(problem, FAST, key=keys[1])
    again = jaxcvx.solve(problem, FAST, key=keys[1])
    np.testing.assert_allclose(float(batch[1]), float(single.upper_bound), rtol=1e-6)
    assert float(single.upper_bound) == float(again.upper_bound)
    assert len(set(np.asarray(batch).tolist())) == 3


def test_without_arrangements_nothing_is_claimed():
    solution = jaxcvx.solve(jaxcvx.make_problem(X, Y, 0.5), FAST, key=jax.random.key(0))
    assert solution.scope == "none"
    assert solution.lower_bound == -np.inf and solution.gap == np.inf and solution.program_gap == np.inf


def test_with_all_cells_the_bound_is_global_and_below():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((10, 2)), rng.standard_normal(10)
    problem = jaxcvx.make_problem(x, y, 0.2, arrangements=jaxcvx.enumerate_arrangements(x))
    solution = jaxcvx.solve(problem, FAST, key=jax.random.key(0))
    optimum = jaxcvx.solve(problem, jaxcvx.ConeADMM(tol=1e-9))
    assert solution.scope == "global"
    assert float(solution.lower_bound) <= float(optimum.upper_bound) * (1 + 1e-7)
    assert float(solution.upper_bound) >= float(optimum.lower_bound)


def test_minibatches_and_any_optimizer():
    problem = jaxcvx.make_problem(X, Y, 0.5)
    sgd = jaxcvx.GradientDescent(width=10, max_steps=1000, batch_size=8, optimizer=optax.sgd(2e-3, momentum=0.9))
    start = sgd.initial_params(problem, jax.random.key(0))
    solution = jaxcvx.solve(problem, sgd, key=jax.random.key(0))
    assert float(solution.upper_bound) < 0.8 * float(jaxcvx.training_objective(start, X, Y, 0.5))


def test_minibatch_gradient_is_unbiased():
    problem = jaxcvx.make_problem(X, Y, 0.5)
    solver = jaxcvx.GradientDescent(width=5, batch_size=10)
    net = solver.initial_params(problem, jax.random.key(0))
    smooth = solver.smooth(problem)
    full = jax.grad(smooth.objective)(net)
    keys = jax.random.split(jax.random.key(4), 4000)

    def gradient(key):
        return jax.grad(solver._objective(smooth, key))(net)

    mean = jax.tree.map(lambda a: a.mean(0), jax.jit(jax.vmap(gradient))(keys))
    error = np.linalg.norm(np.asarray(mean.hidden - full.hidden)) / np.linalg.norm(np.asarray(full.hidden))
    assert error < 0.1


@pytest.mark.parametrize(
    ("solver", "word"),
    [
        (jaxcvx.GradientDescent(width=0), "width"),
        (jaxcvx.GradientDescent(schedule="linear"), "schedule"),
        (jaxcvx.GradientDescent(batch_size=1000), "batch_size"),
        (jaxcvx.GradientDescent(), "key"),
    ],
)
def test_bad_settings_are_named(solver, word):
    with pytest.raises(jaxcvx.JaxcvxError, match=word):
        jaxcvx.solve(jaxcvx.make_problem(X, Y, 0.5), solver)


def test_starts_from_a_network_and_keeps_training():
    problem = jaxcvx.make_problem(X, Y, 0.5)
    first = jaxcvx.solve(problem, FAST, key=jax.random.key(0))
    second = jaxcvx.solve(problem, FAST, init=first.network)
    assert float(second.upper_bound) <= float(first.upper_bound) * 1.01
    with pytest.raises(jaxcvx.JaxcvxError, match="width"):
        jaxcvx.solve(problem, jaxcvx.GradientDescent(width=3), init=first.network)


def test_skip_connection_and_bias_train():
    features = jaxcvx.Dense(bias=True, skip=True)
    linear = X @ np.array([[1.0], [2.0], [0.0], [-1.0]]) + 0.5
    problem = jaxcvx.make_problem(X, linear, 0.01, features=features)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=4, max_steps=2000), key=jax.random.key(0))
    assert solution.network.skip.shape == (5, 1)
    assert float(solution.upper_bound) < 0.1
