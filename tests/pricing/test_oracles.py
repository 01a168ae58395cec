"""The choice of a pricer, and the prices that each gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    InvalidInputError,
    TooManyArrangements,
    enumerate_arrangements,
    make_problem,
    sample_arrangements,
)
from jaxcvx.pricing.oracles import ExactPricer, MultistartPricer, choose_pricer, heuristic_norm
from tests.helpers import gaussian_data, neurons_in_the_plane


def problem_of(n: int, d: int, c: int = 1, cells=None):
    X, Y = gaussian_data(0, n, d, c)
    return make_problem(X, Y, 0.1, arrangements=None if cells is None else cells(X))


def test_auto_is_exact_where_cells_are_few():
    assert isinstance(choose_pricer(problem_of(10, 2), "auto", 8), ExactPricer)
    assert isinstance(choose_pricer(problem_of(10, 2, cells=enumerate_arrangements), "auto", 8), ExactPricer)
    assert isinstance(choose_pricer(problem_of(60, 8), "auto", 8), MultistartPricer)
    sampled = problem_of(10, 3, cells=lambda X: sample_arrangements(jax.random.key(0), X, 5))
    assert isinstance(choose_pricer(sampled, "auto", 8), MultistartPricer)
    exact = choose_pricer(sampled, "exact", 8)
    assert isinstance(exact, ExactPricer) and exact.scope == "sampled-cells"
    assert choose_pricer(problem_of(10, 2), "exact", 8).scope == "global"
    assert choose_pricer(problem_of(10, 2), "branch", 8, 77) == MultistartPricer(8, 77)


def test_unknown_and_impossible_choices_are_refused():
    with pytest.raises(InvalidInputError, match="^pricing: got 'best'"):
        choose_pricer(problem_of(5, 2), "best", 8)
    with pytest.raises(TooManyArrangements):
        choose_pricer(problem_of(60, 8), "exact", 8)


@pytest.mark.long
@pytest.mark.parametrize("c", [1, 3])
def test_all_agree_in_the_plane(c):
    problem = problem_of(20, 2, c)
    R = problem.Y
    top = np.linalg.norm(neurons_in_the_plane(np.asarray(problem.X)).T @ np.asarray(R), axis=1).max()
    exact = choose_pricer(problem, "exact", 8)(problem, R, None, None, 4)
    assert float(exact.upper) == pytest.approx(top, rel=1e-6) and float(exact.upper) >= top * (1 - 1e-12)
    assert np.all(np.diff(np.asarray(exact.values)) <= 0)
    own = jnp.asarray(np.random.default_rng(1).standard_normal((5, 2)))
    found = MultistartPricer(64)(problem, R, jax.random.key(0), own, 8, 2)
    assert float(found.values[0]) == pytest.approx(top, rel=1e-5) and float(found.upper) == np.inf
    estimate = heuristic_norm(problem, R, jax.random.key(1), own, 100)
    assert estimate == pytest.approx(top, rel=1e-4) and estimate <= float(exact.upper)
