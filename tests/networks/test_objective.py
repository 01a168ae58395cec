"""The training problem as a smooth problem of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.networks.objective import TrainingObjective

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 3)), RNG.standard_normal((20, 2))


def smooth(width=4, **options):
    return TrainingObjective(jaxcvx.make_problem(X, Y, 0.3, **options), width)


def test_value_is_the_training_objective():
    params = smooth().initial_params(jax.random.key(0))
    assert params.hidden.shape == (4, 3) and params.output.shape == (4, 2)
    assert float(smooth().objective(params)) == float(jaxcvx.training_objective(params, X, Y, 0.3))


@pytest.mark.routine(2)
@pytest.mark.parametrize("features", ["dense", jaxcvx.Dense(bias=True, skip=True), jaxcvx.FreeBias()])
def test_gradient_against_differences(features):
    problem = smooth(features=features)
    params, change = (problem.initial_params(jax.random.key(k)) for k in (0, 1))
    value, slope = jax.jvp(problem.objective, (params,), (change,))
    h = 1e-6
    up, down = (problem.objective(jax.tree.map(lambda p, d, s=s: p + s * d, params, change)) for s in (h, -h))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6)


def test_batches_are_unbiased():
    params = smooth().initial_params(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 20_000)
    values = jax.vmap(lambda key: smooth().sampled_objective(params, key, 5))(keys)
    error = float(jnp.std(values)) / len(keys) ** 0.5
    assert abs(float(values.mean() - smooth().objective(params))) < 4 * error


def test_initial_weights_have_the_scale_asked_for():
    wide = TrainingObjective(jaxcvx.make_problem(X, Y, 0.3), 20_000, init_scale=2.0)
    params = wide.initial_params(jax.random.key(0))
    np.testing.assert_allclose(jnp.std(params.hidden), 2 / 3**0.5, rtol=0.02)
    np.testing.assert_allclose(jnp.std(params.output), 2 / 20_000**0.5, rtol=0.02)
    with pytest.raises(jaxcvx.InvalidInputError, match="key"):
        wide.initial_params(None)


def test_narrow_networks_are_widened_and_wide_ones_refused():
    narrow = smooth(2).initial_params(jax.random.key(0))
    taken = smooth(5).adopt(narrow)
    assert taken.width == 5
    np.testing.assert_array_equal(taken(X), narrow(X))
    with pytest.raises(jaxcvx.InvalidInputError, match="width 5.*at most 2"):
        smooth(2).adopt(taken)


def test_returned_network_is_balanced_with_no_larger_objective():
    params = smooth().initial_params(jax.random.key(0))
    params = jax.tree.map(lambda a: a * 3.0, params)
    network = smooth().network(params)
    np.testing.assert_allclose(network(X), params(X))
    np.testing.assert_allclose(jnp.linalg.norm(network.hidden, axis=1), jnp.linalg.norm(network.output, axis=1))
    assert float(smooth().objective(network)) <= float(smooth().objective(params))


def test_gradients_are_compared_with_the_weight_decays_part():
    params = smooth().initial_params(jax.random.key(0))
    decay = jax.grad(lambda p: 0.15 * (jnp.sum(p.hidden**2) + jnp.sum(p.output**2)))(params)
    size = jnp.sqrt(jnp.sum(decay.hidden**2) + jnp.sum(decay.output**2))
    np.testing.assert_allclose(smooth().gradient_scale(params, jnp.asarray(9.0)), size)


def test_invalid_data_are_seen():
    problem = jaxcvx.make_problem(X, Y, 0.3)
    assert bool(TrainingObjective(problem).is_valid())
    assert not bool(TrainingObjective(problem.replace(beta=-1.0)).is_valid())
    assert not bool(TrainingObjective(problem.replace(X=problem.X.at[0, 0].set(jnp.nan))).is_valid())
