"""CopositiveADMM: reference values, certified gaps, the order of relaxations, both phases, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    CopositiveADMM,
    Dense,
    InvalidInputError,
    InvalidTypeError,
    NuclearProximalGradient,
    Status,
    enumerate_arrangements,
    make_problem,
    solve,
)
from jaxcvx.datasets import spiral
from jaxcvx.solvers.copositive.program import relaxation_is_exact
from tests.helpers import adam_objectives, distinct_cells, gaussian_data, network_value, relaxed_optimum


def one_hot_spiral(num_per_arm: int, beta: float):
    X, arm = spiral(num_per_arm)
    return make_problem(X, np.eye(3)[arm], beta, arrangements=enumerate_arrangements(X))


def test_reference_value_of_the_spiral():
    problem = one_hot_spiral(4, 0.1)
    solution = solve(problem, CopositiveADMM(tol=1e-7))
    assert solution.status == Status.CONVERGED and solution.scope == "global"
    assert solution.objective == pytest.approx(4.15796025, abs=1e-7)
    assert solution.upper_bound == pytest.approx(4.15796025, abs=1e-7)  # two facets: nothing is lost
    assert 0 <= solution.gap <= 1e-7 and relaxation_is_exact(problem)
    net, X, Y = solution.network, np.asarray(problem.X), np.asarray(problem.Y)
    value = network_value(np.asarray(net.hidden), np.asarray(net.output), X, Y, 0.1)
    assert solution.upper_bound == pytest.approx(value, rel=1e-12)


@pytest.mark.long
@pytest.mark.routine("0.01-16.101395")
@pytest.mark.parametrize("beta,optimum", [(0.1, 17.3710526), (0.01, 16.101395)])
def test_certified_gap_on_sixty_points(beta, optimum):
    solution = solve(one_hot_spiral(20, beta), CopositiveADMM())
    assert solution.status == Status.CONVERGED and solution.scope == "global"
    assert solution.gap <= 1e-6 and solution.num_steps <= 40
    assert solution.lower_bound <= optimum * (1 + 1e-8)
    assert solution.upper_bound == pytest.approx(optimum, rel=1e-6)


@pytest.mark.long
@pytest.mark.slow
def test_strictly_below_training_with_many_facets():
    """Relaxed 1.7790006 < exact 1.7792828 (by column generation), and exact pricing closes most of what is between."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((10, 4))
    rng.standard_normal((4, 20)), rng.standard_normal((20, 4))
    Y = np.eye(4)[rng.integers(0, 4, 10)]
    problem = make_problem(X, Y, 0.3, arrangements=enumerate_arrangements(X))
    solution = solve(problem, CopositiveADMM(tol=1e-6))
    assert solution.objective == pytest.approx(1.7790006, abs=1e-6)
    assert 1.7790006 < solution.lower_bound <= 1.7792828
    assert 1.7792827 <= solution.upper_bound <= 1.77930 and not relaxation_is_exact(problem)


def small(seed: int = 0, beta: float = 0.3):
    """All 16 cells of 8 points in the plane: one shape for most tests."""
    X, Y = gaussian_data(seed, 8, 2, 2)
    return make_problem(X, Y, beta, arrangements=enumerate_arrangements(X)), X, Y


@pytest.mark.long
def test_between_the_nuclear_norm_and_adam():
    for seed in range(3):
        problem, X, Y = small(seed)
        nuclear = solve(problem, NuclearProximalGradient(tol=1e-7))
        relaxed = solve(problem, CopositiveADMM())
        best = adam_objectives(X, Y, 0.3, width=12, runs=8).min()
        assert nuclear.objective * (1 + 1e-9) < relaxed.objective
        assert relaxed.lower_bound <= relaxed.upper_bound <= best * (1 + 1e-6)


def test_scope_tells_sampled_cells():
    problem, X, _ = small()
    sampled = problem.replace(arrangements=distinct_cells(0, X, 10))
    solver = CopositiveADMM()
    assert solver.scope(solver.prepare(sampled)) == "sampled-cells"
    assert solver.scope(solver.prepare(problem)) == "global"


def test_admm_alone():
    problem, X, Y = small()
    solution = solve(problem, CopositiveADMM(tol=1e-4, phases="admm"))
    expected = relaxed_optimum(X, problem.arrangements.masks, Y, 0.3)
    assert solution.status == Status.CONVERGED and solution.num_steps > 50
    assert expected * (1 - 1e-9) <= solution.objective <= expected * (1 + 1e-4)
    assert expected * (1 - 1e-4) <= solution.lower_bound <= expected * (1 + 1e-9)
    U, V, W = map(np.asarray, solution.params)
    masks = np.asarray(problem.arrangements.masks, float)
    for mask, u, v, w in zip(masks, U, V, W, strict=True):
        A = (2 * mask - 1)[:, None] * X
        assert (A @ u @ A.T).min() >= -1e-9
        assert np.linalg.eigvalsh(np.block([[u, v], [v.T, w]])).min() >= -1e-12
    F = np.einsum("in,np,ipc->nc", masks, X, V)
    penalty = np.trace(U, axis1=1, axis2=2).sum() + np.trace(W, axis1=1, axis2=2).sum()
    assert solution.objective == pytest.approx(0.5 * np.sum((F - Y) ** 2) + 0.15 * penalty, rel=1e-12)


def test_neurons_lie_in_the_cells():
    problem, X, _ = small()
    hidden = np.asarray(solve(problem, CopositiveADMM()).network.hidden)
    masks = np.asarray(problem.arrangements.masks)
    values = hidden @ X.T
    slack = 1e-9 * np.abs(values).max()
    inside = np.all(np.where(masks[None], values[:, None] >= -slack, values[:, None] <= slack), axis=2)
    assert inside.any(axis=1).all()


def test_problem_that_is_not_prepared_is_refused_under_jit():
    problem, *_ = small()
    with pytest.raises(InvalidTypeError, match="prepare"):
        jax.jit(lambda problem: solve(problem, CopositiveADMM()))(problem)


def test_problems_and_settings_out_of_scope_are_refused():
    problem, X, Y = small()
    cells = problem.arrangements
    with pytest.raises(InvalidInputError, match="squared"):
        solve(make_problem(X, Y, 0.3, loss="huber", arrangements=cells), CopositiveADMM())
    with pytest.raises(InvalidInputError, match="skip"):
        solve(make_problem(X, Y, 0.3, features=Dense(skip=True), arrangements=cells), CopositiveADMM())
    with pytest.raises(InvalidInputError, match="phases"):
        solve(problem, CopositiveADMM(phases="interior"))
    with pytest.raises(InvalidInputError, match="relaxation"):
        solve(problem, CopositiveADMM(relaxation=2.0))


@pytest.mark.long
@pytest.mark.float32
def test_float32():
    X, Y = (a.astype(np.float32) for a in gaussian_data(0, 8, 2, 2))
    problem = make_problem(X, Y, 0.3, arrangements=enumerate_arrangements(X))
    solution = solve(problem, CopositiveADMM(tol=1e-3))
    assert solution.status == Status.CONVERGED and solution.scope == "relaxation"
    assert solution.params.U.dtype == jnp.float32 and 0 <= solution.gap <= 1e-3
