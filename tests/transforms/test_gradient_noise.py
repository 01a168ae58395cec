"""Gradient noise and Langevin dynamics: means, variances, and the stationary law of a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError

KEY = jax.random.key(1)


def test_gradient_noise_is_unbiased_and_annealed():
    tx = jaxcvx.annealed_gradient_noise(jaxcvx.epochwise_geometric(2.0, 0.5, 1), KEY, noise="normal")
    gradient = jnp.full(50_000, 3.0)
    state = tx.init(gradient)
    for deviation in (2.0, 1.0, 0.5):
        noisy, state = tx.update(gradient, state)
        assert abs(float(noisy.mean()) - 3) < 4 * deviation / 50_000**0.5
        np.testing.assert_allclose(noisy.std(), deviation, rtol=0.02)
    assert int(state.count) == 3


def test_gradient_noise_by_label_in_a_chain():
    radii = {"w": 1.0, "a": 0.0}
    tx = optax.chain(jaxcvx.annealed_gradient_noise(radii, KEY, noise="sphere"), optax.sgd(0.1))
    gradient = {"w": jnp.zeros(4), "a": jnp.ones(2)}
    updates, _ = tx.update(gradient, tx.init(gradient))
    np.testing.assert_allclose(jnp.linalg.norm(updates["w"]), 0.1, rtol=1e-12)
    np.testing.assert_allclose(updates["a"], -0.1)


def test_optax_noise_scales_otherwise():
    """What ``optax.noisy_sgd`` does today: variance eta / count^gamma, noise multiplied by the learning rate."""
    tx = optax.noisy_sgd(0.1, eta=4.0, gamma=1.0, key=KEY)
    gradient = jnp.zeros(50_000)
    state = tx.init(gradient)
    for count in (1, 2):
        updates, state = tx.update(gradient, state)
        np.testing.assert_allclose(updates.std(), 0.1 * (4.0 / count) ** 0.5, rtol=0.02)


@pytest.mark.parametrize("rate, temperature", [(0.5, 1.0), (0.1, 0.3)])
def test_langevin_samples_a_gaussian(rate, temperature):
    curvature = jnp.array([1.0, 2.0])
    tx = jaxcvx.langevin(rate, temperature, key=KEY)
    params = jnp.zeros((4000, 2))

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(curvature * params, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=100)
    expected = temperature / (curvature * (1 - rate * curvature / 2))
    # The sample variance of 4000 Gaussians has relative deviation sqrt(2 / 4000).
    np.testing.assert_allclose(params.var(0), expected, rtol=4 * (2 / 4000) ** 0.5)


def test_langevin_at_zero_temperature_is_gradient_descent():
    rate = jaxcvx.epochwise_geometric(0.2, 0.5, 1)
    tx, plain = jaxcvx.langevin(rate, lambda t: 0.0, key=KEY), optax.sgd(rate)
    params, ours, theirs = jnp.arange(3.0), tx.init(jnp.zeros(3)), plain.init(jnp.zeros(3))
    for _ in range(3):
        (u, ours), (v, theirs) = tx.update(params, ours), plain.update(params, theirs)
        np.testing.assert_allclose(u, v, rtol=1e-15)


def test_bad_arguments_are_named():
    for call, name in (
        (lambda: jaxcvx.langevin(-0.1, key=KEY), "learning_rate"),
        (lambda: jaxcvx.langevin(0.1, -1.0, key=KEY), "temperature"),
        (lambda: jaxcvx.langevin(0.1, key=None), "key"),
        (lambda: jaxcvx.annealed_gradient_noise(-1.0, KEY), "radius_schedule"),
        (lambda: jaxcvx.annealed_gradient_noise(1.0, None), "key"),
        (lambda: jaxcvx.annealed_gradient_noise(1.0, KEY, noise="x"), "noise"),
    ):
        with pytest.raises(InvalidInputError, match=name):
            call()
