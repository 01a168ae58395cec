"""Sweeps against brute force over fine grids and kinks, and against the faces of all cells."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import FreeBias, enumerate_arrangements
from jaxcvx.pricing.faces import face_table, price_exact
from jaxcvx.pricing.sweep import price_line, price_plane, rank_of, sort_line, sort_plane
from tests.helpers import gaussian_data, neurons_in_the_plane


def centred(seed: int, n: int, q: int) -> np.ndarray:
    R = gaussian_data(seed, n, q)[0]
    return R - R.mean(axis=0)


def line_data(seed: int, n: int, d: int) -> np.ndarray:
    """Samples on a line in d dimensions, some of them repeated."""
    rng = np.random.default_rng(seed)
    place = rng.standard_normal((n, 1))
    place[1] = place[0]
    return place @ rng.standard_normal((1, d)) + 3 * rng.standard_normal(d)


def ones(X: np.ndarray) -> np.ndarray:
    return np.concatenate([X, np.ones((len(X), 1))], axis=1)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("d", "q"), [(1, 1), (3, 1), (2, 3)])
def test_line_finds_the_best_of_all_kinks(d, q):
    for seed in range(5):
        X, R = line_data(seed, 12, d), centred(seed + 50, 12, q)
        priced = price_line(sort_line(X), jnp.asarray(ones(X)), jnp.asarray(R), num=4)
        u = X[2] - X[0]
        place = X @ (u / np.linalg.norm(u))
        grid = np.concatenate([place, np.linspace(place.min() - 1, place.max() + 1, 3000)])
        difference = place[:, None] - grid
        atoms = np.concatenate([np.maximum(difference, 0), np.maximum(-difference, 0)], axis=1)
        best = np.linalg.norm(R.T @ atoms, axis=0).max()
        assert float(priced.values[0]) == pytest.approx(best, rel=1e-12)
        assert best <= float(priced.upper) <= best * (1 + 1e-9) + 1e-11
        np.testing.assert_allclose(np.linalg.norm(priced.directions[:, :-1], axis=1), 1, rtol=1e-12)
        own = np.linalg.norm(R.T @ np.maximum(ones(X) @ np.asarray(priced.directions).T, 0), axis=0)
        np.testing.assert_allclose(np.where(priced.values > 0, own, 0), priced.values, rtol=1e-12)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("p", "q"), [(2, 1), (2, 3), (4, 1)])
def test_plane_finds_the_best_angle(p, q):
    for seed in range(5):
        inner, R = gaussian_data(seed, 11, 2, q)
        inner[3] = 2 * inner[2]
        inner[4] = 0
        lift = np.linalg.qr(gaussian_data(seed, p, 2)[0])[0] if p > 2 else np.eye(2)
        Z = inner @ lift.T
        priced = price_plane(sort_plane(Z), jnp.asarray(Z), jnp.asarray(R), num=5)
        grid = np.linalg.norm(R.T @ neurons_in_the_plane(inner), axis=0).max()
        assert grid * (1 - 1e-12) <= float(priced.values[0]) <= grid * (1 + 1e-6)
        cells = enumerate_arrangements(Z)
        exact = price_exact(face_table(Z, cells.masks, cells.gates), jnp.asarray(Z), cells.masks, jnp.asarray(R))
        assert float(priced.values[0]) == pytest.approx(float(exact.values[0]), rel=1e-10)
        assert float(priced.values[0]) <= float(priced.upper) <= float(exact.values[0]) * (1 + 1e-9) + 1e-11
        np.testing.assert_allclose(np.linalg.norm(priced.directions, axis=1), 1, rtol=1e-12)


def test_rank_one_rows_have_two_neurons():
    X = np.outer([1.0, -2.0, 0.5], [3.0, 4.0])
    R = np.array([[1.0], [1.0], [-1.0]])
    priced = price_plane(sort_plane(X), jnp.asarray(X), jnp.asarray(R))
    assert float(priced.values[0]) == pytest.approx(10.0)  # -u: only the second row, 2 * 5
    one = np.array([[1.0], [-2.0], [0.5]])
    assert float(price_plane(sort_plane(one), jnp.asarray(one), jnp.asarray(R)).values[0]) == pytest.approx(2.0)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("d", "q"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_faces_with_free_biases_are_the_faces_seen_from_every_sample(d, q):
    X, R = gaussian_data(d, 7, d)[0], centred(d + 10, 7, q)
    X = X - X.mean(axis=0)
    cells = enumerate_arrangements(X, features=FreeBias())
    table = face_table(ones(X), cells.masks, cells.gates, free_bias=True)
    priced = price_exact(table, jnp.asarray(ones(X)), cells.masks, jnp.asarray(R), num=3)
    best = 0.0
    for x in X:  # some best neuron has its kink at a sample
        shifted = X - x
        if d == 1:
            atoms = np.maximum(np.concatenate([shifted, -shifted], axis=1), 0)
            best = max(best, np.linalg.norm(R.T @ atoms, axis=0).max())
            continue
        own = enumerate_arrangements(shifted)
        faces = face_table(shifted, own.masks, own.gates)
        best = max(best, float(price_exact(faces, jnp.asarray(shifted), own.masks, jnp.asarray(R)).values[0]))
    assert float(priced.values[0]) == pytest.approx(best, rel=1e-10)
    assert best <= float(priced.upper) <= best * (1 + 1e-9) + 1e-11
    assert float(np.linalg.norm(priced.directions[0, :-1])) == pytest.approx(1)


def test_rank():
    assert rank_of(np.zeros((3, 2))) == 0 and rank_of(np.outer([1, 2, 3], [1, 1])) == 1 and rank_of(np.eye(4)) == 4
