"""Noise: the distributions that it claims, each leaf on its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.errors import InvalidInputError
from jaxcvx.numerics.noise import check_noise, draw_noise

PARAMS = {"a": np.zeros(3), "w": np.zeros((2, 3))}


def _draws(noise: str, num: int = 20_000) -> dict:
    keys = jax.random.split(jax.random.key(0), num)
    return jax.vmap(lambda key: draw_noise(key, PARAMS, {"a": 2.0, "w": 0.5}, noise))(keys)


def test_ball_is_uniform():
    drawn = _draws("ball")
    for leaf, radius, d in ((drawn["a"], 2.0, 3), (drawn["w"].reshape(-1, 6), 0.5, 6)):
        share = np.linalg.norm(leaf, axis=1) / radius
        assert share.max() <= 1
        # Volumes of inner balls, and the covariance r^2 / (d + 2).
        for inner in (0.5, 0.8, 0.95):
            assert abs((share < inner).mean() - inner**d) < 4 * 0.5 / len(share) ** 0.5
        np.testing.assert_allclose(np.cov(np.asarray(leaf).T), np.eye(d) * radius**2 / (d + 2), atol=0.05 * radius**2)


def test_sphere_has_the_radius_as_length():
    drawn = _draws("sphere")
    np.testing.assert_allclose(np.linalg.norm(drawn["a"], axis=1), 2.0, rtol=1e-12)
    assert np.abs(drawn["a"].mean(0)).max() < 4 * 2 / (3 * 20_000) ** 0.5


def test_normal_has_the_radius_as_deviation():
    np.testing.assert_allclose(np.std(_draws("normal")["a"]), 2.0, rtol=0.02)


def test_leaves_are_independent_and_zero_radius_is_no_noise():
    drawn = _draws("normal")
    assert abs(np.corrcoef(drawn["a"][:, 0], drawn["w"][:, 0, 0])[0, 1]) < 0.03
    still = draw_noise(jax.random.key(0), jnp.ones(3), 0.0, "ball")
    assert not still.any()


@pytest.mark.float32
def test_keeps_the_precision_of_the_params():
    with jax.enable_x64(True):
        assert draw_noise(jax.random.key(0), jnp.ones(3, jnp.float32), 1.0, "ball").dtype == jnp.float32


def test_unknown_kinds_are_refused():
    with pytest.raises(InvalidInputError, match="noise"):
        check_noise("cube")
