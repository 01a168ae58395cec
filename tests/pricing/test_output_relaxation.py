"""The relaxation for several outputs: bounds for all multipliers, CVXPY's optimum, and the tree that uses it."""

from __future__ import annotations

import pickle
import time

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.pricing.output_relaxation import (
    OutputMultipliers,
    OutputSigns,
    _proved,
    _quadratic,
    bound_outputs,
    outputs_of,
)
from jaxcvx.pricing.row_scaling import scaled_rows
from jaxcvx.pricing.sign_tree import grow_signs, start_signs
from tests.helpers import gaussian_data


def instance(seed: int, n: int, p: int, c: int, signed: int = 0, fixed: int = 0, centred: bool = False):
    """Scaled rows, and the signs of a random pair (v, u) for the first outputs and rows."""
    X, R = gaussian_data(seed, n, p, c)
    if centred:
        R -= R.mean(axis=1, keepdims=True)
    scaled = scaled_rows(X, R)
    outputs, _ = outputs_of(scaled.directions, scaled.weights)
    rng = np.random.default_rng(seed)
    v = outputs.span @ rng.standard_normal(outputs.span.shape[1])
    u = rng.standard_normal(p)
    sign = np.where(v > 0, 1, -1) * (np.arange(c) < signed)
    row = np.arange(fixed)
    signs = OutputSigns(sign, row, np.where(outputs.directions[row] @ u > 0, 1, -1))
    return outputs, signs, v / np.linalg.norm(v), u / np.linalg.norm(u)


@settings(max_examples=40)
@given(
    st.integers(0, 10**6), st.integers(2, 4), st.integers(0, 4), st.integers(0, 4), st.sampled_from([1e-2, 1.0]),
    st.booleans(),
)  # fmt: skip
def test_every_choice_of_multipliers_gives_a_bound(seed, c, signed, fixed, size, centred):
    outputs, signs, v, u = instance(seed, 10, 3, c + centred, signed, fixed, centred)  # centred pairs have rank one
    rng = np.random.default_rng(seed)
    f = _quadratic(outputs, signs)
    m = len(f.forms)
    L = np.triu(size * rng.random((m, m)), 1)
    kappa = np.exp(rng.standard_normal(10))
    bound = _proved(outputs.directions, f, kappa, rng.random(10), size * rng.standard_normal(), L + L.T)
    steps = np.logspace(-3, 0, 600)[:, None]
    U = u + steps * rng.standard_normal((600, 3))
    V = v + steps * rng.standard_normal((600, len(outputs.span.T))) @ outputs.span.T
    U, V = (A / np.linalg.norm(A, axis=1, keepdims=True) for A in (np.r_[U, [u]], np.r_[V, [v]]))
    inside = (V * signs.output >= 0).all(axis=1) & (U @ outputs.directions[signs.row].T * signs.sign >= 0).all(axis=1)
    values = np.sum((V @ outputs.weights.T) * np.maximum(U @ outputs.directions.T, 0), axis=1)
    assert inside[-1] and values[inside].max() <= bound


def relaxation(outputs, signs) -> float:
    """The same relaxation by CVXPY."""
    Z, R, G = outputs
    (n, p), q = Z.shape, G.shape[1]
    X = cp.Variable((q + p, q + p), PSD=True)
    V, W, U = X[:q, :q], X[:q, q:], X[q:, q:]
    value = cp.Constant(0)
    for i in range(n):
        if i in signs.row:
            if signs.sign[list(signs.row).index(i)] > 0:
                value = value + (R[i] @ G) @ W @ Z[i]
            continue
        P, N = np.where(R[i] * signs.output < 0, 0, R[i]) @ G, np.where(R[i] * signs.output < 0, R[i], 0) @ G
        value = value + P @ W @ Z[i] / 2 + cp.geo_mean(cp.hstack([P @ V @ P, Z[i] @ U @ Z[i]])) / 2
        value = value - cp.pos(-(N @ W @ Z[i]))
    forms = [np.r_[s * G[k], np.zeros(p)] for k, s in enumerate(signs.output) if s]
    forms += [np.r_[np.zeros(q), s * Z[i]] for i, s in zip(signs.row, signs.sign, strict=True)]
    limits = [cp.trace(V) == 1, cp.trace(U) == 1]
    if len(forms) > 1:
        limits += [np.array(forms) @ X @ np.array(forms).T >= 0]
    problem = cp.Problem(cp.Maximize(value), limits)
    problem.solve(solver=cp.CLARABEL)
    return float(problem.value)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("seed", "c", "signed", "fixed", "centred"), [(0, 2, 0, 0, 0), (1, 3, 3, 0, 1), (2, 3, 2, 3, 0)]
)
def test_the_bound_reaches_the_optimum_of_the_relaxation(seed, c, signed, fixed, centred):
    outputs, signs, _, _ = instance(seed, 15, 4, c, signed, fixed, bool(centred))
    best = relaxation(outputs, signs)
    found = bound_outputs(outputs, signs)
    assert best - 1e-6 <= found.bound <= 1.01 * best
    for _ in range(3):
        found = bound_outputs(outputs, signs, found.multipliers, 1e-4)
    assert best - 1e-6 <= found.bound <= 1.003 * best


def test_children_are_not_worse_than_their_parents():
    outputs, signs, _, _ = instance(3, 20, 4, 3, 3, 2)
    none = np.zeros(0, np.int64)
    found = bound_outputs(outputs, OutputSigns(np.zeros(3, np.int64), none, none))
    for k in range(1, 6):
        output = signs.output * (np.arange(3) < k)
        part = OutputSigns(output, signs.row[: max(k - 3, 0)], signs.sign[: max(k - 3, 0)])
        child = bound_outputs(outputs, part, found.multipliers)
        assert isinstance(child.multipliers, OutputMultipliers) and child.bound <= found.bound * (1 + 1e-12)
        found = child


def largest_price(X, R, seed: int) -> float:
    """The best of many ascents of ||R^T (X u)_+||."""
    U = np.random.default_rng(seed).standard_normal((2000, X.shape[1]))
    best = 0.0
    for _ in range(60):
        U /= np.maximum(np.linalg.norm(U, axis=1, keepdims=True), 1e-300)
        T = U @ X.T
        H = np.maximum(T, 0) @ R
        value = np.linalg.norm(H, axis=1)
        best = max(best, float(value.max()))
        g = ((T > 0) * (H @ R.T)) @ X
        U = U + g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300)
    return best


@pytest.mark.parametrize(("seed", "p", "c", "centred"), [(0, 3, 2, False), (1, 4, 3, True), (2, 2, 5, True)])
def test_the_tree_closes(seed, p, c, centred):
    X, R = gaussian_data(seed, 20, p, c)
    if centred:
        R -= R.mean(axis=1, keepdims=True)
    best = largest_price(X, R, seed)
    uppers = []
    tree = start_signs(X, R)
    assert best <= tree.upper
    tree = grow_signs(tree, 1.02 * best, time.perf_counter() + 60, lambda upper, *rest: uppers.append(upper))
    assert (np.diff(uppers) <= 0).all()
    assert tree.value <= best * (1 + 1e-9) and best <= tree.upper <= 1.02 * best
    np.testing.assert_allclose(np.linalg.norm(np.maximum(X @ tree.neuron, 0) @ R), tree.value, rtol=1e-9)


def test_rank_one_is_one_output():
    X, r = gaussian_data(4, 15, 3)
    tree = start_signs(X, r @ np.array([[0.6, -0.8, 0.0]]))
    alone = start_signs(X, r)
    assert tree.outputs is None
    np.testing.assert_allclose([tree.upper, tree.value], [alone.upper, alone.value], rtol=1e-6)


@settings(max_examples=5)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 6), st.integers(2, 6))
def test_no_neuron_exceeds_the_bound(seed, n, p, c):
    X, R = gaussian_data(seed, n, p, c)
    tree = grow_signs(start_signs(X, R), 0.0, time.perf_counter() + 60, lambda upper, value, open_, nodes: nodes > 12)
    assert largest_price(X, R, seed) <= tree.upper


def test_a_search_can_be_pickled_and_resumed():
    X, R = gaussian_data(5, 40, 5, 3)

    def until(tree, nodes):
        return grow_signs(tree, 0.0, time.perf_counter() + 60, lambda up, value, open_, count: count >= nodes)

    whole, parts = until(start_signs(X, R), 13), start_signs(X, R)
    for nodes in (5, 13):
        parts = until(pickle.loads(pickle.dumps(parts)), nodes)
    assert (parts.upper, parts.value, parts.open, parts.nodes) == (whole.upper, whole.value, whole.open, 13)
