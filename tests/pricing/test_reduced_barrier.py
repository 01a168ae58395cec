"""The interior point method in a subspace: rows are split by sign, points are definite, slopes are multipliers."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx.pricing.reduced_barrier import Moments, Rows, Schedule, Signs, climb, split_rows
from jaxcvx.pricing.reduced_relaxation import ball_bound

SCHEDULE = Schedule(eps=1e-6, tau=1e-6, error=1e-4, penalty=10.0, steps=200)


def instance(seed: int, n: int, p: int, fixed: int = 0) -> tuple[Rows, Signs, np.ndarray]:
    """Unit rows, weights of both signs scaled to h = 1 at a neuron, fixed rows with its signs, and the neuron."""
    rng = np.random.default_rng(seed)
    Z = rng.standard_normal((n, p))
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    u = rng.standard_normal(p)
    u /= np.linalg.norm(u)
    r = rng.standard_normal(n)
    r = r * np.sign(np.maximum(Z @ u, 0) @ r)
    index = rng.choice(n, fixed, replace=False)
    signs = Signs(index, np.where(Z[index] @ u >= 0, 1, -1))
    return Rows(Z, r / (np.maximum(Z @ u, 0) @ r)), signs, u


def middle(p: int) -> Moments:
    """The centre of the whole space: u = 0 and U = I / (2 p)."""
    return Moments(np.eye(p), np.zeros(p), np.eye(p) / (2 * p), np.eye(p + 1))


def test_rows_are_split_by_sign_and_state():
    rows, signs = Rows(np.eye(4), np.array([1.0, -2.0, 3.0, -4.0])), Signs(np.array([2, 3]), np.array([1, -1]))
    positive, negative, fixed, counted = split_rows(rows, signs)
    assert positive.tolist() == [True, False, False, False] and negative.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(fixed, [[0, 0, 1, 0], [0, 0, 0, -1]])
    assert counted.tolist() == [3.0, 0.0]


@pytest.mark.parametrize(("seed", "p", "fixed"), [(0, 2, 0), (1, 5, 0), (2, 3, 2), (3, 6, 4)])
def test_the_value_and_the_bound_of_its_multipliers_meet(seed, p, fixed):
    """Weak duality closes in the whole space, so both are the optimum of the relaxation."""
    rows, signs, u = instance(seed, 15, p, fixed)
    found = climb(rows, signs, middle(p), SCHEDULE)
    bound = ball_bound(rows, signs, found.multipliers).bound
    assert not found.saturated
    np.testing.assert_allclose(found.value, bound, atol=2e-3)
    assert bound >= np.maximum(rows.directions @ u, 0) @ rows.weights  # u has the fixed signs


def test_points_are_definite_and_multipliers_in_their_ranges():
    rows, signs, _ = instance(4, 15, 4, 3)
    found = climb(rows, signs, middle(4), SCHEDULE)
    P, w, H, S = found.moments
    Y = np.block([[np.ones((1, 1)), w[None]], [w[:, None], H]])
    assert np.linalg.eigvalsh(Y)[0] > 0 and np.linalg.eigvalsh(S)[0] > 0 and np.trace(H) < 1
    kappa, mu, a, pairs, y = found.multipliers
    positive, negative, *_ = split_rows(rows, signs)
    assert kappa.shape == (positive.sum(),) and mu.shape == (negative.sum(),) and y.shape == (3, 4)
    assert (kappa > 0).all() and (mu >= 0).all() and (mu <= 1).all() and (a >= 0).all() and (pairs >= 0).all()
    spread = np.sqrt(np.einsum("ij,jk,ik->i", rows.directions[positive] @ P, H, rows.directions[positive] @ P))
    np.testing.assert_allclose(kappa, spread, rtol=1e-4)


def test_a_limit_on_multipliers_that_is_too_small_is_reported():
    """A fixed sign opposite to the best neuron costs more than a small penalty can hold."""
    rows, _, u = instance(5, 15, 3)
    row = int(np.argmax(rows.directions @ u * np.maximum(rows.weights, 0)))
    signs = Signs(np.array([row]), np.array([-1]))
    loose = climb(rows, signs, middle(3), SCHEDULE._replace(penalty=1e-3))
    tight = climb(rows, signs, middle(3), SCHEDULE)
    assert loose.saturated and not tight.saturated and loose.value > tight.value


def test_steps_may_run_out_and_the_multipliers_are_valid_all_the_same():
    rows, signs, u = instance(6, 15, 4, 2)
    best = np.maximum(rows.directions @ u, 0) @ rows.weights
    for steps in (0, 1, 3):
        found = climb(rows, signs, middle(4), SCHEDULE._replace(steps=steps))
        assert best <= ball_bound(rows, signs, found.multipliers).bound
