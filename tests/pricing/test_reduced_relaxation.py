"""The reduced relaxation: its bound holds for all multipliers, and the solver's multipliers reach CVXPY's optimum."""

from __future__ import annotations

from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.pricing.reduced_barrier import Multipliers, Rows, Signs
from jaxcvx.pricing.reduced_relaxation import ball_bound, bound_node


def instance(seed: int, n: int, p: int, fixed: int = 0) -> tuple[Rows, Signs, np.ndarray]:
    """Unit rows, weights scaled to |h| = 1 at a neuron, fixed rows with the signs of that neuron, and the neuron."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, p))
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    u = rng.standard_normal(p)
    u /= np.linalg.norm(u)
    r = rng.standard_normal(n)
    h = np.maximum(Z @ u, 0) @ r
    index = rng.choice(n, fixed, replace=False)
    return Rows(Z, r / (h if h else 1.0)), Signs(index, np.where(Z[index] @ u >= 0, 1, -1)), u


def no_signs() -> Signs:
    return Signs(np.zeros(0, np.int64), np.zeros(0, np.int64))


def random_multipliers(rng: np.random.Generator, rows: Rows, signs: Signs, size: float) -> Multipliers:
    is_open = np.ones(len(rows.weights), bool)
    is_open[signs.row] = False
    f, p = len(signs.row), rows.directions.shape[1]
    return Multipliers(
        kappa=np.exp(rng.standard_normal((is_open & (rows.weights > 0)).sum())),
        mu=rng.random((is_open & (rows.weights < 0)).sum()),
        a=size * rng.random(f),
        pairs=size * rng.random(f * (f - 1) // 2),
        y=size * rng.standard_normal((f, p)),
    )


def values_on_node(rows: Rows, signs: Signs, U: np.ndarray) -> np.ndarray:
    """h at those unit vectors U that have the fixed signs."""
    U = U / np.linalg.norm(U, axis=1, keepdims=True)
    inside = (signs.sign * (U @ rows.directions[signs.row].T) >= 0).all(axis=1)
    return np.maximum(U[inside] @ rows.directions.T, 0) @ rows.weights


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4), st.sampled_from([1e-3, 0.1, 10.0]))
def test_every_choice_of_multipliers_gives_a_bound(seed, p, fixed, size):
    rows, signs, u = instance(seed, 8, p, fixed)
    rng = np.random.default_rng(seed)
    found = ball_bound(rows, signs, random_multipliers(rng, rows, signs, size))
    near = u + np.logspace(-3, 0, 400)[:, None] * rng.standard_normal((400, p))
    assert values_on_node(rows, signs, np.concatenate([u[None], near])).max() <= found.bound


def relaxation(rows: Rows, signs: Signs) -> float:
    """The same relaxation by CVXPY."""
    Z, r = rows
    n, p = Z.shape
    Y = cp.Variable((p + 1, p + 1), PSD=True)
    u, U = Y[0, 1:], Y[1:, 1:]
    fixed = set(signs.row.tolist())
    positive = [i for i in range(n) if r[i] > 0 and i not in fixed]
    negative = [i for i in range(n) if r[i] < 0 and i not in fixed]
    F = signs.sign[:, None] * Z[signs.row]
    value = sum((r[i] * (Z[i] @ u) for i, s in zip(signs.row, signs.sign, strict=True) if s > 0), cp.Constant(0))
    for i in positive:
        value = value + r[i] / 2 * (Z[i] @ u + cp.sqrt(Z[i] @ U @ Z[i]))
    for i in negative:
        value = value + r[i] * cp.pos(Z[i] @ u)
    limits = [Y[0, 0] == 1, cp.trace(U) <= 1]
    if len(F):
        limits += [F @ u >= 0, F @ U @ F.T >= 0] + [cp.norm(U @ f) <= f @ u for f in F]
    problem = cp.Problem(cp.Maximize(value), limits)
    problem.solve(solver=cp.CLARABEL)
    return float(problem.value)


@pytest.mark.oracle
@pytest.mark.parametrize(("seed", "p", "fixed"), [(0, 3, 0), (1, 6, 0), (2, 12, 0), (3, 4, 1), (4, 5, 3), (5, 8, 5)])
def test_the_bound_reaches_the_optimum_of_the_relaxation(seed, p, fixed):
    rows, signs, _ = instance(seed, 20, p, fixed)
    scale = max(bound_node(rows, no_signs()).bound, bound_node(Rows(rows.directions, -rows.weights), no_signs()).bound)
    rows = Rows(rows.directions, rows.weights / scale)
    best = relaxation(rows, signs)
    for tolerance in (4e-3, 1e-4):
        found = bound_node(rows, signs, tolerance=tolerance)
        assert best - 1e-6 <= found.bound <= best + 4 * tolerance


@pytest.mark.oracle
def test_children_start_from_their_parents():
    rows, signs, _ = instance(7, 30, 6, 3)
    moments = None
    for f in range(4):
        part = Signs(signs.row[:f], signs.sign[:f])
        found = bound_node(rows, part, moments, tolerance=1e-3)
        best = relaxation(rows, part)
        assert best - 1e-6 <= found.bound <= best * 1.002 + 2e-3
        moments = found.moments


def test_contradictory_signs_are_excluded():
    rows, _, _ = instance(0, 10, 3)
    rows = Rows(np.concatenate([rows.directions, rows.directions[:1]]), np.append(rows.weights, 1.0))
    strict = Signs(np.array([0, 10, 1, 2, 3]), np.array([1, -1, 1, 1, 1]))  # only z_0^T u = 0 is left
    flat = bound_node(rows, strict)
    assert flat.bound < bound_node(rows, Signs(strict.row[:1], strict.sign[:1])).bound


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12), st.integers(0, 10**6))
def test_bounds_are_not_rounded_down(weights, seed):
    z = np.random.default_rng(seed).choice([-1.0, 1.0], len(weights))
    rows = Rows(z[:, None], np.array(weights))
    nothing = np.zeros(0)
    exact = max(sum((Fraction(w) for w, s in zip(weights, z, strict=True) if s == side), Fraction(0)) for side in z)
    # kappa = 1 is optimal: the bound in exact arithmetic is the maximum, so any rounding down would show
    given_ = Multipliers(np.ones(len(weights)), nothing, nothing, nothing, np.zeros((0, 1)))
    bound = ball_bound(rows, no_signs(), given_).bound
    assert exact <= Fraction(bound) <= exact * (1 + Fraction(1, 10**11))


def test_a_hard_case_of_the_ball():
    # b has no part along A's leading eigenvector: the maximum is not unique, lam is the largest eigenvalue
    rows = Rows(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 1.0, 0.01]))
    nothing = np.zeros(0)
    bound = ball_bound(
        rows, no_signs(), Multipliers(np.array([1, 1, 0.01]), nothing, nothing, nothing, np.zeros((0, 2)))
    )
    assert 1.0 <= bound.bound <= 1.01
