"""CuttingPlane with the oracle over all faces of all cells, against the other global solvers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcvx import (
    ColumnGeneration,
    ConeADMM,
    CuttingPlane,
    Dense,
    FreeBias,
    GradientDescent,
    enumerate_arrangements,
    make_problem,
    solve,
)
from tests.helpers import gaussian_data, network_value


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_agrees_with_the_other_global_solvers(seed):
    agreement(seed)


@pytest.mark.routine(2)
@pytest.mark.long
@pytest.mark.parametrize("seed", range(30))
def test_agrees_with_the_other_global_solvers_often(seed):
    agreement(seed)


def agreement(seed: int) -> None:
    """Compare three solvers on a problem of random shape, with or without a penalised bias."""
    rng = np.random.default_rng(seed)
    n, d, bias = int(rng.integers(5, 10)), int(rng.integers(1, 4)), bool(rng.integers(2))
    d = min(d, 2) if bias else d
    X, Y = gaussian_data(1000 + seed, n, d)
    beta, features = float(rng.uniform(0.05, 0.5)), Dense(bias=bias)
    cells = enumerate_arrangements(X, features=features)
    problem = make_problem(X, Y, beta, arrangements=cells, features=features)
    cuts = solve(problem, CuttingPlane(tol=1e-8))
    columns = solve(problem, ColumnGeneration(tol=1e-8, width=32, move_steps=100))
    cone = solve(problem, ConeADMM(tol=1e-8, max_steps=20_000))
    assert cuts.scope == "global" and cuts.gap <= 1e-7
    assert float(columns.upper_bound) == pytest.approx(float(cuts.upper_bound), rel=1e-6)
    assert float(cone.objective) == pytest.approx(float(cuts.upper_bound), rel=1e-6)
    network = cuts.network
    Z = np.asarray(features.matrix(X))
    value = network_value(np.asarray(network.hidden), np.asarray(network.output), Z, Y, beta)
    assert value == pytest.approx(float(cuts.upper_bound), rel=1e-12)


@pytest.mark.long
def test_free_biases_in_the_plane_by_faces():
    X, Y = gaussian_data(11, 9, 2)
    problem = make_problem(X, Y, 0.2, features=FreeBias())
    solution = solve(problem, CuttingPlane(tol=1e-8))
    assert solution.scope == "global" and solution.gap <= 1e-7
    penalised = solve(make_problem(X, Y, 0.2, features=Dense(bias=True)), CuttingPlane(tol=1e-8))
    assert solution.upper_bound < penalised.lower_bound  # free biases can only help
    run = solve(problem, GradientDescent(width=30, max_steps=3000, schedule="cosine"), key=jax.random.key(1))
    assert solution.lower_bound <= run.upper_bound <= 1.1 * solution.upper_bound
    estimate = solve(problem, CuttingPlane(tol=1e-6, oracle="multistart", num_starts=128, final_starts=512))
    assert estimate.scope == "heuristic" and estimate.lower_bound == -np.inf
    assert estimate.upper_bound == pytest.approx(float(solution.upper_bound), rel=1e-4)
    assert estimate.heuristic_bound == pytest.approx(float(solution.lower_bound), rel=1e-4)


@pytest.mark.long
def test_several_outputs():
    x, Y = gaussian_data(4, 10, 1, 2)
    for features in (FreeBias(), Dense(bias=True)):
        solution = solve(make_problem(x, Y, 0.3, features=features), CuttingPlane(tol=1e-8))
        assert solution.scope == "global" and solution.gap <= 1e-8
    columns = solve(
        make_problem(x, Y, 0.3, features=Dense(bias=True)),
        ColumnGeneration(tol=1e-8, width=32, move_steps=100),
    )
    assert float(columns.upper_bound) == pytest.approx(float(solution.upper_bound), rel=1e-6)
