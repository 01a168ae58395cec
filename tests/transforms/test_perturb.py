"""perturb_iterates: gradients of the smoothed function, both forms of the call, optax's own machinery around it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError

KEY = jax.random.key(3)
PARAMS = {"w": np.array([1.0, -2.0]), "a": np.array([0.5])}


def _loss(params):
    return jnp.sum(params["w"] ** 4) + jnp.sum(jnp.cos(params["a"]))


def test_both_forms_are_the_same():
    tx = jaxcvx.perturb_iterates(optax.adam(0.1), {"w": 2.0, "a": lambda t: 0.5**t}, key=KEY)
    grad = jax.grad(_loss)
    one = two = PARAMS
    opaque = transparent = tx.init(PARAMS)
    for _ in range(3):
        updates, opaque = tx.update(None, opaque, one, grad_fn=grad)
        one = optax.apply_updates(one, updates)
        noisy, transparent = tx.perturb(two, transparent)
        updates, transparent = tx.update(grad(noisy), transparent, two)
        two = optax.apply_updates(two, updates)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert int(opaque.count) == int(transparent.count) == 3
    assert type(opaque) is type(transparent)


def test_mean_update_is_the_gradient_of_the_smoothed_loss():
    # E (x + xi)^3 = x^3 + 3 x E xi^2, with E xi_i^2 = r^2 / (d + 2) in a ball.
    tx = jaxcvx.perturb_iterates(optax.sgd(1.0), {"w": 1.5, "a": 0.0}, key=KEY)

    def one(key):
        state = tx.init(PARAMS)._replace(rng_key=key)
        return tx.update(None, state, PARAMS, grad_fn=jax.grad(_loss))[0]

    updates = jax.vmap(one)(jax.random.split(KEY, 100_000))
    expected = -4 * (PARAMS["w"] ** 3 + 3 * PARAMS["w"] * 1.5**2 / 4)
    error = updates["w"].std(0) / 100_000**0.5
    assert (jnp.abs(updates["w"].mean(0) - expected) < 4 * error).all()
    np.testing.assert_allclose(updates["a"], jnp.broadcast_to(jnp.sin(PARAMS["a"]), (100_000, 1)))


def test_radius_follows_its_schedule_and_noise_is_fresh():
    tx = jaxcvx.perturb_iterates(optax.sgd(0.0), lambda t: 1.0 + t, key=KEY, noise="sphere")
    state, seen = tx.init(PARAMS), []
    for step in range(3):
        noisy, state = tx.perturb(PARAMS, state)
        noise = noisy["w"] - PARAMS["w"]
        np.testing.assert_allclose(jnp.linalg.norm(noise), 1.0 + step, rtol=1e-12)
        seen.append(noise / (1 + step))
        _, state = tx.update(noisy, state, PARAMS)
    assert np.abs(seen[0] - seen[1]).max() > 1e-3 and np.abs(seen[1] - seen[2]).max() > 1e-3


def test_zero_radius_is_the_inner_optimiser():
    tx, plain = jaxcvx.perturb_iterates(optax.adam(0.1), 0.0, key=KEY), optax.adam(0.1)
    ours, _ = tx.update(None, tx.init(PARAMS), PARAMS, grad_fn=jax.grad(_loss))
    theirs, _ = plain.update(jax.grad(_loss)(PARAMS), plain.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_works_in_chain_scan_and_vmap():
    tx = optax.chain(jaxcvx.perturb_iterates(optax.clip_by_global_norm(1.0), 0.3, key=KEY), optax.sgd(0.05))

    def train(key):
        state = tx.init(PARAMS)
        state = (state[0]._replace(rng_key=key), *state[1:])

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params, grad_fn=jax.grad(_loss))
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (PARAMS, state), length=200)[0][0]

    keys = jax.random.split(KEY, 2)
    both = jax.jit(jax.vmap(train))(keys)
    np.testing.assert_allclose(both["w"][1], train(keys[1])["w"], rtol=1e-12)
    assert np.abs(both["w"]).max() < 0.5 and np.abs(both["w"][0] - both["w"][1]).max() > 0


@pytest.mark.float32
def test_precision_of_the_params_is_kept():
    params = {"w": jnp.ones(2, jnp.float32), "a": jnp.ones(1, jnp.float32)}
    with jax.enable_x64(True):
        radius = jaxcvx.epochwise_geometric(1.0, 0.5, 2)
        tx = jaxcvx.perturb_iterates(optax.sgd(0.1), radius, key=KEY)
        updates, _ = tx.update(None, tx.init(params), params, grad_fn=jax.grad(_loss))
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}


def test_missing_arguments_are_refused_by_name():
    tx = jaxcvx.perturb_iterates(optax.sgd(0.1), 1.0, key=KEY)
    with pytest.raises(InvalidInputError, match="grad_fn"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    with pytest.raises(InvalidInputError, match="params"):
        tx.update(PARAMS, tx.init(PARAMS), grad_fn=jax.grad(_loss))
    with pytest.raises(InvalidInputError, match="key"):
        jaxcvx.perturb_iterates(optax.sgd(0.1), 1.0, key=None)
    with pytest.raises(InvalidInputError, match="noise"):
        jaxcvx.perturb_iterates(optax.sgd(0.1), 1.0, key=KEY, noise="box")
    with pytest.raises(InvalidInputError, match="radius"):
        jaxcvx.perturb_iterates(optax.sgd(0.1), -1.0, key=KEY)


def test_parts_with_integer_names_have_their_own_radius():
    params = {0: jnp.ones(2), 1: jnp.ones(1)}
    tx = jaxcvx.perturb_iterates(optax.sgd(1.0), radius={0: 0.0, 1: 0.5}, key=jax.random.key(0))
    updates, _ = tx.update(None, tx.init(params), params, grad_fn=lambda noisy: noisy)
    np.testing.assert_array_equal(updates[0], -params[0])
    assert np.any(updates[1] != -params[1])
    pair = [jnp.array(1.0), jnp.array(2.0)]
    in_a_list = jaxcvx.perturb_iterates(optax.sgd(1.0), radius={0: 0.0, 1: 0.5}, key=jax.random.key(0))
    updates, _ = in_a_list.update(None, in_a_list.init(pair), pair, grad_fn=lambda noisy: noisy)
    assert updates[0] == -1.0 != updates[1]


@pytest.mark.parametrize("wrap", ["multi_transform", "masked"])
def test_a_part_of_the_params_is_refused_with_the_way_that_works(wrap):
    params = {"a": jnp.ones(2), "b": jnp.ones(1)}
    inner = jaxcvx.perturb_iterates(optax.sgd(0.1), radius=0.1, key=jax.random.key(0))
    if wrap == "masked":
        tx = optax.masked(inner, {"a": True, "b": False})
    else:
        tx = optax.multi_transform({"noisy": inner, "plain": optax.sgd(0.1)}, {"a": "noisy", "b": "plain"})
    with pytest.raises(jaxcvx.JaxcvxError, match="perturb_iterates outside"):
        tx.update(params, tx.init(params), params, grad_fn=lambda noisy: noisy)
    outside = jaxcvx.perturb_iterates(
        optax.multi_transform({"x": optax.sgd(0.1), "y": optax.adam(0.1)}, {"a": "x", "b": "y"}),
        radius={"a": 0.1, "b": 0.0},
        key=jax.random.key(0),
    )
    updates, _ = outside.update(None, outside.init(params), params, grad_fn=lambda noisy: noisy)
    assert updates["a"].shape == (2,)
