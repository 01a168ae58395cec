"""End to end in jax's default precision: dtypes are kept, results near float64's, bounds still bounds."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    ConeADMM,
    ProximalGradient,
    Status,
    beta_max,
    certify,
    enumerate_arrangements,
    make_problem,
    sample_arrangements,
    solve,
    training_objective,
)
from tests.helpers import (
    cone_optimum,
    distinct_cells,
    gated_optimum,
    gaussian_data,
    network_value,
    targets_for,
)

pytestmark = pytest.mark.float32

N, D, P = 20, 3, 12


def single_problem(seed: int, c: int, loss: str = "squared"):
    """A problem in float32, and its data in float64 exactly as rounded, for the oracle."""
    X, raw = gaussian_data(seed, N, D, c)
    X = X.astype(np.float32)
    Y = targets_for(loss, raw.astype(np.float32))
    problem = make_problem(X, Y, 1.0, loss=loss, arrangements=distinct_cells(seed, X.astype(float), P))
    problem = problem.replace(beta=(0.3, 0.1, 0.03)[seed] * problem.beta_max())
    assert problem.X.dtype == problem.Y.dtype == problem.beta.dtype == jnp.float32
    return problem, X.astype(float), np.asarray(Y, float if loss == "squared" else None)


def check_dtypes(solution) -> None:
    assert not jax.config.jax_enable_x64
    for leaf in jax.tree.leaves((solution.params, solution.network)):
        assert leaf.dtype == jnp.float32
    for number in (
        solution.objective,
        solution.upper_bound,
        solution.lower_bound,
        solution.gap,
        solution.program_gap,
    ):
        assert number.dtype == np.float64  # evaluated on the host


def check_report(solution, problem, X, Y) -> None:
    """The reported upper bound is the objective of the weights as returned, evaluated in float64."""
    weights = (np.asarray(a, float) for a in (solution.network.hidden, solution.network.output))
    assert solution.upper_bound == pytest.approx(network_value(*weights, X, Y, float(problem.beta)), rel=1e-12)
    assert solution.lower_bound <= solution.upper_bound
    assert solution.gap == pytest.approx((solution.upper_bound - solution.lower_bound) / solution.upper_bound, rel=1e-9)


@pytest.mark.routine("3")
@pytest.mark.parametrize("c", [1, 3])
def test_gated_program(c):
    for seed in range(3):
        problem, X, Y = single_problem(seed, c)
        solution = solve(problem, ProximalGradient(tol=1e-5))
        optimum = gated_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
        check_dtypes(solution)
        check_report(solution, problem, X, Y)
        assert solution.status == Status.CONVERGED
        assert solution.objective == pytest.approx(optimum, rel=1e-4)
        assert optimum * (1 - 1e-4) <= solution.lower_bound <= optimum * (1 + 1e-7)
        assert 0 <= solution.program_gap <= 1e-4


@pytest.mark.routine(1)
@pytest.mark.parametrize("c", [1, 3])
def test_cone_program(c):
    for seed in range(3):
        problem, X, Y = single_problem(seed, c)
        solution = solve(problem, ConeADMM(tol=1e-4))
        optimum = cone_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
        check_dtypes(solution)
        check_report(solution, problem, X, Y)
        assert solution.status == Status.CONVERGED
        assert solution.objective == pytest.approx(optimum, rel=1e-4)
        if c == 1:
            assert optimum * (1 - 3e-4) <= solution.lower_bound <= optimum * (1 + 1e-7)
            assert solution.upper_bound >= optimum * (1 - 1e-7)


def test_other_losses():
    for loss, solver, oracle in (
        ("logistic", ProximalGradient(tol=1e-4), gated_optimum),
        ("hinge", ConeADMM(tol=1e-3), cone_optimum),
    ):
        problem, X, Y = single_problem(0, 1, loss)
        solution = solve(problem, solver)
        optimum = oracle(X, problem.arrangements.masks, Y, float(problem.beta), loss=loss)
        check_dtypes(solution)
        assert solution.objective == pytest.approx(optimum, rel=1e-3)
        assert solution.lower_bound <= optimum * (1 + 1e-7)


def test_tolerances_below_the_resolution_are_met_at_the_resolution():
    problem, X, Y = single_problem(0, 1)
    solution = solve(problem, ProximalGradient(tol=0.0))
    optimum = gated_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
    assert solution.status == Status.CONVERGED and solution.num_steps < 1000
    assert solution.objective == pytest.approx(optimum, rel=1e-5)
    assert solution.lower_bound <= optimum * (1 + 1e-7)


def test_bounds_under_jit_are_rounded_down():
    problem, X, Y = single_problem(1, 1)
    optimum = functools.partial(gated_optimum, X, problem.arrangements.masks, Y)
    betas = problem.beta * jnp.asarray([1.0, 0.3])
    batch = jax.jit(jax.vmap(lambda b: solve(problem.replace(beta=b), ProximalGradient(tol=1e-5))))(betas)
    for leaf in jax.tree.leaves(batch):
        assert leaf.dtype != np.float64
    for k, beta in enumerate(betas):
        best = optimum(float(beta))
        assert float(batch.lower_bound[k]) <= best * (1 + 1e-7)
        assert float(batch.objective[k]) == pytest.approx(best, rel=1e-4)
        assert float(batch.program_gap[k]) >= 0


def test_the_whole_way_from_data_to_certificate():
    X, Y = (a.astype(np.float32) for a in gaussian_data(0, 8, 2))
    cells = enumerate_arrangements(X)
    assert cells.gates.dtype == jnp.float32 and cells.complete
    problem = make_problem(X, Y, 0.2, arrangements=cells)
    assert beta_max(problem, "network").dtype == beta_max(problem).dtype == jnp.float32
    solution = solve(problem, ConeADMM(tol=1e-4))
    check_dtypes(solution)
    optimum = cone_optimum(X.astype(float), cells.masks, Y.astype(float), float(np.float32(0.2)))
    assert solution.scope == "global"
    assert solution.lower_bound <= optimum * (1 + 1e-7) and optimum <= solution.upper_bound * (1 + 1e-7)
    certificate = certify(solution.network, X, Y, np.float32(0.2), arrangements=cells)
    assert certificate.lower <= optimum * (1 + 1e-7) and certificate.gap <= 1e-2
    value = training_objective(solution.network, X, Y, 0.2)
    assert value.dtype == jnp.float32 and float(value) == pytest.approx(solution.upper_bound, rel=1e-5)
    assert sample_arrangements(jax.random.key(0), X, 5).gates.dtype == jnp.float32


def test_float32_data_stay_so_where_x64_is_on():
    with jax.enable_x64(True):
        problem, X, Y = single_problem(0, 1)
        solution = solve(problem, ProximalGradient(tol=1e-5))
        for leaf in jax.tree.leaves((solution.params, solution.network)):
            assert leaf.dtype == jnp.float32
        optimum = gated_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
        assert solution.objective == pytest.approx(optimum, rel=1e-4)
