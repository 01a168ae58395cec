"""Exact pricing against brute force over all flats, NNLS over all cells, grids in the plane, and counting."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import jaxcvx
from jaxcvx.errors import TooManyArrangements
from jaxcvx.pricing.faces import FaceTable, face_table, price_exact
from tests.helpers import distinct_cells, gaussian_data, neurons_in_the_plane


def priced(X, R, cells=None, **kwargs):
    cells = jaxcvx.enumerate_arrangements(X) if cells is None else cells
    table = face_table(X, cells.masks, cells.gates)
    return price_exact(table, jnp.asarray(X), cells.masks, jnp.asarray(R), **kwargs)


def values(X, R, U):
    return np.linalg.norm(np.maximum(np.asarray(U) @ X.T, 0) @ R, axis=1)


def best_of_all_flats(X, R):
    """Largest value over the top vectors of every cell's matrix on every intersection of hyperplanes."""
    p, best = X.shape[1], 0.0
    masks = np.asarray(jaxcvx.enumerate_arrangements(X).masks)
    for size in range(p):
        for subset in itertools.combinations(range(len(X)), size):
            null = np.linalg.svd(X[list(subset)].reshape(size, p))[2][size:]
            for mask in masks:
                u = null.T @ np.linalg.svd(null @ (X * mask[:, None]).T @ R)[0][:, 0]
                best = max(best, *values(X, R, [u, -u]))
    return best


def best_of_all_projections(X, r, masks):
    """One output: in each cell the norm of the projection of +-Z^T D r on the cone."""
    best = 0.0
    for mask in np.asarray(masks):
        A = np.where(mask, 1.0, -1.0)[:, None] * X
        for g in ((X * mask[:, None]).T @ r, -(X * mask[:, None]).T @ r):
            best = max(best, np.linalg.norm(g + A.T @ nnls(A.T, -g)[0]))
    return best


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "d", "c"), [(7, 3, 2), (6, 3, 5), (6, 4, 3)])
def test_maximum_is_that_of_all_flats(n, d, c):
    X, R = gaussian_data(n + d, n, d, c)
    result = priced(X, R)
    np.testing.assert_allclose(result.values[0], best_of_all_flats(X, R), rtol=1e-9)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "d"), [(12, 1), (15, 2), (12, 3), (9, 4), (8, 5)])
def test_one_output_is_a_projection(n, d):
    X, R = gaussian_data(n, n, d)
    cells = jaxcvx.enumerate_arrangements(X)
    result = priced(X, R, cells)
    np.testing.assert_allclose(result.values[0], best_of_all_projections(X, R[:, 0], cells.masks), rtol=1e-9)


@pytest.mark.parametrize("c", [1, 3])
def test_plane_against_every_angle(c):
    X, R = gaussian_data(c, 12, 2, c)
    grid = np.linalg.norm(R.T @ neurons_in_the_plane(X), axis=0).max()
    result = priced(X, R)
    assert grid <= float(result.upper) and float(result.values[0]) <= grid * (1 + 1e-7)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("n", "d"), [(9, 2), (9, 3), (8, 4), (7, 5)])
def test_number_of_faces_in_general_position(n, d):
    X, _ = gaussian_data(d, n, d)
    cells = jaxcvx.enumerate_arrangements(X)

    def count(k):  # cells of the n-(d-k) other hyperplanes, in each of the flats of dimension k
        return math.comb(n, d - k) * 2 * sum(math.comb(n - (d - k) - 1, j) for j in range(k))

    assert face_table(X, cells.masks, cells.gates).num_faces == sum(count(k) for k in range(1, d + 1))


def degenerate(kind: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    if kind == "grid":
        return np.stack(np.meshgrid(range(3), range(3), [1.0]), -1).reshape(-1, 3)
    if kind == "zero and parallel rows":
        X = rng.standard_normal((6, 3))
        return np.concatenate([np.zeros((2, 3)), X, -2 * X[:2], 3 * X[1:3]])
    return rng.standard_normal((9, 2)) @ rng.standard_normal((2, 5))


@pytest.mark.routine(2)
@pytest.mark.parametrize("kind", ["grid", "zero and parallel rows", "rank 2 of 5"])
def test_degenerate_rows(kind):
    X = degenerate(kind)
    r = np.random.default_rng(0).standard_normal((len(X), 1))
    cells = jaxcvx.enumerate_arrangements(X)
    result = priced(X, r, cells, num=4)
    np.testing.assert_allclose(result.values[0], best_of_all_projections(X, r[:, 0], cells.masks), rtol=1e-8)
    np.testing.assert_allclose(result.values, values(X, r, result.directions), rtol=1e-12)


def test_repeated_eigenvalues():
    # All of the cell attains the maximum: ||R^T Z u|| = ||u|| in the positive orthant.
    X = np.eye(3)
    result = priced(X, np.eye(3))
    np.testing.assert_allclose(result.values[0], 1, rtol=1e-12)


def test_directions_are_distinct_unit_and_have_their_values():
    X, R = gaussian_data(0, 15, 3, 2)
    result = priced(X, R, num=10)
    U = np.asarray(result.directions)
    np.testing.assert_allclose(np.linalg.norm(U, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(result.values, values(X, R, U), rtol=1e-12)
    assert (np.diff(result.values) <= 0).all() and float(result.values[-1]) > 0
    assert (np.linalg.norm(U[:, None] - U[None], axis=2) + np.eye(10) > 1e-4).all()
    assert float(result.values[0]) <= float(result.upper) <= float(result.values[0]) * (1 + 1e-9)


def test_some_cells_only():
    X, R = gaussian_data(1, 12, 3, 2)
    cells = distinct_cells(0, X, 10)
    upper = float(priced(X, R, cells).upper)
    U = np.random.default_rng(0).standard_normal((200_000, 3))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    inside = (U @ X.T >= 0)[:, None] == np.asarray(cells.masks)[None]
    assert values(X, R, U[inside.all(axis=2).any(axis=1)]).max() <= upper


def test_zero_residual_and_zero_rows():
    X, R = gaussian_data(0, 6, 3)
    result = priced(X, 0 * R, num=2)
    assert float(result.upper) == 0 and not np.isnan(result.directions).any()
    assert float(priced(0 * X, R).upper) == 0


def test_scales_with_the_data():
    X, R = gaussian_data(2, 10, 3, 2)
    first = priced(X, R)
    for x, y in ((1e-80, 1.0), (1.0, 1e60)):
        np.testing.assert_allclose(priced(x * X, y * R).values[0], x * y * first.values[0], rtol=1e-9)


def test_too_many_faces():
    X, _ = gaussian_data(0, 30, 9)
    cells = distinct_cells(0, X, 20)
    with pytest.raises(TooManyArrangements, match="rank 9") as caught:
        face_table(X, cells.masks, cells.gates, max_faces=1000)
    assert caught.value.count > 1000


@pytest.mark.float32
def test_float32():
    X, R = (a.astype(np.float32) for a in gaussian_data(3, 12, 3, 2))
    cells = jaxcvx.enumerate_arrangements(X)
    table = face_table(X, cells.masks, cells.gates)
    result = price_exact(table, jnp.asarray(X), cells.masks, jnp.asarray(R))
    assert isinstance(table, FaceTable) and result.upper.dtype == jnp.float32
    U = np.random.default_rng(0).standard_normal((100_000, 3))
    grid = values(X.astype(float), R.astype(float), U / np.linalg.norm(U, axis=1, keepdims=True)).max()
    assert grid <= float(result.upper) <= 1.01 * grid
    np.testing.assert_allclose(result.upper, result.values[0], rtol=1e-3)
