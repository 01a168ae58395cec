"""solve: statuses, callbacks, warm starts, transformations, and what it refuses."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    InvalidInputError,
    Network,
    ProximalGradient,
    Solution,
    Status,
    make_problem,
    solve,
)
from jaxcvx.errors import InvalidTypeError
from tests.helpers import distinct_cells, gaussian_data

N, D, P = 15, 3, 10
SOLVER = ProximalGradient(tol=1e-6, phases="accelerated")


def small_problem(fraction: float = 0.1):
    X, Y = gaussian_data(0, N, D)
    problem = make_problem(X, Y, 1.0, arrangements=distinct_cells(0, X, P))
    return problem.replace(beta=fraction * problem.beta_max())


@pytest.fixture(scope="module")
def solved() -> Solution:
    with jax.enable_x64(True):
        return solve(small_problem(), SOLVER)


def test_converged_solution_has_finite_consistent_fields(solved):
    assert solved.status == Status.CONVERGED and bool(solved.converged)
    assert solved.program_gap <= 1e-6 and 0 < solved.num_steps < SOLVER.max_steps
    for value in (
        solved.objective,
        solved.upper_bound,
        solved.lower_bound,
        solved.gap,
        solved.heuristic_bound,
    ):
        assert isinstance(value, np.float64)
    assert isinstance(solved.params, jax.Array) and isinstance(solved.network.hidden, jax.Array)


def test_solutions_are_frozen_pytrees(solved):
    copied = jax.tree.map(lambda a: a, solved)
    assert copied.scope == solved.scope and isinstance(copied, Solution)
    with pytest.raises(dataclasses.FrozenInstanceError):
        solved.objective = 0.0


def test_running_out_of_steps():
    solution = solve(small_problem(), dataclasses.replace(SOLVER, tol=0.0, max_steps=10, check_every=5))
    assert solution.status == Status.MAX_STEPS and solution.num_steps == 10 and not solution.converged
    assert solution.history.step.tolist() == [0, 5, 10]
    assert 0 < solution.lower_bound <= solution.objective  # bounds hold all the same


def test_warm_starts(solved):
    problem = small_problem()
    again = solve(problem, SOLVER, init=solved.params)
    assert again.num_steps == 0 and again.status == Status.CONVERGED
    np.testing.assert_array_equal(again.params, solved.params)
    near = solve(problem.replace(beta=0.98 * problem.beta), SOLVER, init=np.asarray(solved.params))
    cold = solve(problem.replace(beta=0.98 * problem.beta), SOLVER)
    assert near.objective == pytest.approx(cold.objective, rel=2e-6) and near.num_steps <= cold.num_steps
    far = solve(problem, SOLVER, init=1e3 * jnp.ones((P, D, 1)))
    assert far.status == Status.CONVERGED and far.objective == pytest.approx(solved.objective, rel=2e-6)


@pytest.mark.parametrize("bad", [np.zeros((P, D)), np.zeros((P, D, 2)), (np.zeros((P, D, 1)),) * 2, np.zeros(())])
def test_a_start_of_the_wrong_shape_is_refused(bad):
    with pytest.raises(InvalidInputError, match=r"^init: got shapes .*expected shapes \(10, 3, 1\)"):
        solve(small_problem(), SOLVER, init=bad)


@pytest.mark.parametrize("bad", [np.full((P, D, 1), np.nan), np.full((P, D, 1), np.inf)])
def test_a_start_that_is_not_finite_is_refused(bad):
    with pytest.raises(InvalidInputError, match="^init: got (nan|inf)"):
        solve(small_problem(), SOLVER, init=bad)


@pytest.mark.parametrize("bad", ["zeros", np.array([["a"]]), object()])
def test_init_that_is_not_numeric_is_refused(bad):
    with pytest.raises((InvalidInputError, InvalidTypeError), match="^init: got"):
        solve(small_problem(), SOLVER, init=bad)


def test_network_as_init_of_the_gated_program_is_refused():
    with pytest.raises(InvalidInputError, match="^init: got a Network"):
        solve(small_problem(), SOLVER, init=Network(jnp.ones((2, D)), jnp.ones((2, 1))))


def test_transformations_agree_with_a_loop():
    problem = small_problem()
    X = jnp.stack([problem.X, 2 * problem.X, problem.X * jnp.nan])
    Y = jnp.stack([problem.Y, -problem.Y, problem.Y])
    betas = problem.beta * jnp.asarray([1.0, 0.5, 1.0])

    @jax.jit
    @jax.vmap
    def many(X, Y, beta):
        return solve(problem.replace(X=X, Y=Y, beta=beta), SOLVER)

    batch = many(X, Y, betas)
    for k in range(2):
        one = solve(problem.replace(X=X[k], Y=Y[k], beta=betas[k]), SOLVER)
        np.testing.assert_allclose(batch.params[k], one.params, atol=1e-5)
        for name in ("objective", "lower_bound", "upper_bound"):
            assert float(getattr(batch, name)[k]) == pytest.approx(getattr(one, name), rel=1e-5)
        assert 0 <= float(batch.program_gap[k]) <= 1e-6
        assert batch.status[k] == one.status and batch.num_steps[k] == one.num_steps
        count = int(batch.history.count[k])
        np.testing.assert_allclose(batch.history.objective[k, :count], one.history.objective, rtol=1e-5)
        assert float(batch.history.objective[k, count - 1]) == pytest.approx(one.history.objective[-1], rel=1e-6)
    assert batch.status[2] == Status.INVALID_INPUT and batch.num_steps[2] == 0
    assert batch.lower_bound.shape == (3,) and batch.scope == "sampled-cells"


def test_concrete_problems_can_be_solved_inside_jit(solved):
    problem = small_problem()
    inside = jax.jit(lambda x: x * solve(problem, SOLVER, init=solved.params).objective)
    assert float(inside(2.0)) == pytest.approx(2 * solved.objective, rel=1e-9)


def test_data_that_overflow_are_a_status():
    problem = small_problem()
    solution = solve(problem.replace(X=1e200 * problem.X), SOLVER)
    assert solution.status in (Status.DIVERGED, Status.INVALID_INPUT, Status.MAX_STEPS)
    assert bool(jnp.isfinite(solution.params).all())


def test_wrong_objects_are_refused():
    problem = small_problem()
    with pytest.raises(InvalidTypeError, match="^problem: got tuple.*make_problem"):
        solve((1, 2), SOLVER)
    with pytest.raises(InvalidTypeError, match="^solver: got (type|ABCMeta)"):
        solve(problem, ProximalGradient)
    with pytest.raises(InvalidTypeError, match="^solver: got str"):
        solve(problem, "fista")


def test_invalid_data_that_evade_validation_are_a_status():
    problem = small_problem()
    for broken in (problem.replace(beta=-1.0), problem.replace(Y=problem.Y.at[0, 0].set(jnp.nan))):
        solution = solve(broken, SOLVER)
        assert solution.status == Status.INVALID_INPUT and solution.num_steps == 0
        assert solution.lower_bound in (0, -np.inf)  # nothing is claimed
