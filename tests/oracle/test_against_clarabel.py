"""The gated and the cone program against CVXPY and Clarabel, which solve them from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcvx import ConeADMM, Dense, Problem, ProximalGradient, Solution, Status, make_problem, solve
from tests.helpers import cone_optimum, distinct_cells, gated_optimum, gaussian_data, targets_for

pytestmark = pytest.mark.oracle

# (n, d, cells): seeds share a shape, so that each is compiled once.
SMALL, MIDDLE, LARGE = (20, 3, 12), (40, 5, 16), (60, 4, 20)
FOUR, SIX = range(4), range(6)
FRACTIONS = [0.3, 0.05, 0.01, 0.6, 0.1, 0.002]  # of beta_max, one per seed


def random_problem(seed: int, shape: tuple[int, int, int], c: int, loss: str = "squared") -> tuple[Problem, np.ndarray]:
    """A random problem over cells of its own, and its targets as the oracle wants them."""
    n, d, num = shape
    X, raw = gaussian_data(seed, n, d, c)
    Y = targets_for(loss, raw)
    problem = make_problem(X, Y, 1.0, loss=loss, arrangements=distinct_cells(seed, X, num))
    return problem.replace(beta=FRACTIONS[seed] * problem.beta_max()), Y


def check_gated(solution: Solution, problem: Problem, optimum: float, rel: float = 1e-6) -> None:
    assert solution.status == Status.CONVERGED
    assert solution.objective == pytest.approx(optimum, rel=rel)
    assert solution.program_gap <= rel
    assert solution.objective * (1 - solution.program_gap) <= optimum * (1 + 1e-7)
    assert optimum * (1 - rel) <= solution.lower_bound <= optimum * (1 + 1e-7)
    assert solution.scope == "sampled-cells"


def check_cone(solution: Solution, problem: Problem, optimum: float, rel: float = 1e-6) -> None:
    assert solution.status == Status.CONVERGED
    assert solution.objective == pytest.approx(optimum, rel=rel)
    assert solution.program_gap <= rel
    assert solution.objective * (1 - solution.program_gap) <= optimum * (1 + 1e-7)
    Z, signs = np.asarray(problem.rows), 2.0 * np.asarray(problem.arrangements.masks) - 1
    for block in solution.params:
        block = np.asarray(block)[: len(signs)]
        slack = np.einsum("qn,np,qpc->qnc", signs, Z, block)
        assert slack.min() >= -1e-12 * np.abs(block).max() * np.abs(Z).max()


@pytest.mark.routine(1)
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("shape", [SMALL, MIDDLE, LARGE])
def test_gated_program(shape, c):
    for seed in FOUR:
        problem, Y = random_problem(seed, shape, c)
        solution = solve(problem, ProximalGradient(tol=1e-8))
        optimum = gated_optimum(np.asarray(problem.X), problem.arrangements.masks, Y, float(problem.beta))
        check_gated(solution, problem, optimum)
        assert solution.params.shape == (shape[2], shape[1], c)


@pytest.mark.routine(1)
@pytest.mark.parametrize("shape", [SMALL, MIDDLE, LARGE])
def test_cone_program_with_one_output(shape):
    for seed in FOUR:
        problem, Y = random_problem(seed, shape, 1)
        solution = solve(problem, ConeADMM(tol=1e-8))
        optimum = cone_optimum(np.asarray(problem.X), problem.arrangements.masks, Y, float(problem.beta))
        check_cone(solution, problem, optimum)
        assert solution.upper_bound == pytest.approx(solution.objective, rel=1e-9)
        assert optimum * (1 - 1e-6) <= solution.lower_bound <= optimum * (1 + 1e-7)


@pytest.mark.routine(1)
@pytest.mark.parametrize("grouping", ["shared", "per-output"])
@pytest.mark.parametrize("shape", [SMALL, (30, 4, 10)])
def test_cone_program_with_three_outputs(shape, grouping):
    for seed in SIX:
        problem, Y = random_problem(seed, shape, 3)
        solution = solve(problem, ConeADMM(tol=1e-8, grouping=grouping))
        Z, masks, beta = np.asarray(problem.X), problem.arrangements.masks, float(problem.beta)
        optimum = cone_optimum(Z, masks, Y, beta, grouping=grouping)
        check_cone(solution, problem, optimum)
        if grouping == "per-output":  # the program's value is a network's
            assert solution.upper_bound == pytest.approx(solution.objective, rel=1e-9)
            assert solution.lower_bound <= optimum * (1 + 1e-7)
        else:  # the program's value is below its network's, and the bound on networks below both
            assert solution.objective <= solution.upper_bound * (1 + 1e-12)
            assert solution.lower_bound <= solution.upper_bound
        assert solution.params[0].shape == solution.params[1].shape == (shape[2], shape[1], 3)


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["logistic", "huber", "softmax"])
def test_gated_program_of_other_losses(loss):
    for seed in range(3):
        problem, Y = random_problem(seed, SMALL, 3 if loss == "softmax" else 1, loss)
        solution = solve(problem, ProximalGradient(tol=1e-7))
        masks, beta = problem.arrangements.masks, float(problem.beta)
        check_gated(solution, problem, gated_optimum(np.asarray(problem.X), masks, Y, beta, loss=loss))


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", ["logistic", "huber", "hinge", "softmax"])
def test_cone_program_of_other_losses(loss):
    for seed in range(2):
        problem, Y = random_problem(seed, SMALL, 3 if loss == "softmax" else 1, loss)
        solution = solve(problem, ConeADMM(tol=1e-6))
        masks, beta = problem.arrangements.masks, float(problem.beta)
        optimum = cone_optimum(np.asarray(problem.X), masks, Y, beta, loss=loss)
        check_cone(solution, problem, optimum)
        if loss != "softmax":
            assert solution.lower_bound <= optimum * (1 + 1e-7)


@pytest.mark.long
def test_bias_and_skip_connection():
    features = Dense(bias=True, skip=True)
    for seed in range(2):
        X, Y = gaussian_data(seed, 15, 2)
        Z = np.concatenate([X, np.ones((15, 1))], axis=1)
        cells = distinct_cells(seed, Z, 9)
        problem = make_problem(X, Y, 0.3, arrangements=cells, features=features)
        for solver, check, oracle in (
            (ProximalGradient(tol=1e-8), check_gated, gated_optimum),
            (ConeADMM(tol=1e-8), check_cone, cone_optimum),
        ):
            solution = solve(problem, solver)
            check(solution, problem, oracle(Z, cells.masks, Y, 0.3, skip=True))
            assert solution.network.skip.shape == (3, 1) and solution.network.features == features
            F = np.maximum(Z @ np.asarray(solution.network.hidden).T, 0) @ np.asarray(solution.network.output)
            F = F + Z @ np.asarray(solution.network.skip)
            np.testing.assert_allclose(solution.network(problem.X), F, atol=1e-12)
            penalty = 0.5 * sum(np.sum(np.square(w)) for w in (solution.network.hidden, solution.network.output))
            value = 0.5 * np.sum((F - Y) ** 2) + 0.3 * (penalty + np.linalg.norm(solution.network.skip))
            assert solution.upper_bound == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("scales", [(1e3, 1.0, 1e-3), (1e-4, 1e-4, 1e-4), (1e5, 1e5, 1e5)])
def test_badly_scaled_columns(scales):
    # The oracle solves the same program in scaled variables only where all columns share their scale.
    X, Y = gaussian_data(0, *SMALL[:2])
    cells = distinct_cells(0, X, SMALL[2])
    problem = make_problem(X * np.asarray(scales), Y, 1.0, arrangements=cells)  # the masks are those of X too
    beta = 0.003 * float(problem.beta_max())
    size = max(scales)
    Z = np.asarray(problem.X) / size
    for solver, oracle in ((ProximalGradient(tol=1e-8), gated_optimum), (ConeADMM(tol=1e-8), cone_optimum)):
        solution = solve(problem.replace(beta=beta), solver)
        assert solution.status == Status.CONVERGED
        # min loss(Z (size W)) + beta ||W|| is min loss(Z V) + (beta / size) ||V||.
        assert solution.objective == pytest.approx(oracle(Z, cells.masks, Y, beta / size), rel=1e-6)
