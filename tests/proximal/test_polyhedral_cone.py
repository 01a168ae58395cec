"""Projections on polyhedral cones against scipy's NNLS and CVXPY."""

from __future__ import annotations

import functools

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from jaxcvx.proximal.polyhedral_cone import (
    ActiveRows,
    face_basis,
    face_projector,
    least_norm_shift,
    lifted_by,
    no_active_rows,
    project_cone,
)

N, P = 12, 4
seeds = st.integers(0, 10**6)
kinds = st.sampled_from(["gaussian", "grid", "duplicates", "zero rows", "scaled", "rank 2"])


@functools.partial(jax.jit, static_argnames="max_steps")
def project(rows, signs, target, warm=None, max_steps=None, enough=None):
    return project_cone(rows, signs, target, warm=warm, max_steps=max_steps, enough=enough)


def cone(kind: str, seed: int):
    """Rows (N, P) of several characters, signs and a target; the cone may be a single point."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((N, P))
    if kind == "grid":  # many ties and parallel rows
        rows = rng.integers(-1, 2, (N, P)).astype(float)
    elif kind == "duplicates":
        rows[N // 2 :] = rows[: N // 2] * rng.choice([1.0, 3.0], (N // 2, 1))
    elif kind == "zero rows":
        rows[rng.random(N) < 0.5] = 0
    elif kind == "scaled":
        rows *= 10.0 ** rng.integers(-6, 7, (N, 1))
    elif kind == "rank 2":
        rows = rng.standard_normal((N, 2)) @ rng.standard_normal((2, P))
    gate = rng.standard_normal(P)
    signs = np.where(rows @ gate >= 0, 1.0, -1.0)
    if rng.random() < 0.3:
        signs = rng.choice([-1.0, 1.0], N)
    return rows, signs, rng.standard_normal(P) * 10.0 ** rng.integers(-3, 4)


def reference(rows, signs, target):
    """Projection of ``target`` on {u : signs * (rows u) >= 0} by NNLS on its polar."""
    norms = np.linalg.norm(rows, axis=1)
    A = (signs / np.where(norms > 0, norms, 1))[:, None] * rows
    multipliers, _ = nnls(A.T, -target, maxiter=1000)
    return target + A.T @ multipliers


def rebuilt(rows, signs, target, active: ActiveRows):
    """target + A^T lambda from the returned active rows, whose multipliers are for rows of unit norm."""
    chosen = np.asarray(signs)[active.index, None] * np.asarray(rows)[active.index]
    norms = np.linalg.norm(chosen, axis=1, keepdims=True)
    weights = np.where(active.used, active.value, 0.0)
    return target + (chosen / np.where(norms > 0, norms, 1)).T @ weights


@settings(max_examples=150, deadline=None)
@given(kinds, seeds)
def test_projection_is_that_of_nnls(kind, seed):
    rows, signs, target = cone(kind, seed)
    point, active = project(rows, signs, target)
    size = np.linalg.norm(target)
    np.testing.assert_allclose(point, reference(rows, signs, target), atol=1e-9 * size)
    assert np.all(active.value >= 0)
    np.testing.assert_allclose(point, rebuilt(rows, signs, target, active), atol=1e-12 * size)


@settings(max_examples=100, deadline=None)
@given(kinds, seeds, seeds)
def test_warm_starts_give_the_same_point(kind, seed, other):
    rows, signs, target = cone(kind, seed)
    cold, active = project(rows, signs, target)
    near = target + 1e-2 * np.linalg.norm(target) * np.random.default_rng(other).standard_normal(P)
    warm_starts = [active, project(rows, signs, near)[1], project(rows, signs, -target)[1]]
    if kind == "gaussian":  # any independent rows will do, with any multipliers
        rng = np.random.default_rng(other)
        index = jnp.asarray(rng.choice(N, P, replace=False), jnp.int32)
        value = jnp.asarray(rng.random(P)) * np.linalg.norm(target)
        warm_starts.append(ActiveRows(index, value, jnp.asarray(rng.random(P) < 0.6)))
    for warm in warm_starts:
        point, _ = project(rows, signs, target, warm)
        np.testing.assert_allclose(point, cold, atol=1e-9 * np.linalg.norm(target))


@settings(max_examples=100, deadline=None)
@given(kinds, seeds, st.sampled_from([1, 2, 3]))
def test_iterations_cut_short_still_bound_from_above(kind, seed, max_steps):
    rows, signs, target = cone(kind, seed)
    best = np.linalg.norm(reference(rows, signs, target))  # max of target @ u over unit u in the cone, or 0
    point, active = project(rows, signs, target, max_steps=max_steps)
    assert np.linalg.norm(point) >= best - 1e-9 * np.linalg.norm(target)
    assert np.all(active.value >= 0)
    np.testing.assert_allclose(point, rebuilt(rows, signs, target, active), atol=1e-12 * np.linalg.norm(target))


@settings(max_examples=50, deadline=None)
@given(kinds, seeds)
def test_warm_starts_cut_short_still_bound_from_above(kind, seed):
    rows, signs, target = cone(kind, seed)
    best = np.linalg.norm(reference(rows, signs, target))
    for warm in (project(rows, signs, -target)[1], project(rows, signs, target[::-1])[1]):
        point, active = project(rows, signs, target, warm, max_steps=1)
        assert np.linalg.norm(point) >= best - 1e-9 * np.linalg.norm(target)
        assert np.all(active.value >= 0)


@settings(max_examples=100, deadline=None)
@given(kinds, seeds, st.floats(0, 1.2))
def test_iterations_that_have_come_far_enough_stop_at_a_bound(kind, seed, share):
    rows, signs, target = cone(kind, seed)
    size, best = np.linalg.norm(target), np.linalg.norm(reference(rows, signs, target))
    for warm in (None, project(rows, signs, -target)[1]):
        point, active = project(rows, signs, target, warm, enough=share * size)
        length = np.linalg.norm(point)
        assert best - 1e-9 * size <= length <= max(share * size, best + 1e-9 * size)
        assert np.all(active.value >= 0)
        np.testing.assert_allclose(point, rebuilt(rows, signs, target, active), atol=1e-12 * size)
        stacked = jax.tree.map(lambda a: a[None], active)
        np.testing.assert_allclose(lifted_by(rows, signs, target[:, None], stacked)[:, 0], point, atol=1e-12 * size)
    if share > 1.01:
        np.testing.assert_array_equal(project(rows, signs, target, enough=share * size)[0], target)


def test_points_inside_and_in_the_polar():
    rows, signs = np.eye(P)[np.arange(N) % P], np.ones(N)
    inside = np.array([1.0, 2.0, 0.0, 3.0])
    np.testing.assert_array_equal(project(rows, signs, inside)[0], inside)
    np.testing.assert_allclose(project(rows, signs, -inside)[0], 0, atol=1e-15)
    np.testing.assert_array_equal(project(rows, signs, np.zeros(P))[0], 0)
    _, warm = project(rows, signs, -inside)
    np.testing.assert_array_equal(project(rows, signs, np.zeros(P), warm)[0], 0)
    np.testing.assert_array_equal(project(0 * rows, signs, -inside)[0], -inside)  # zero rows constrain nothing


def test_sign_zero_drops_a_row():
    rows, signs, target = cone("gaussian", 3)
    dropped = signs * (np.arange(N) < 6)
    point, _ = project(rows, dropped, target)
    np.testing.assert_allclose(point, reference(rows[:6], signs[:6], target), atol=1e-12)


@pytest.mark.routine(2)
@pytest.mark.parametrize("seed", range(6))
def test_least_norm_shift_against_a_quadratic_program(seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((10, 3))
    signs = np.where(rows @ rng.standard_normal(3) >= 0, 1.0, -1.0)
    bound = np.maximum(rng.standard_normal(10), 0) if seed % 2 else rng.standard_normal(10)
    w = cp.Variable(3)
    best = cp.Problem(cp.Minimize(cp.norm(w, 2)), [cp.multiply(signs, rows @ w) >= bound])
    best.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    found = np.asarray(jax.jit(least_norm_shift)(rows, signs, bound))
    assert np.min(signs * (rows @ found) - bound) >= -1e-10 * (1 + np.linalg.norm(found))
    assert np.linalg.norm(found) == pytest.approx(best.value, rel=1e-7, abs=1e-8)
    np.testing.assert_allclose(found, w.value, atol=1e-5)


def test_no_shift_is_needed_inside():
    rows, signs, _ = cone("gaussian", 1)
    np.testing.assert_allclose(least_norm_shift(rows, signs, -np.ones(N)), 0, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_face_projector_is_the_derivative(seed):
    rows, signs, target = cone("gaussian", seed)
    point, active = project(rows, signs, target)
    F = np.asarray(jax.jit(face_projector)(rows, signs, active))
    np.testing.assert_allclose(F, F.T, atol=1e-10)
    np.testing.assert_allclose(F @ F, F, atol=1e-10)
    np.testing.assert_allclose(F @ target, point, atol=1e-9 * np.linalg.norm(target))
    assert round(np.trace(F)) == P - int(np.sum(active.used))
    moved = project(rows, signs, target * (1 + 1e-3))[0]  # the same face: cones are invariant to scaling
    np.testing.assert_allclose(moved, F @ target * (1 + 1e-3), atol=1e-9 * np.linalg.norm(target))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["gaussian", "zero rows", "scaled", "rank 2"]), seeds)
def test_face_basis_spans_what_the_projector_projects_on(kind, seed):
    rows, signs, target = cone(kind, seed)
    _, active = project(rows, signs, target)
    basis = np.asarray(jax.jit(face_basis)(rows, signs, active))
    np.testing.assert_allclose(basis.T @ basis, face_projector(rows, signs, active), atol=1e-9)
    used = int(np.sum(active.used))
    assert not np.any(basis[:used])
    np.testing.assert_allclose(basis[used:] @ basis[used:].T, np.eye(P - used), atol=1e-12)


def test_face_projector_without_active_rows_is_the_identity():
    rows, signs, _ = cone("gaussian", 0)
    np.testing.assert_array_equal(face_projector(rows, signs, no_active_rows(P, jnp.float64)), np.eye(P))


@pytest.mark.float32
@settings(max_examples=60, deadline=None)
@given(kinds, seeds)
def test_float32(kind, seed):
    rows, signs, target = cone(kind, seed)
    rows, target = rows.astype(np.float32), target.astype(np.float32)
    point, active = project(rows, signs.astype(np.float32), target)
    assert point.dtype == active.value.dtype == jnp.float32
    exact, size = reference(rows.astype(float), signs, target), np.linalg.norm(target)
    assert np.all(active.value >= 0) and np.linalg.norm(point) >= np.linalg.norm(exact) - 1e-5 * size
    if kind != "rank 2":  # there the cone itself is decided by rounding
        np.testing.assert_allclose(point, exact, atol=2e-4 * size)
