"""Whitening: orthonormal training rows, the same map for new rows, and bad arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import InvalidInputError, fit_whitening
from tests.helpers import gaussian_data


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_training_rows_become_orthonormal(method):
    X, _ = gaussian_data(0, 6, 15)
    white = np.asarray(fit_whitening(X, method=method)(X))
    assert white.shape == (6, 15 if method == "zca" else 6)
    np.testing.assert_allclose(white @ white.T, np.eye(6), atol=1e-12)


def test_zca_is_the_closest_orthonormal_matrix():
    X, _ = gaussian_data(1, 5, 9)
    left, _, right = np.linalg.svd(X, full_matrices=False)
    np.testing.assert_allclose(fit_whitening(X)(X), left @ right, atol=1e-12)


def test_new_rows_get_the_same_linear_map():
    X, _ = gaussian_data(2, 5, 9)
    new, _ = gaussian_data(3, 4, 9)
    mixed = np.random.default_rng(0).standard_normal((4, 5))
    whiten = fit_whitening(X)
    np.testing.assert_allclose(whiten(mixed @ X), mixed @ np.asarray(whiten(X)), atol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda w, x: w(x))(whiten, new), whiten(jnp.asarray(new)), rtol=1e-12)


def test_more_rows_than_columns_whiten_the_columns():
    X, _ = gaussian_data(4, 20, 3)
    white = np.asarray(fit_whitening(X)(X))
    np.testing.assert_allclose(white.T @ white, np.eye(3), atol=1e-12)


def test_the_floor_keeps_small_directions_small():
    X = np.diag([1.0, 1e-3]) @ np.eye(2, 4)
    size = np.linalg.norm(fit_whitening(X, floor=0.1)(X), axis=1)
    np.testing.assert_allclose(size, [1, 1e-2], rtol=1e-12)
    repeated = np.ones((3, 4))
    assert np.isfinite(fit_whitening(repeated)(repeated)).all()
    assert not np.any(fit_whitening(0 * repeated)(0 * repeated))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "ica"}, "method: got 'ica'"),
        ({"floor": 1.0}, "floor: got 1.0"),
        ({"X": np.ones(3)}, "X: "),
    ],
)
def test_bad_arguments_are_refused(change, words):
    with pytest.raises(InvalidInputError, match="^" + words):
        fit_whitening(**({"X": np.ones((2, 3))} | change))
