"""Branching on row signs against the exact maximum over all cells; resumed, pickled and stopped searches."""

from __future__ import annotations

import pickle
import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcvx
from jaxcvx.pricing.faces import face_table, price_exact
from jaxcvx.pricing.sign_tree import SignTree, grow_signs, start_signs
from tests.helpers import gaussian_data


def exact_value(X, R) -> float:
    cells = jaxcvx.enumerate_arrangements(X)
    table = face_table(X, cells.masks, cells.gates)
    return float(price_exact(table, jnp.asarray(X), cells.masks, jnp.asarray(R)).values[0])


def grown(tree: SignTree, level: float, nodes: int = 10**9) -> SignTree:
    """The search up to a level or a number of nodes."""
    return grow_signs(tree, level, time.perf_counter() + 60, lambda upper, value, open_, count: count >= nodes)


def price(X, r, u) -> float:
    return float(abs(np.maximum(X @ u, 0) @ r.ravel()) / np.linalg.norm(u))


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_closes_on_the_exact_maximum(seed, p):
    X, r = gaussian_data(seed, 18, p)
    best = exact_value(X, r)
    tree = start_signs(X, r)
    assert tree.value <= best * (1 + 1e-9) and best <= tree.upper * (1 + 1e-9)
    tree = grown(tree, 1.001 * best)
    assert tree.value <= best * (1 + 1e-9) and best <= tree.upper * (1 + 1e-9) and tree.upper <= 1.001 * best
    np.testing.assert_allclose(tree.value, best, rtol=2e-3)
    np.testing.assert_allclose(price(X, r, tree.neuron), tree.value, rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(tree.neuron), 1, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_parallel_rows_zero_rows_and_scales(scale):
    X, r = gaussian_data(1, 16, 4)
    X[3], X[4], X[5], X[6] = 2 * X[0], -X[1], 0, X[2]
    best = exact_value(X, r)
    tree = grown(start_signs(scale * X, r / scale**2), 1.002 * best / scale)
    assert tree.value * scale <= best * (1 + 1e-9) and best <= tree.upper * scale * (1 + 1e-9)
    assert tree.upper * scale <= 1.002 * best


def test_rows_of_very_different_lengths():
    X, r = gaussian_data(2, 16, 3)
    sizes = np.logspace(-8, 8, 16)[:, None]
    best = exact_value(X, r)
    tree = grown(start_signs(sizes * X, r / sizes), 1.002 * best)
    assert best * (1 - 1e-9) <= tree.upper <= 1.002 * best


def test_more_weights_than_rows():
    X, r = gaussian_data(3, 9, 3)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    wide = np.concatenate([X, np.zeros((9, 17))], axis=1) @ turn
    best = exact_value(X, r)
    tree = grown(start_signs(wide, r), 1.002 * best)
    assert best * (1 - 1e-9) <= tree.upper <= 1.002 * best
    np.testing.assert_allclose(price(wide, r, tree.neuron), tree.value, rtol=1e-9)


@pytest.mark.parametrize(
    ("Z", "r", "best"),
    [
        ([[2.0]], [3.0], 6.0),
        ([[2.0]], [-3.0], 6.0),
        ([[1.0], [-1.0], [2.0]], [1.0, -2.0, 3.0], 7.0),
        ([[3.0, 4.0]], [-2.0], 10.0),
        (np.eye(3), np.ones(3), np.sqrt(3)),
        (np.eye(3), -np.ones((3, 1)), np.sqrt(3)),
        (np.zeros((4, 2)), np.ones(4), 0.0),
        (np.ones((4, 2)), np.zeros(4), 0.0),
        ([[1.0, 0.0], [1.0, 0.0]], [1.0, -1.0], 0.0),  # equal rows that cancel
        ([[1.0, 0.0], [-1.0, 0.0]], [1.0, -1.0], 1.0),
    ],
)
def test_small_cases(Z, r, best):
    tree = grown(start_signs(np.array(Z), np.array(r)), best * 1.0001, 500)
    assert best * (1 - 1e-12) <= tree.upper <= best * 1.0001 + 1e-12
    np.testing.assert_allclose(tree.value, best, rtol=2e-4, atol=1e-12)
    assert np.isfinite(tree.neuron).all()


def test_the_bound_falls_and_a_search_can_be_resumed():
    X, r = gaussian_data(5, 60, 8)
    uppers = []
    tree = grow_signs(
        start_signs(X, r), 0.0, time.perf_counter() + 60, lambda up, value, open_, n: uppers.append(up) or n >= 16
    )
    assert (np.diff(uppers) <= 0).all() and tree.upper == uppers[-1] < 0.99 * uppers[0]
    parts = start_signs(X, r)
    for nodes in (6, 10, 16):
        parts = grown(pickle.loads(pickle.dumps(parts)), 0.0, nodes)
        assert parts.nodes == nodes
    assert (parts.upper, parts.value, parts.open) == (tree.upper, tree.value, tree.open)
    np.testing.assert_array_equal(parts.neuron, tree.neuron)


def test_growing_leaves_the_earlier_state_alone():
    X, r = gaussian_data(6, 60, 8)
    tree = start_signs(X, r)
    before = tree.upper, tree.open
    assert grown(tree, 0.0, 20).nodes == 20
    assert (tree.upper, tree.open) == before
    assert grow_signs(tree, 0.0, time.perf_counter() - 1).nodes == tree.nodes  # no time is left
    assert grow_signs(tree, 2 * tree.upper, np.inf).nodes == tree.nodes  # reached already


def test_a_lower_level_can_follow():
    X, r = gaussian_data(8, 30, 4)
    tree = grown(start_signs(X, r), 0.0, 2)
    levels = [tree.value * factor for factor in (1.05, 1.02, 1.005)]
    for level in levels:
        tree = grown(tree, level)
        assert tree.value <= tree.upper <= level


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 12))
def test_no_neuron_exceeds_the_bound(seed, n, p):
    X, r = gaussian_data(seed, n, p)
    tree = grown(start_signs(X, r), 0.0, 20)
    U = np.random.default_rng(seed).standard_normal((500, p))
    for _ in range(30):  # ascents of |h|
        T = X @ U.T
        side = np.sign(r.T @ np.maximum(T, 0))[0]
        g = ((T > 0) * r * side).T @ X
        U = U / np.linalg.norm(U, axis=1, keepdims=True) + g / np.maximum(
            np.linalg.norm(g, axis=1, keepdims=True), 1e-300
        )
        U /= np.maximum(np.linalg.norm(U, axis=1, keepdims=True), 1e-300)
    assert np.abs(np.maximum(X @ U.T, 0).T @ r).max() <= tree.upper


def test_axes_that_are_left_out_are_added_to_the_bound(monkeypatch):
    X, r = gaussian_data(0, 12, 3)
    X *= [1.0, 1.0, 0.2]
    best = exact_value(X, r)
    monkeypatch.setattr("jaxcvx.pricing.row_scaling._NO_AXIS", 0.5)
    tree = grown(start_signs(X, r), 0.0)
    assert tree.scaled.basis.shape == (3, 2)
    assert tree.scaled.scale * -tree.leaves[0].key < best <= tree.upper
