"""The cell operator against the n x (p P) matrix that it never forms."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.operators.cells import CellOperator

# (n, p, cells, outputs): both orders of contraction, single rows, columns and cells.
SHAPES = [(1, 1, 1, 1), (7, 3, 5, 2), (7, 5, 2, 3), (4, 6, 2, 1), (5, 1, 6, 2)]
CASES = st.tuples(st.sampled_from(SHAPES), st.booleans(), st.integers(0, 10**6))
ANY_CASE = settings(max_examples=50, deadline=None)


def build(case):
    """An operator with random masks (some rows of Z zero), random W and R, and its explicit matrix."""
    (n, p, cells, c), linear, seed = case
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, p)) * (rng.random((n, 1)) < 0.8)
    masks = rng.random((cells + linear, n)) < 0.5
    if linear:
        masks[-1] = True
    matrix = np.concatenate([mask[:, None] * Z for mask in masks], axis=1)
    W, R = rng.standard_normal((len(masks), p, c)), rng.standard_normal((n, c))
    return CellOperator(jnp.asarray(Z), jnp.asarray(masks), linear), matrix, jnp.asarray(W), jnp.asarray(R)


forward = jax.jit(lambda operator, W: operator.forward(W))
adjoint = jax.jit(lambda operator, R: operator.adjoint(R))
cone_margin = jax.jit(lambda operator, W: operator.cone_margin(W))
max_curvature = jax.jit(lambda operator: operator.max_curvature(200))


@ANY_CASE
@given(CASES)
def test_forward_and_adjoint_are_the_matrix(case):
    operator, matrix, W, R = build(case)
    expected = matrix @ np.asarray(W).reshape(matrix.shape[1], -1)
    np.testing.assert_allclose(forward(operator, W), expected, atol=1e-12)
    np.testing.assert_allclose(adjoint(operator, R).reshape(matrix.shape[1], -1), matrix.T @ R, atol=1e-12)


@ANY_CASE
@given(CASES, st.integers(1, 200))
def test_blocks_of_rows_change_nothing(case, max_bytes):
    operator, _, W, R = build(case)
    blocked = dataclasses.replace(operator, max_bytes=max_bytes)
    np.testing.assert_allclose(forward(blocked, W), forward(operator, W), atol=1e-12)
    np.testing.assert_allclose(adjoint(blocked, R), adjoint(operator, R), atol=1e-12)


def test_intermediates_stay_within_max_bytes():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4000, 50), (4000, 10), (60, 50, 10))]
    masks = jax.ShapeDtypeStruct((60, 4000), jnp.bool)

    def temporary(max_bytes):
        operator = CellOperator(shapes[0], masks, max_bytes=max_bytes)
        programs = (forward.lower(operator, shapes[2]), adjoint.lower(operator, shapes[1]))
        return [program.compile().memory_analysis().temp_size_in_bytes for program in programs]

    whole, blocked = temporary(None), temporary(10**6)
    assert min(whole) > 4000 * 50 * 10 * 4  # the intermediate, at least
    assert max(blocked) < min(whole) / 2  # a block of it, and a copy of the data


def test_blocks_under_vmap_and_grad():
    operator, _, W, R = build(((7, 3, 5, 2), False, 0))
    blocked = dataclasses.replace(operator, max_bytes=40)
    many = jnp.stack([W, 2 * W])
    np.testing.assert_allclose(jax.vmap(blocked.forward)(many)[1], 2 * operator.forward(W), atol=1e-12)
    gradient = jax.grad(lambda W: jnp.sum(blocked.forward(W) * R))(W)
    np.testing.assert_allclose(gradient, operator.adjoint(R), atol=1e-12)


@ANY_CASE
@given(CASES)
def test_adjoint_is_the_adjoint(case):
    operator, _, W, R = build(case)
    left, right = jnp.sum(forward(operator, W) * R), jnp.sum(W * adjoint(operator, R))
    assert float(left) == pytest.approx(float(right), abs=1e-11)


@ANY_CASE
@given(CASES)
def test_cone_margin_is_the_worst_constraint(case):
    operator, _, W, _ = build(case)
    Z, masks, W_host = (np.asarray(a) for a in (operator.Z, operator.masks, W))
    norms = np.linalg.norm(Z, axis=1)
    unit = Z / np.where(norms > 0, norms, 1)[:, None]
    signs = 2.0 * masks - 1
    if operator.linear:
        signs[-1] = 0
    expected = [np.min(s[:, None] * (unit @ block)) for s, block in zip(signs, W_host, strict=True)]
    np.testing.assert_allclose(cone_margin(operator, W), expected, atol=1e-13)


@pytest.mark.parametrize("linear", [False, True])
def test_blocks_signs_and_cone_masks(linear):
    operator, *_ = build(((7, 3, 5, 2), linear, 0))
    assert operator.num_cells == 5 and operator.num_blocks == 5 + linear
    np.testing.assert_array_equal(operator.cone_masks, operator.masks[:5])
    np.testing.assert_array_equal(operator.signs()[:5], 2.0 * np.asarray(operator.masks[:5]) - 1)
    if linear:
        np.testing.assert_array_equal(operator.signs()[-1], 0)


def test_in_its_cell_a_neuron_is_linear():
    rng = np.random.default_rng(0)
    Z, U = rng.standard_normal((6, 3)), rng.standard_normal((4, 3))
    operator = CellOperator(jnp.asarray(Z), jnp.asarray(U @ Z.T >= 0))
    hidden = np.maximum(Z @ U.T, 0)
    np.testing.assert_allclose(operator.phi(jnp.asarray(U)), hidden, atol=1e-14)
    for j in range(4):
        W = jnp.zeros((4, 3, 1)).at[j, :, 0].set(U[j])
        np.testing.assert_allclose(operator.forward(W)[:, 0], hidden[:, j], atol=1e-14)
        assert float(operator.cone_margin(W)[j]) >= 0
        assert float(operator.cone_margin(-W)[j]) < 0


@ANY_CASE
@given(CASES)
def test_power_iteration_estimates_the_curvature_from_below(case):
    operator, matrix, _, _ = build(case)
    top = np.linalg.norm(matrix, 2) ** 2
    estimate = float(max_curvature(operator))
    assert estimate <= top * (1 + 1e-10)
    assert estimate >= 0.9 * top


def test_transformations_of_jax():
    operator, matrix, W, R = build(((7, 3, 5, 2), True, 1))
    batch = jnp.stack([W, 2 * W])
    many = jax.vmap(operator.forward)(batch)
    np.testing.assert_allclose(many[1], 2 * many[0], atol=1e-12)
    gradient = jax.grad(lambda W: jnp.sum(operator.forward(W) * R))(W)
    np.testing.assert_allclose(gradient, operator.adjoint(R), atol=1e-12)


@pytest.mark.float32
def test_float32_is_kept():
    operator, matrix, W, R = build(((7, 5, 2, 3), False, 1))
    assert operator.forward(W).dtype == operator.adjoint(R).dtype == jnp.float32
    np.testing.assert_allclose(operator.forward(W).reshape(-1), (matrix @ np.asarray(W).reshape(10, 3)).ravel(), 1e-4)
