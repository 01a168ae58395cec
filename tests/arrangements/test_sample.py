"""Sampling: determinism, correctness of every cell, completeness only when proved."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.arrangements import sample as sampling
from jaxcvx.arrangements.cells import dedupe_masks, max_num_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.features.dense import Dense

KEY = jax.random.key(0)
METHODS = ["gaussian", "data"]


def gaussian(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def grid(a: int, b: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(a), np.arange(b)), -1).reshape(-1, 2).astype(float)


def as_set(masks) -> set[bytes]:
    return {row.tobytes() for row in np.asarray(masks)}


@pytest.mark.routine(2)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("X", [gaussian(0, 15, 2), grid(4, 4), -grid(3, 5)], ids=["generic", "grid", "negative"])
def test_sampled_cells_are_true_cells(method, bias, X):
    features = Dense(bias=bias)
    cells = sample_arrangements(KEY, X, 300, method=method, features=features)
    Z = np.asarray(features.matrix(X))
    values = np.asarray(cells.gates, np.float64) @ Z.T
    np.testing.assert_array_equal(cells.masks, values >= 0)
    alive = np.any(Z != 0, axis=1)
    assert (np.abs(values[:, alive]) > 1e-8).all()
    assert np.asarray(cells.masks)[:, ~alive].all()
    assert len(dedupe_masks(np.asarray(cells.masks))) == len(cells) <= 300
    np.testing.assert_allclose(np.linalg.norm(cells.gates, axis=1), 1, rtol=1e-6)
    assert as_set(cells.masks) <= as_set(enumerate_arrangements(X, features=features).masks)


@pytest.mark.parametrize("method", METHODS)
def test_deterministic_in_the_key(method):
    X = gaussian(1, 20, 4)
    a, b = (sample_arrangements(jax.random.key(3), X, 50, method=method) for _ in range(2))
    np.testing.assert_array_equal(a.masks, b.masks)
    np.testing.assert_array_equal(a.gates, b.gates)
    other = sample_arrangements(jax.random.key(4), X, 50, method=method)
    assert as_set(other.masks) != as_set(a.masks)


def test_first_occurrence_is_kept_and_more_draws_only_append():
    X = gaussian(2, 6, 2)
    cells = sample_arrangements(KEY, X, 400)
    assert len(cells) <= max_num_cells(6, 2) == 12
    one = sample_arrangements(KEY, X, 1)
    assert len(one) == 1 and not one.complete


def test_complete_only_when_the_count_proves_it():
    X = gaussian(3, 5, 2)
    assert sample_arrangements(KEY, X, 2000).complete
    assert not sample_arrangements(KEY, X, 5).complete
    degenerate = np.concatenate([X, 2 * X[:1]])  # all cells found, but fewer than the formula allows
    cells = sample_arrangements(KEY, degenerate, 2000)
    assert len(cells) == len(enumerate_arrangements(degenerate)) and not cells.complete
    deficient = X @ gaussian(4, 2, 5)  # rank 2 in 5 columns
    assert sample_arrangements(KEY, deficient, 2000).complete


@pytest.mark.parametrize("method", METHODS)
def test_data_of_zeros(method):
    cells = sample_arrangements(KEY, np.zeros((3, 2)), 4, method=method)
    assert len(cells) == 1 and cells.complete and bool(cells.masks.all())


@pytest.mark.parametrize("bias", [False, True])
def test_data_gates_separate_the_two_points(bias):
    X = np.array([[1.0, 0.2, 0.1], [1.0, 0.2001, 0.1]])  # 1e-4 apart: uniform directions hardly ever separate
    cells = sample_arrangements(KEY, X, 4, method="data", features=Dense(bias=bias))
    assert {(True, False), (False, True)} >= {tuple(m) for m in np.asarray(cells.masks).tolist()}


def test_data_gates_are_tilted_off_the_other_points():
    X = np.array([[0.0, 0], [1, 0], [0.5, 3]])  # the bisector of the first two passes through the third
    masks = as_set(sample_arrangements(KEY, X, 200, method="data", features=Dense(bias=True)).masks)
    assert {np.array([a, not a, c]).tobytes() for a in (True, False) for c in (True, False)} <= masks


def test_gates_on_a_hyperplane_are_in_no_cell(monkeypatch):
    X = np.array([[1.0, 0], [-1, 0], [0, 1], [0, 0]])
    gates = np.array([[0.0, 1], [1, 1], [0, -1], [-1, 1]])
    monkeypatch.setattr(sampling, "_normal", lambda key, shape: gates)
    cells = sample_arrangements(KEY, X, 4)
    assert cells.masks.tolist() == [[True, False, True, True], [False, True, True, True]]


def test_data_method_with_duplicate_points_falls_back_to_random_gates():
    X = np.ones((4, 3))
    cells = sample_arrangements(KEY, X, 64, method="data")
    assert as_set(cells.masks) == as_set(enumerate_arrangements(X).masks)
    assert len(sample_arrangements(KEY, X[:1], 64, method="data")) == 2


def test_float32_and_legacy_keys():
    X = jnp.asarray(gaussian(5, 10, 3), jnp.float32)
    with jax.enable_x64(True):
        assert sample_arrangements(jax.random.PRNGKey(0), X, 5).gates.dtype == jnp.float32
        assert sample_arrangements(KEY, gaussian(5, 10, 3), 5).gates.dtype == jnp.float64


@pytest.mark.parametrize("num", [0, -3, 1.5, True, None])
def test_bad_num(num):
    with pytest.raises(InvalidInputError, match="num"):
        sample_arrangements(KEY, np.eye(2), num)


def test_bad_method_lists_the_good_ones():
    with pytest.raises(InvalidInputError, match="'gaussian', 'data'"):
        sample_arrangements(KEY, np.eye(2), 3, method="sobol")


def test_bad_or_traced_data():
    with pytest.raises(InvalidInputError, match="X: got nan"):
        sample_arrangements(KEY, np.array([[np.nan]]), 3)
    with pytest.raises(InvalidTypeError, match="outside jit"):
        jax.jit(lambda X: sample_arrangements(KEY, X, 3).masks)(jnp.eye(3))
    with pytest.raises(InvalidTypeError, match="key"):
        jax.jit(lambda key: sample_arrangements(key, np.eye(3), 3).masks)(KEY)
