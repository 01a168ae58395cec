"""Closed forms against the cone program by Clarabel, against Adam, and against reference values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    ColumnGeneration,
    CuttingPlane,
    Hinge,
    Interpolation,
    InvalidInputError,
    InvalidTypeError,
    SoftThresholdedSVD,
    Squared,
    fit_whitening,
    make_problem,
    rank_one_solution,
    solve,
    training_objective,
    whitened_solution,
)
from jaxcvx.analysis.closed_forms import whitened_value
from tests.helpers import adam_objectives, cone_optimum, network_value, targets_for


def rank_one_data(seed: int, c: int, sign: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    left = rng.standard_normal((9, 1))
    left = sign * np.abs(left) if sign else left
    return left @ rng.standard_normal((1, 4)), rng.standard_normal((9, c))


@pytest.mark.routine(2)
@pytest.mark.parametrize("beta", [0.0, 0.3, 3.0])
def test_rank_one_formula_equals_the_optimum_of_the_cone_program(beta):
    for seed in range(5):
        X, Y = rank_one_data(seed, 1)
        network, value = rank_one_solution(make_problem(X, Y, beta))
        masks = np.stack([X @ X[0] >= 0, X @ X[0] <= 0])
        assert float(value) == pytest.approx(cone_optimum(X, masks, Y, beta), rel=1e-6)
        weights = np.asarray(network.hidden), np.asarray(network.output)
        assert network_value(*weights, X, Y, beta) == pytest.approx(float(value), rel=1e-12)


@pytest.mark.routine(2)
@pytest.mark.parametrize(("c", "sign"), [(1, 0.0), (3, 0.0), (2, 1.0), (2, -1.0)])
def test_adam_approaches_the_rank_one_formula(c, sign):
    X, Y = rank_one_data(7, c, sign)
    network, value = rank_one_solution(make_problem(X, Y, 0.5))
    runs = adam_objectives(X, Y, 0.5, runs=5, width=10)
    assert float(value) == pytest.approx(runs.min(), rel=1e-6) and runs.min() >= float(value) * (1 - 1e-12)
    weights = np.asarray(network.hidden), np.asarray(network.output)
    assert network_value(*weights, X, Y, 0.5) == pytest.approx(float(value), rel=1e-12)


def test_other_data_are_refused():
    X, Y = rank_one_data(0, 1)
    with pytest.raises(InvalidInputError, match="^problem.X: got feature rows of rank 2, expected rank one"):
        rank_one_solution(make_problem(X + np.eye(9, 4)[:, :1] @ np.ones((1, 4)), Y, 0.1))
    with pytest.raises(InvalidInputError, match="rank 0"):
        rank_one_solution(make_problem(0 * X, Y, 0.1))
    with pytest.raises(InvalidInputError, match="^problem: got loss 'huber'"):
        rank_one_solution(make_problem(X, Y, 0.1, loss="huber"))
    with pytest.raises(InvalidTypeError, match="rank_one_solution: got traced"):
        jax.jit(lambda problem: rank_one_solution(problem)[1])(make_problem(X, Y, 0.1))


def test_value_on_whitened_data():
    assert float(whitened_value(np.sqrt([7.0, 9.0, 14.0]), 1.0)) == pytest.approx(7.8874087, abs=5e-8)
    assert float(whitened_value(np.asarray([2.0, 0.5]), 1.0)) == pytest.approx(2 - 0.5 + 0.125)


def test_rank_one_formula_equals_column_generation():
    solver = ColumnGeneration(tol=1e-9, width=16, move_steps=100)
    for seed in range(20):
        X, Y = rank_one_data(100 + seed, 2)
        beta = float(np.random.default_rng(seed).uniform(0.05, 1.0))
        _, value = rank_one_solution(make_problem(X, Y, beta))
        solution = solve(make_problem(X, Y, beta), solver)
        assert solution.scope == "global" and solution.gap <= 1e-7
        assert solution.upper_bound == pytest.approx(float(value), rel=1e-7)
        assert solution.lower_bound <= float(value) * (1 + 1e-9)


def whitened_rows(seed: int, n: int, d: int) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((n, d))
    return np.asarray(fit_whitening(X)(X))


def check_closed_form(problem, X, Y, beta, loss):
    network, value, dual = whitened_solution(problem)
    R, Y = jnp.asarray(dual), problem.Y
    assert float(training_objective(network, X, Y, beta, loss)) == pytest.approx(float(value), rel=1e-10)
    assert float(problem.loss.dual_value(R, Y)) == pytest.approx(float(value), rel=1e-10)
    plus, minus = (np.linalg.norm(np.maximum(s * np.asarray(R), 0), axis=0) for s in (1, -1))
    if R.shape[1] == 1:  # the dual norm on whitened rows is the norm of the larger part
        assert max(plus[0], minus[0]) <= beta * (1 + 1e-12)
    return network, float(value)


@pytest.mark.routine("loss0-1.5")
@pytest.mark.parametrize("beta", [0.3, 1.5, 100.0])
@pytest.mark.parametrize("loss", [Squared(), Hinge(), Interpolation(1e3)])
def test_whitened_formulas_equal_cutting_planes(loss, beta):
    X = whitened_rows(0, 8, 12)
    Y = targets_for(loss.name, np.random.default_rng(1).standard_normal((8, 1)))
    problem = make_problem(X, Y, beta, loss=loss)
    network, value = check_closed_form(problem, X, Y, beta, loss)
    assert network.width == 2
    solution = solve(problem, CuttingPlane(tol=1e-9))
    assert solution.scope == "global" and float(solution.upper_bound) == pytest.approx(value, rel=1e-6)
    assert solution.lower_bound <= value * (1 + 1e-9)


def test_reference_value_of_whitened_regression():
    X = whitened_rows(3, 8, 12)
    y = np.array([1.0, -1, 2, 0.5, -0.25, 0, 1, -2])
    closed = whitened_solution(make_problem(X, y, 0.3))
    R = np.asarray(closed.dual)
    assert np.linalg.norm(np.maximum(R, 0)) == pytest.approx(0.3) and np.linalg.norm(np.minimum(R, 0)) == pytest.approx(
        0.3
    )
    np.testing.assert_allclose(closed.network(X), y[:, None] - R, atol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.5])
def test_one_hot_formula(beta):
    X = whitened_rows(4, 9, 12)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2])
    Y = np.eye(3)[labels]
    problem = make_problem(X, Y, beta)
    network, value = check_closed_form(problem, X, Y, beta, "squared")
    assert value == pytest.approx(float(whitened_value(np.sqrt([5.0, 3.0, 1.0]), beta)), rel=1e-12)
    closed = solve(problem, SoftThresholdedSVD())
    assert value == pytest.approx(float(closed.upper_bound), rel=1e-10)
    assert float(closed.lower_bound) == pytest.approx(value, rel=1e-8)


def test_data_that_are_not_whitened_are_refused():
    X = whitened_rows(0, 8, 12)
    Y = np.random.default_rng(1).standard_normal((8, 2))
    with pytest.raises(InvalidInputError, match="^problem.X: got rows that are not orthonormal"):
        whitened_solution(make_problem(2 * X, Y[:, 0], 0.1))
    with pytest.raises(InvalidInputError, match="^problem.Y: got parts that overlap"):
        whitened_solution(make_problem(X, Y, 0.1))
    with pytest.raises(InvalidInputError, match="^problem: got loss 'logistic'"):
        whitened_solution(make_problem(X, np.sign(Y[:, 0]), 0.1, loss="logistic"))
