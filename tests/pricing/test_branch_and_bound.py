"""Branch and bound against exact pricing over all cells; its bound at every budget."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.pricing.branch_and_bound import price_branch
from jaxcvx.pricing.faces import face_table, price_exact
from tests.helpers import gaussian_data


def exact_value(X, R) -> float:
    cells = jaxcvx.enumerate_arrangements(X)
    table = face_table(X, cells.masks, cells.gates)
    return float(price_exact(table, jnp.asarray(X), cells.masks, jnp.asarray(R)).values[0])


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_closes_on_the_exact_maximum(seed):
    X, r = gaussian_data(seed, 20, 3)
    result = price_branch(X, r)
    assert result.exact and result.nodes < 400
    best = exact_value(X, r)
    assert float(result.values[0]) <= best * (1 + 1e-9) <= float(result.upper) * (1 + 2e-9)
    np.testing.assert_allclose([float(result.values[0]), float(result.upper)], best, rtol=3e-6)
    u = np.asarray(result.directions[0])
    np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-12)
    np.testing.assert_allclose(result.values[0], abs(np.maximum(X @ u, 0) @ r[:, 0]), rtol=1e-12)


def test_four_dimensions_and_parallel_rows():
    X, r = gaussian_data(1, 16, 4)
    X[3], X[4], X[5] = 2 * X[0], -X[1], 0
    result = price_branch(X, r)
    assert result.exact
    np.testing.assert_allclose(float(result.upper), exact_value(X, r), rtol=3e-6)


def test_the_bound_holds_and_falls_with_the_budget():
    X, r = gaussian_data(5, 20, 4)
    best, uppers = exact_value(X, r), []
    for budget in (2, 10, 30, 1000):
        result = price_branch(X, r, max_nodes=budget)
        assert result.nodes <= budget and best <= float(result.upper) * (1 + 1e-9)
        uppers.append(float(result.upper))
    assert uppers[0] > 1.05 * best and uppers[-1] < 1.00001 * best
    assert (np.diff(uppers) <= 1e-9).all()


@pytest.mark.parametrize("c", [2, 4])
def test_several_outputs_are_bounded(c):
    X, R = gaussian_data(c, 12, 3, c)
    best = exact_value(X, R)
    result = price_branch(X, R)
    assert float(result.values[0]) <= best * (1 + 1e-9) and best <= float(result.upper)
    assert float(result.upper) <= np.linalg.norm([exact_value(X, r[:, None]) for r in R.T]) * 1.5


def test_rank_one_residual_is_one_output():
    X, r = gaussian_data(0, 12, 3)
    direction = np.array([[0.6, 0.8]])
    result = price_branch(X, r @ direction)
    assert result.exact
    np.testing.assert_allclose(float(result.upper), exact_value(X, r), rtol=3e-6)


def test_an_incumbent_saves_nodes():
    X, r = gaussian_data(7, 20, 4)
    first = price_branch(X, r)
    again = price_branch(X, r, incumbent=3.0 * first.directions)
    assert again.exact and again.nodes <= first.nodes
    np.testing.assert_allclose(again.values, first.values, rtol=1e-6)


def test_trivial_and_bad_input():
    X, r = gaussian_data(0, 6, 3)
    result = price_branch(X, 0 * r)
    assert result.exact and float(result.upper) == 0 and np.isfinite(result.directions).all()
    positive = price_branch(np.eye(3), np.ones((3, 1)))
    np.testing.assert_allclose([float(positive.upper), float(positive.values[0])], np.sqrt(3), rtol=3e-6)
    with pytest.raises(InvalidInputError, match="max_nodes"):
        price_branch(X, r, max_nodes=0)


@pytest.mark.float32
def test_float32():
    X, r = (a.astype(np.float32) for a in gaussian_data(3, 15, 3))
    result = price_branch(X, r, tol=1e-3)
    best = exact_value(X, r)
    assert result.upper.dtype == jnp.float32 and result.exact
    assert best <= float(result.upper) <= best * 1.003
