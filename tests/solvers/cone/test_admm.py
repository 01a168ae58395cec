"""ConeADMM: feasibility, exactness, global optimality over complete cells, hard data, refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    ConeADMM,
    ConvFlatten,
    ConvPool,
    Dense,
    InvalidInputError,
    Network,
    ProximalGradient,
    Status,
    certify,
    enumerate_arrangements,
    make_problem,
    sample_arrangements,
    solve,
)
from jaxcvx.solvers.cone.admm import _factorise
from jaxcvx.solvers.cone.program import cone_program
from tests.helpers import (
    adam_objectives,
    cone_optimum,
    distinct_cells,
    gaussian_data,
    network_value,
    spiral_data,
)
from tests.solvers.gated.test_proximal_gradient import HARD, hard_data, problem_of

N, D, P = 20, 3, 12
SOLVER = ConeADMM(tol=1e-8)


def global_case(name: str):
    """Data small enough for all of their cells: X, Y, beta, features."""
    rng = np.random.default_rng(0)
    if name == "spiral":
        return (*spiral_data(), 0.1, Dense())
    if name == "gaussian":
        return (*gaussian_data(0, 8, 3), 0.1, Dense())
    if name == "line with bias":
        X = np.sort(rng.uniform(-1, 1, (20, 1)), axis=0)
        return X, np.sin(4 * X) + 0.1 * rng.standard_normal((20, 1)), 0.01, Dense(bias=True)
    X = rng.standard_normal((10, 2)) @ rng.standard_normal((2, 5))  # rank two in five dimensions
    return X, rng.standard_normal((10, 1)), 0.1, Dense()


@pytest.mark.long
@pytest.mark.parametrize("name", ["spiral", "gaussian", "line with bias", "rank two"])
def test_complete_cells_give_the_global_optimum(name):
    X, Y, beta, features = global_case(name)
    Z = np.concatenate([X, np.ones((len(X), 1))], axis=1) if features.bias else X
    cells = enumerate_arrangements(X, features=features)
    problem = make_problem(X, Y, beta, arrangements=cells, features=features)
    solution = solve(problem, SOLVER)
    assert solution.status == Status.CONVERGED and solution.scope == "global"
    assert 0 <= solution.gap <= 1e-6 and 0 <= solution.program_gap <= 1e-8
    net = solution.network
    value = network_value(np.asarray(net.hidden), np.asarray(net.output), Z, Y, beta)
    assert solution.upper_bound == pytest.approx(value, rel=1e-12)
    assert solution.upper_bound == pytest.approx(solution.objective, rel=1e-9)
    adam = adam_objectives(Z, Y, beta, runs=50, width=15, steps=2000)
    assert adam.min() >= solution.lower_bound - 1e-9
    assert adam.min() <= 1.5 * solution.upper_bound  # the runs are honest ones
    certificate = certify(net, X, Y, beta, arrangements=cells)  # from the weights alone, by another route
    assert certificate.scope == "global" and certificate.gap <= 1e-5
    assert certificate.lower <= solution.upper_bound * (1 + 1e-12)
    assert certificate.upper == pytest.approx(solution.upper_bound, rel=1e-9)


@pytest.mark.routine("zero rows", "duplicate rows", "badly scaled")
@pytest.mark.parametrize("name", HARD)
def test_hard_data(name):
    for fraction in (0.5, 1e-2, 1e-4):
        X, Y, cells = hard_data(name)
        problem = problem_of(X, Y, fraction, cells=cells)
        solution = solve(problem, SOLVER)
        assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-8
        for block in solution.params:
            slack = float(problem.operator.cone_margin(block).min())
            assert slack >= -1e-12 * float(jnp.abs(block).max())
        assert solution.upper_bound == pytest.approx(solution.objective, rel=1e-6)
        assert solution.lower_bound <= solution.upper_bound


@pytest.mark.long
@pytest.mark.routine("2-shared")
@pytest.mark.oracle
@pytest.mark.parametrize(("c", "grouping"), [(1, "shared"), (2, "shared"), (2, "per-output")])
def test_convolutions_with_weights_for_each_position(c, grouping):
    rng, features = np.random.default_rng(0), ConvFlatten((3,))
    X, Y = rng.standard_normal((12, 6)), rng.standard_normal((12, c))
    cells = sample_arrangements(jax.random.key(0), X, 6, features=features)
    problem = make_problem(X, Y, 0.3, features=features, arrangements=cells)
    solution = solve(problem, dataclasses.replace(SOLVER, grouping=grouping))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-8
    optimum = cone_optimum(np.asarray(problem.rows), cells.masks, Y, 0.3, grouping=grouping, positions=4)
    assert float(solution.objective) == pytest.approx(optimum, rel=1e-6)


def test_the_cone_optimum_is_above_the_gated_one():
    for seed in range(3):
        problem = problem_of(*gaussian_data(seed, N, D), 0.05)
        cone, gated = solve(problem, SOLVER), solve(problem, ProximalGradient(tol=1e-8))
        assert gated.lower_bound <= cone.lower_bound * (1 + 1e-7)
        assert cone.upper_bound <= gated.upper_bound * (1 + 1e-7)  # the best network in these cells


def test_beta_zero_and_tiny():
    X, Y = gaussian_data(0, N, D)
    for fraction in (0.0, 1e-7):
        problem = problem_of(X, Y, fraction)
        solution = solve(problem, SOLVER)
        optimum = cone_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
        assert solution.objective == pytest.approx(optimum, rel=1e-6)
        assert solution.lower_bound <= optimum * (1 + 1e-7)


def test_zero_targets_give_the_zero_network():
    X, Y = gaussian_data(0, N, D)
    solution = solve(make_problem(X, 0 * Y, 0.1, arrangements=distinct_cells(0, X, P)), SOLVER)
    assert solution.status == Status.CONVERGED and solution.objective == solution.upper_bound == solution.gap == 0
    assert solution.network.width == 1


def test_starting_from_a_network():
    X, Y = gaussian_data(0, N, D)
    problem = problem_of(X, Y, 0.05)
    cold = solve(problem, SOLVER)
    warm = solve(problem, SOLVER, init=cold.network)
    assert warm.objective == pytest.approx(cold.objective, rel=2e-8)
    assert warm.num_steps <= cold.num_steps
    far = Network(100 * problem.arrangements.gates[:3], jnp.ones((3, 1)))
    assert solve(problem, SOLVER, init=far).objective == pytest.approx(cold.objective, rel=2e-8)
    # Neurons of a solution lie on boundaries of cells: none may be lost.
    assert float(warm.history.objective[0]) == pytest.approx(float(cold.objective), rel=1e-12)


@pytest.mark.parametrize("callback", [None, lambda info: False])
def test_a_start_that_is_better_than_what_comes_is_returned(callback):
    problem = problem_of(*gaussian_data(0, N, D), 0.05)
    best = solve(problem, SOLVER)
    few = solve(problem, ConeADMM(phases="admm", max_steps=50), init=best.params, callback=callback)
    assert few.history.objective[-1] > best.objective * (1 + 1e-6)  # ADMM leaves it at first
    assert float(few.objective) == pytest.approx(float(best.objective), rel=1e-12)


def test_admm_alone_reaches_moderate_accuracy():
    problem = problem_of(*gaussian_data(0, N, D), 0.3)
    plain = solve(problem, ConeADMM(tol=1e-5, phases="admm"))
    assert plain.status == Status.CONVERGED and plain.program_gap <= 1e-5
    assert plain.objective == pytest.approx(solve(problem, SOLVER).objective, rel=1e-5)
    for block in plain.params:
        assert float(problem.operator.cone_margin(block).min()) >= -1e-12


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (ConeADMM(grouping="columns"), "^grouping: got 'columns', expected 'shared' or 'per-output'"),
        (ConeADMM(phases="newton"), "^phases: got 'newton'"),
        (ConeADMM(relaxation=2.0), "^relaxation: got 2.0"),
        (ConeADMM(relaxation=0.0), "^relaxation: got 0.0"),
        (ConeADMM(tol=-1e-3), "^tol: got -0.001"),
        (ConeADMM(cone_weight=0.0), "^cone_weight: got 0.0"),
    ],
)
def test_bad_settings_are_refused(solver, words):
    with pytest.raises(InvalidInputError, match=words):
        solve(problem_of(*gaussian_data(0, N, D), 0.1), solver)


@pytest.mark.routine(2)
@pytest.mark.parametrize("features", [Dense(), Dense(bias=True, skip=True), ConvPool((2, 2))])
def test_the_coupling_is_diagonalised_from_its_small_side(features):
    """With more samples than weights: the same matrix, from vectors as many as weights."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4, 4, 1) if isinstance(features, ConvPool) else (60, 3))
    cells = sample_arrangements(jax.random.key(0), X, 5, features=features)
    problem = make_problem(X, rng.standard_normal((60, 2)), 2.0, arrangements=cells, features=features)
    program = cone_program(problem, "shared")
    cache = _factorise(program, 100.0)
    assert cache.vectors.shape == (60, problem.operator.num_blocks * problem.rows.shape[1]) and cache.values.size < 60
    whole = 2 * program.operator.gram(cache.inverse)
    np.testing.assert_allclose(cache.vectors * cache.values @ cache.vectors.T, whole, atol=1e-12 * np.abs(whole).max())
