"""The working set of ProximalGradient: the same solution as all cells in full precision, and when it gives up."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.networks.network import network_objective
from jaxcvx.solvers.core.loop import run
from jaxcvx.solvers.core.solution import Outcome
from jaxcvx.solvers.gated.working_set import GatedWorkingSet
from tests.helpers import distinct_cells, gaussian_data, targets_for

N, D, P = 60, 6, 100


def problem_of(loss: str = "squared", outputs: int = 1, scale: float = 1.0, fraction: float = 0.1):
    X, Y = gaussian_data(0, N, D, outputs)
    cells = distinct_cells(0, X, P)
    Y = Y if loss == "squared" else targets_for(loss, Y)
    problem = jaxcvx.make_problem(scale * X, Y, 1.0, loss=loss, arrangements=cells)
    return problem.replace(beta=fraction * problem.beta_max())


def outcome(problem, solver):
    return jax.jit(lambda p: run(p, solver, solver.initial_params(p, None), None))(problem)


def used(params) -> int:
    return int(np.count_nonzero(np.any(np.asarray(params) != 0, axis=(1, 2))))


@pytest.mark.routine("squared-3")
@pytest.mark.parametrize(("loss", "outputs"), [("squared", 1), ("squared", 3), ("logistic", 1)])
def test_equals_all_cells_in_full_precision(loss, outputs):
    problem = problem_of(loss, outputs)
    plain = jaxcvx.solve(problem, jaxcvx.ProximalGradient(tol=1e-9, phases="accelerated"))
    for capacity in (None, 50):
        done = outcome(problem, GatedWorkingSet(tol=1e-9, capacity=capacity))
        assert done.status == jaxcvx.Status.CONVERGED
        last = int(done.history.count) - 1
        np.testing.assert_allclose(done.history.objective[last], plain.objective, rtol=1e-9)
        assert done.history.bound[last] <= plain.objective


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_data_beyond_the_range_of_float32(scale):
    ordinary = outcome(problem_of(), GatedWorkingSet(tol=1e-9, capacity=50))
    scaled = outcome(problem_of(scale=scale), GatedWorkingSet(tol=1e-9, capacity=50))
    assert scaled.status == jaxcvx.Status.CONVERGED
    np.testing.assert_allclose(
        scale * scaled.outcome.params, ordinary.outcome.params, atol=1e-6 * np.abs(ordinary.outcome.params).max()
    )


@pytest.mark.long
def test_too_few_cells_are_given_up_and_all_cells_go_on():
    problem = problem_of(fraction=0.01)
    needed = used(jaxcvx.solve(problem, jaxcvx.ProximalGradient(tol=1e-10)).params)
    few = GatedWorkingSet(tol=1e-8, capacity=needed // 2)
    alone = outcome(problem, few)
    assert alone.status == jaxcvx.Status.MAX_STEPS
    assert alone.num_steps < few.max_steps

    @dataclasses.dataclass(frozen=True)
    class Both(GatedWorkingSet):
        def run_phases(self, problem):
            return (few, dataclasses.replace(few, capacity=None))

    both = outcome(problem, Both(tol=1e-8))
    assert both.status == jaxcvx.Status.CONVERGED
    assert used(both.outcome.params) >= needed


def test_a_warm_start_with_more_cells_than_fit_is_not_lost():
    problem = problem_of(fraction=0.01)
    best = jaxcvx.solve(problem, jaxcvx.ProximalGradient(tol=1e-10))

    @dataclasses.dataclass(frozen=True)
    class Both(GatedWorkingSet):
        def run_phases(self, problem):
            return (GatedWorkingSet(tol=1e-8, capacity=used(best.params) // 2), GatedWorkingSet(tol=1e-8))

    solver = Both(tol=1e-8)
    done = jax.jit(lambda p, W: run(p, solver, W, None))(problem, best.params)
    assert done.status == jaxcvx.Status.CONVERGED
    cold = outcome(problem, GatedWorkingSet(tol=1e-8))
    assert done.num_steps <= cold.num_steps


@pytest.mark.long
def test_vmap_over_beta_and_float32_agree_with_single_solves():
    problem = problem_of("logistic")
    betas = problem.beta_max() * jnp.array([0.3, 0.1])
    solver = jaxcvx.ProximalGradient(tol=1e-7)
    together = jax.vmap(lambda beta: jaxcvx.solve(problem.replace(beta=beta), solver).objective)(betas)
    single = [jaxcvx.solve(problem.replace(beta=beta), solver).objective for beta in betas]
    np.testing.assert_allclose(together, single, rtol=1e-7)
    with jax.enable_x64(False):
        rounded = jaxcvx.make_problem(
            np.asarray(problem.X, np.float32),
            np.asarray(problem.Y, np.float32),
            float(betas[1]),
            loss="logistic",
            arrangements=jaxcvx.Arrangements(
                np.asarray(problem.arrangements.masks), np.asarray(problem.arrangements.gates, np.float32)
            ),
        )
        solution = jaxcvx.solve(rounded, jaxcvx.ProximalGradient(tol=1e-4))
    assert solution.status == jaxcvx.Status.CONVERGED
    np.testing.assert_allclose(solution.objective, single[1], rtol=2e-4)


@pytest.mark.long
def test_the_network_is_rounded_from_the_nonzero_cells_alone():
    problem = problem_of(outputs=3, fraction=0.3)
    solver = jaxcvx.ProximalGradient(tol=1e-8)
    solution = jaxcvx.solve(problem, solver)
    outcome = Outcome(solution.params, None)
    room = solver.room(problem, outcome)
    assert used(solution.params) <= room < P
    whole, part = solver.evaluate(problem, outcome), solver.evaluate(problem, outcome, room=room)
    assert part.network.width == 3 * room
    assert part.objective == whole.objective
    np.testing.assert_allclose(
        network_objective(part.network, problem), network_objective(whole.network, problem), rtol=1e-2
    )
