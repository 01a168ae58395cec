"""What a run leaves behind becomes numbers of the returned weights, whatever the solver believed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import CopositiveADMM, ProximalGradient, Status, solve
from jaxcvx.solvers.core.loop import Run, run
from jaxcvx.solvers.core.report import summarise, summarise_on_host
from jaxcvx.solvers.core.solution import History, Outcome
from tests.helpers import gaussian_data, network_value
from tests.solvers.gated.test_proximal_gradient import problem_of

SOLVER = ProximalGradient(tol=1e-8)


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        return problem_of(*gaussian_data(0, 20, 3), 0.05)


def a_run(problem, params, status=Status.CONVERGED):
    """A run that claims to have converged, at an objective that is not so."""
    zero = jnp.zeros(1)
    history = History(jnp.zeros(1, jnp.int32), zero - 99, zero - 99, jnp.asarray(1, jnp.int32))
    return Run(Outcome(params, None), jnp.asarray(status, jnp.int32), jnp.asarray(7, jnp.int32), history)


@pytest.mark.routine(2)
@pytest.mark.parametrize("size", [0.0, 1.0, 3.0])
def test_numbers_are_of_the_params_not_of_the_history(problem, size):
    optimum = solve(problem, SOLVER)
    done = a_run(problem, size * optimum.params)
    for solution in (summarise_on_host(problem, SOLVER, done), summarise(problem, SOLVER, done)):
        network = solution.network
        value = network_value(
            np.asarray(network.hidden), np.asarray(network.output), problem.X, problem.Y, float(problem.beta)
        )
        assert float(solution.upper_bound) == pytest.approx(value, rel=1e-12)
        assert solution.objective >= optimum.objective * (1 - 1e-9) and solution.lower_bound <= solution.upper_bound
        assert solution.lower_bound <= optimum.objective * (1 + 1e-9)  # the gated optimum: no weights prove more
        gap = (solution.upper_bound - solution.lower_bound) / solution.upper_bound
        assert float(solution.gap) == pytest.approx(float(gap), rel=1e-9)
        assert int(solution.num_steps) == 7 and solution.scope == SOLVER.scope(problem)


def test_inside_and_outside_jit_agree(problem):
    done = jax.jit(lambda p: run(p, SOLVER, SOLVER.initial_params(p, None), None))(problem)
    inside = jax.jit(lambda p, d: summarise(p, SOLVER, d))(problem, done)
    outside = summarise_on_host(problem, SOLVER, done)
    for name in ("objective", "upper_bound", "lower_bound"):
        assert float(getattr(inside, name)) == pytest.approx(float(getattr(outside, name)), rel=1e-9)
    assert outside.network.width <= inside.network.width  # pruned
    assert len(outside.history.step) == int(done.history.count)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_params_report_diverged_and_no_bound(problem, bad):
    done = a_run(problem, jnp.full_like(SOLVER.initial_params(problem, None), bad))
    for solution in (summarise_on_host(problem, SOLVER, done), summarise(problem, SOLVER, done)):
        assert int(solution.status) == Status.DIVERGED
        assert not np.isnan([float(solution.objective), float(solution.program_gap), float(solution.gap)]).any()
        assert float(solution.objective) == np.inf and float(solution.lower_bound) <= float(solution.upper_bound)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(solution.network))


def test_an_objective_beyond_float32_is_inf_and_not_nan():
    """Found by fuzzing: entries of 1e30 in single precision."""
    with jax.enable_x64(False):
        X, Y = gaussian_data(0, 6, 2)
        small = problem_of(X.astype(np.float32), Y.astype(np.float32), 0.05)
        huge = dataclasses.replace(small, X=1e30 * small.X, Y=1e30 * small.Y)
        solution = solve(huge, CopositiveADMM(max_steps=20))
        assert not np.isnan([float(solution.objective), float(solution.program_gap), float(solution.gap)]).any()
