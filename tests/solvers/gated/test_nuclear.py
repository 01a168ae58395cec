"""NuclearProximalGradient: optimal by an independent solver, ordered among relaxations, honest about its network."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    Dense,
    InvalidInputError,
    NuclearProximalGradient,
    ProximalGradient,
    Status,
    enumerate_arrangements,
    make_problem,
    solve,
)
from jaxcvx.datasets import spiral
from tests.helpers import distinct_cells, gaussian_data, network_value, nuclear_optimum, targets_for

SOLVER = NuclearProximalGradient(tol=1e-8)
N, D, C, P = 15, 3, 2, 8


def sampled(loss: str = "squared", fraction: float = 0.1, seed: int = 0):
    X, Y = gaussian_data(seed, N, D, C)
    targets = targets_for(loss, Y)
    problem = make_problem(X, targets, 1.0, loss=loss, arrangements=distinct_cells(0, X, P))
    return problem.replace(beta=fraction * problem.beta_max()), X, targets


def one_hot_spiral(num_per_arm: int, beta: float):
    X, arm = spiral(num_per_arm)
    return make_problem(X, np.eye(3)[arm], beta, arrangements=enumerate_arrangements(X))


@pytest.mark.routine("huber")
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
def test_against_clarabel(loss):
    problem, X, targets = sampled(loss)
    solution = solve(problem, NuclearProximalGradient(tol=1e-7))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-7
    expected = nuclear_optimum(X, problem.arrangements.masks, targets, float(problem.beta), loss)
    assert solution.objective == pytest.approx(expected, rel=3e-7)
    assert solution.lower_bound <= expected * (1 + 1e-7)
    assert solution.scope == "sampled-cells"


def test_reference_value_of_the_spiral():
    solution = solve(one_hot_spiral(4, 0.1), SOLVER)
    assert solution.objective == pytest.approx(3.866766, abs=1e-6)
    assert solution.scope == "relaxation"
    assert solution.lower_bound == pytest.approx(solution.objective, rel=1e-7)
    assert 4.1579584 <= solution.upper_bound <= 4.16  # the optimum of training is 4.15796


def test_small_beta_reaches_its_tolerance():
    """Plain acceleration leaves 8e-5 after 5000 steps here."""
    solution = solve(one_hot_spiral(20, 0.01), SOLVER)
    assert solution.status == Status.CONVERGED and solution.num_steps < 1000


@pytest.mark.long
def test_between_frobenius_groups_and_the_network():
    problem, X, Y = sampled()
    nuclear, frobenius = solve(problem, SOLVER), solve(problem, ProximalGradient(tol=1e-8))
    assert frobenius.objective < nuclear.objective * (1 - 1e-3)
    assert nuclear.objective < nuclear.upper_bound
    net = nuclear.network
    value = network_value(np.asarray(net.hidden), np.asarray(net.output), X, Y, float(problem.beta))
    assert nuclear.upper_bound == pytest.approx(value, rel=1e-12)


@pytest.mark.long
def test_one_output_makes_the_two_norms_equal():
    X, Y = gaussian_data(3, N, D)
    problem = make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, P))
    values = [solve(problem, solver).objective for solver in (SOLVER, ProximalGradient(tol=1e-8))]
    assert values[0] == pytest.approx(values[1], rel=1e-7)


def test_objective_and_dual_norm_from_their_definitions():
    problem, X, Y = sampled()
    solution = solve(problem, SOLVER)
    masks, V, beta = (
        np.asarray(problem.arrangements.masks, float),
        np.asarray(solution.params),
        float(problem.beta),
    )
    R = Y - np.einsum("qn,np,qpc->nc", masks, X, V)
    objective = 0.5 * np.sum(R**2) + beta * np.linalg.norm(V, ord="nuc", axis=(1, 2)).sum()
    assert solution.objective == pytest.approx(objective, rel=1e-12)
    top = np.linalg.norm(np.einsum("qn,np,nc->qpc", masks, X, R), ord=2, axis=(1, 2))
    active = np.linalg.norm(V, axis=(1, 2)) > 1e-6
    assert top.max() <= beta * (1 + 1e-4) and 0 < active.sum() < P
    np.testing.assert_allclose(top[active], beta, rtol=1e-4)


def test_skip_connection_is_penalised_by_its_frobenius_norm():
    X, Y = gaussian_data(4, N, D, C)
    problem = make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, P), features=Dense(skip=True))
    solution = solve(problem, SOLVER)
    assert solution.status == Status.CONVERGED
    S, R = np.asarray(solution.params)[-1], Y - np.asarray(problem.operator.forward(solution.params))
    np.testing.assert_allclose(X.T @ R, 0.5 * S / np.linalg.norm(S), atol=1e-4)


def test_problems_and_settings_out_of_scope_are_refused():
    X, Y = gaussian_data(0, N, D)
    problem = make_problem(X, np.sign(Y), 0.5, loss="hinge", arrangements=distinct_cells(0, X, P))
    with pytest.raises(InvalidInputError, match="smooth loss"):
        solve(problem, SOLVER)
    with pytest.raises(InvalidInputError, match="phases"):
        solve(sampled()[0], NuclearProximalGradient(phases="newton"))


@pytest.mark.float32
def test_float32():
    X, Y = (a.astype(np.float32) for a in gaussian_data(0, N, D, C))
    problem = make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, P))
    solution = solve(problem, NuclearProximalGradient(tol=1e-4))
    assert solution.params.dtype == jnp.float32 and solution.status == Status.CONVERGED
