"""The search over neurons: relaxation, signs and boxes together."""

from __future__ import annotations

import pickle

import jax
import numpy as np
import pytest

from jaxcvx.pricing.search import grow_search, start_search
from tests.helpers import gaussian_data
from tests.pricing.exact import exact_value


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("c", [1, 2])
def test_closes_on_the_exact_maximum(c):
    X, R = gaussian_data(c, 14, 3, c)
    best = exact_value(X, R)
    first = start_search(X, R)
    assert first.value <= best * (1 + 1e-12) and best <= first.upper
    done = grow_search(first, 0.0 if c == 1 else 1.01 * best)
    assert best <= done.upper <= best * (1 + 1e-6 if c == 1 else 1.01)
    assert done.closed == (c == 1) and done.nodes > 0
    np.testing.assert_allclose(done.value, best, rtol=1e-6 if c == 1 else 1e-2)
    np.testing.assert_allclose(np.linalg.norm(np.maximum(X @ done.neuron, 0) @ R), done.value, rtol=1e-9)


def test_rows_of_large_rank_are_searched_by_signs():
    X, r = gaussian_data(0, 30, 14)
    first = start_search(X, r)
    assert first.boxes is None
    upper, value = first.upper, first.value
    done = grow_search(first, 0.0, report=lambda search: search.nodes > 60)
    assert value <= done.value <= done.upper < upper


def test_several_outputs_of_large_rank_have_a_bound():
    X, R = gaussian_data(0, 30, 14, 4)
    search = start_search(X, R, upper=123.0)
    assert search.value <= search.upper <= 123.0


def test_without_rows_or_residual_there_is_nothing_to_find():
    X, r = gaussian_data(0, 6, 2)
    for rows, residual in ((0 * X, r), (X, 0 * r)):
        search = grow_search(start_search(rows, residual), 0.0)
        assert search.upper == search.value == 0 and search.closed


def test_interrupted_pickled_and_resumed():
    X, r = gaussian_data(3, 40, 4)
    whole = grow_search(start_search(X, r), 0.0)
    part = grow_search(start_search(X, r), 0.0, report=lambda search: True)
    assert part.upper > whole.upper
    again = grow_search(pickle.loads(pickle.dumps(part)), 0.0)
    np.testing.assert_allclose([again.upper, again.value], [whole.upper, whole.value], rtol=1e-6)
    assert grow_search(start_search(X, r), 0.0, deadline=0.0).upper < np.inf


def test_good_neurons_are_taken_from_the_caller():
    X, r = gaussian_data(4, 40, 6)
    best = grow_search(start_search(X, r), 0.0, report=lambda search: search.nodes > 3000)
    given = start_search(X, r, np.stack([np.zeros(6), 3 * best.neuron]))
    np.testing.assert_allclose(given.value, best.value, rtol=1e-12)
