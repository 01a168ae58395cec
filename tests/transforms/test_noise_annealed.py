"""noise_annealed_gd: Algorithm 1, step by step and as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.problems.teacher_cnn import TeacherCNN

KEY = jax.random.key(2)
MASK = {"w": True, "a": False}
TEACHER = jax.random.key(0)


def _problem():
    problem = TeacherCNN.random(TEACHER, 25, 6, 1.0)
    loss = lambda params: problem.objective(type(problem.optimum)(**params))  # noqa: E731
    return problem, loss, problem.initial_params(KEY)._asdict()


def test_one_step_is_the_algorithm():
    _, loss, params = _problem()
    tx = jaxcvx.noise_annealed_gd(0.3, {"w": 2.0, "a": 0.5}, KEY, MASK)
    noisy, state = tx.perturb(params, tx.init(params))
    np.testing.assert_allclose(jnp.linalg.norm(noisy["w"]), 1, rtol=1e-14)
    assert 0 < float(jnp.linalg.norm(noisy["a"] - params["a"])) < 0.5
    gradient = jax.grad(loss)(noisy)
    updates, _ = tx.update(gradient, state, params)
    w, g = params["w"], gradient["w"]
    moved = w - 0.3 * (g - (g @ w) * w)
    np.testing.assert_allclose(w + updates["w"], moved / jnp.linalg.norm(moved), atol=1e-15)
    np.testing.assert_allclose(updates["a"], -0.3 * gradient["a"], rtol=1e-14)


def test_defaults_are_the_papers():
    zero = {"w": jnp.array([1.0, 0.0]), "a": jnp.zeros(1)}
    tx = jaxcvx.noise_annealed_gd(key=KEY, sphere_mask=MASK, noise="sphere")
    for count, lr, radius in (
        (0, 0.1, 1.0),
        (399, 0.1, 1.0),
        (400, 0.08, 0.4),
        (7999, 0.1 * 0.8**19, 0.4**19),
    ):
        state = tx.init(zero)
        state = state._replace(
            count=jnp.asarray(count), inner=jax.tree.map(lambda c, count=count: c + count, state.inner)
        )
        noisy, state = tx.perturb(zero, state)
        np.testing.assert_allclose(jnp.linalg.norm(noisy["a"]), radius, rtol=1e-12)
        updates, _ = tx.update({"w": jnp.zeros(2), "a": jnp.ones(1)}, state, zero)
        np.testing.assert_allclose(updates["a"], -lr, rtol=1e-12)


def test_default_radius_on_the_sphere():
    # noise of length 36 in the plane turns e_1 by less than 2 degrees off the noise's direction
    params = {"w": jnp.array([1.0, 0.0]), "a": jnp.zeros(1)}
    keys = jax.random.split(KEY, 2000)
    tx = jaxcvx.noise_annealed_gd(key=KEY, sphere_mask=lambda p: MASK, noise="sphere")
    turned = jax.vmap(lambda key: tx.perturb(params, tx.init(params)._replace(rng_key=key))[0]["w"])(keys)
    # E of the first coordinate of unit(e_1 + r u), u uniform on the circle, is 1 / (2 r) to first order.
    assert abs(float(turned[:, 0].mean()) - 1 / 72) < 4 * 0.71 / 2000**0.5


def test_finds_the_teacher():
    problem, loss, params = _problem()
    tx = jaxcvx.noise_annealed_gd(key=KEY, sphere_mask=MASK)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(None, state, params, grad_fn=jax.grad(loss))
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=8000))((params, tx.init(params)))
    assert float(loss(params)) < 1e-6
    np.testing.assert_allclose(jnp.linalg.norm(params["w"]), 1, rtol=1e-13)


def test_needs_a_key():
    with pytest.raises(InvalidInputError, match="key"):
        jaxcvx.noise_annealed_gd(sphere_mask=MASK)
    with pytest.raises(InvalidInputError, match="lr_schedule"):
        jaxcvx.noise_annealed_gd(-1.0, key=KEY)
    with pytest.raises(InvalidInputError, match="radius_schedules"):
        jaxcvx.noise_annealed_gd(0.1, {"w": -1.0}, KEY)
