"""Frank-Wolfe against the rate and the values measured for the paper's algorithm."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcvx import (
    ColumnGeneration,
    FrankWolfe,
    GradientDescent,
    InvalidInputError,
    Status,
    enumerate_arrangements,
    make_problem,
    solve,
)
from tests.helpers import gaussian_data
from tests.solvers.semi_infinite.test_column_generation import planted_instance

RADIUS = 66.38986  # radius of the optimum of the planted instance


@pytest.fixture(scope="module")
def planted():
    with jax.enable_x64(True):
        X, Y = planted_instance()
        return make_problem(X, Y, 0.1, arrangements=enumerate_arrangements(X))


@pytest.fixture(scope="module")
def classic(planted):
    with jax.enable_x64(True):
        solver = FrankWolfe(radius=RADIUS, tol=1e-9, max_steps=1000, line_search=False)
        return solve(planted, solver)


def test_excess_equals_published_values_after_100_300_1000_steps(classic):
    excess = np.asarray(classic.history.objective) + 0.1 * RADIUS - 7.014525
    step = np.asarray(classic.history.step)
    for k, value in ((100, 23.3), (300, 5.44), (1000, 1.43)):
        assert excess[step == k] == pytest.approx(value, abs=0.006 if value < 10 else 0.06)


def test_the_gap_bounds_the_excess_at_every_check(classic):
    objective, bound = np.asarray(classic.history.objective), np.asarray(classic.history.bound)
    optimum = 7.014525 - 0.1 * RADIUS
    assert np.all(bound <= optimum + 1e-5) and np.all(optimum - 1e-5 <= objective)
    assert classic.status == Status.MAX_STEPS and classic.num_steps == 1000
    assert classic.program_gap == pytest.approx((objective[-1] - bound[-1]) / objective[-1])


def test_the_iterate_is_a_network_within_the_radius(planted, classic):
    network = classic.network
    size = np.linalg.norm(np.asarray(network.hidden), axis=1) * np.linalg.norm(np.asarray(network.output), axis=1)
    assert size.sum() <= RADIUS * (1 + 1e-9) and network.width <= 1000
    loss = 0.5 * float(((network(planted.X) - planted.Y) ** 2).sum())
    assert loss == pytest.approx(float(classic.objective), rel=1e-9)
    assert classic.scope == "global" and classic.lower_bound <= 7.014526 <= classic.upper_bound


@pytest.mark.long
def test_line_search_and_the_radius_of_a_network():
    X, Y = gaussian_data(0, 8, 2, 2)
    problem = make_problem(X, Y, 0.3)
    exact = solve(problem, ColumnGeneration(tol=1e-8, width=16))
    constrained = solve(problem, FrankWolfe(tol=1e-3, max_steps=5000), init=exact.network)
    assert constrained.status == Status.CONVERGED and constrained.program_gap <= 1e-3
    assert exact.upper_bound * (1 - 1e-8) <= constrained.upper_bound <= exact.upper_bound * 1.01
    run = GradientDescent(width=100, max_steps=2000, schedule="cosine")
    assert run.max_steps == 2000  # the run that radius=None without init makes
    alone = solve(problem, FrankWolfe(tol=1e-2, max_steps=500), key=jax.random.key(0))
    assert alone.upper_bound <= exact.upper_bound * 1.05


def test_unsupported_problems_are_refused():
    X, Y = gaussian_data(0, 6, 2)
    with pytest.raises(InvalidInputError, match="^radius: got -1"):
        solve(make_problem(X, Y, 0.1), FrankWolfe(radius=-1.0))
    with pytest.raises(InvalidInputError, match="^loss: got 'logistic'"):
        solve(make_problem(X, np.sign(Y), 0.1, loss="logistic"), FrankWolfe(radius=1.0))
