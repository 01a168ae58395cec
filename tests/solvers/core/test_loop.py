"""The loop by a solver whose course is known: blocks, checks, phases, and what is kept of each."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Status
from jaxcvx.solvers.core.loop import Between, after_first_check, phase_end, phase_start, run
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome
from tests.helpers import gaussian_data
from tests.solvers.gated.test_proximal_gradient import problem_of


class _State(NamedTuple):
    params: Any
    step: Any
    residual: Any
    objective: Any
    bound: Any


@dataclasses.dataclass(frozen=True)
class Halving(Solver):
    """params <- factor params; its size is objective and residual, half of it the bound."""

    factor: float = 0.5
    breaks_at: int = 10**6
    gives_up_at: int = 10**6
    then: tuple[Solver, ...] = ()
    keeps_better_start = True

    def run_phases(self, problem):
        return (self, *self.then)

    def initial_params(self, problem, key):
        return jnp.ones(())

    def init(self, problem, key, params):
        return _State(params, jnp.asarray(0, jnp.int32), jnp.inf * params, params, params)

    def step(self, problem, state):
        params = jnp.where(state.step + 1 >= self.breaks_at, jnp.nan, self.factor * state.params)
        return state._replace(params=params, step=state.step + 1)

    def check(self, problem, state):
        size = jnp.abs(state.params)
        return state._replace(residual=size, objective=size, bound=0.5 * size)

    def gives_up(self, problem, state):
        return state.step >= self.gives_up_at

    def finish(self, problem, state):
        return Outcome(state.params, state.bound)

    def evaluate(self, problem, outcome):
        raise NotImplementedError


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        return problem_of(*gaussian_data(0, 8, 2), 0.1)


def ran(problem, solver, start=1.0):
    return jax.jit(lambda p, x: run(p, solver, x, None))(problem, jnp.asarray(start))


def test_a_check_before_the_first_block_and_after_each(problem):
    done = ran(problem, Halving(tol=0.01, check_every=3))
    assert int(done.status) == Status.CONVERGED and int(done.num_steps) == 9  # 2^-7 < 0.01, seen at the third check
    count = int(done.history.count)
    np.testing.assert_array_equal(done.history.step[:count], [0, 3, 6, 9])
    np.testing.assert_allclose(done.history.objective[:count], 0.5 ** np.array([0, 3, 6, 9]))
    np.testing.assert_allclose(done.outcome.params, 0.5**9)


def test_no_step_where_the_start_is_good_enough(problem):
    done = ran(problem, Halving(tol=0.1), 0.05)
    assert int(done.status) == Status.CONVERGED and int(done.num_steps) == 0 and float(done.outcome.params) == 0.05


def test_limits(problem):
    assert int(ran(problem, Halving(tol=1e-9, max_steps=4, check_every=2)).status) == Status.MAX_STEPS
    done = ran(problem, Halving(tol=1e-9, check_every=2, gives_up_at=5))
    assert int(done.num_steps) == 6 and int(done.status) == Status.MAX_STEPS


def test_the_last_finite_state_is_kept(problem):
    done = ran(problem, Halving(tol=1e-9, check_every=3, breaks_at=8))
    assert int(done.status) == Status.DIVERGED
    np.testing.assert_allclose(done.outcome.params, 0.5**6)


def test_invalid_data_take_no_step(problem):
    done = ran(problem.replace(X=jnp.nan * problem.X), Halving())
    assert int(done.status) == Status.INVALID_INPUT and int(done.num_steps) == 0


def test_phases_hand_on_the_best(problem):
    second = Halving(tol=1e-3, check_every=2)
    done = ran(problem, Halving(tol=1e-3, check_every=2, gives_up_at=4, then=(second,)))
    assert int(done.status) == Status.CONVERGED and int(done.num_steps) == 10
    done = ran(problem, Halving(tol=1e-3, check_every=2, max_steps=4, then=(Halving(factor=3.0, max_steps=6),)))
    np.testing.assert_allclose(done.outcome.params, 0.5**4)  # the second phase went astray
    np.testing.assert_allclose(done.outcome.dual, 0.5 * 3.0**20 * 0.5**4)  # whose bound was higher


def test_a_better_start_comes_back(problem):
    done = ran(problem, Halving(tol=1e-9, factor=2.0, max_steps=5, check_every=5))
    assert float(done.outcome.params) == 1.0 and int(done.num_steps) == 5


def between(status: Status, **changes) -> Between:
    return Between(jnp.asarray(status, jnp.int32), jnp.asarray(0), None, None, jnp.ones(()))._replace(**changes)


def test_a_phase_runs_unless_the_solve_has_failed_or_met_its_tolerance():
    rough, fine = Halving(tol=1e-2), Halving(tol=1e-6)

    def next_status(status, last, solver):
        return int(phase_start(between(status), solver, last).status)

    assert next_status(Status.CONVERGED, rough, fine) == Status.RUNNING
    assert next_status(Status.CONVERGED, fine, rough) == Status.CONVERGED
    assert next_status(Status.MAX_STEPS, rough, fine) == Status.RUNNING
    assert next_status(Status.INVALID_INPUT, None, fine) == Status.INVALID_INPUT
    for failed in (Status.DIVERGED, Status.INVALID_INPUT, Status.STOPPED):
        assert next_status(failed, rough, fine) == failed


def test_phase_end_takes_params_by_objective_and_dual_by_bound():
    one, status = jnp.ones(()), jnp.asarray(Status.MAX_STEPS)
    state = _State(one, jnp.asarray(3), one, jnp.asarray(5.0), jnp.asarray(2.0))
    start = after_first_check(between(Status.RUNNING), Halving(), jnp.asarray(4.0), 10 * one)
    now = phase_end(start, state, status, Outcome(20 * one, 30 * one))
    assert (float(now.best.objective), float(now.best.params)) == (4.0, 10.0)
    assert (float(now.best.bound), float(now.best.dual)) == (2.0, 30.0)
    assert (int(now.total), int(now.status), float(now.params)) == (3, Status.MAX_STEPS, 10.0)
    lower = state._replace(objective=jnp.asarray(3.0), bound=jnp.asarray(1.0))
    now = phase_end(now, lower, status, Outcome(40 * one, 50 * one))
    assert (float(now.best.objective), float(now.best.params)) == (3.0, 40.0)
    assert (float(now.best.bound), float(now.best.dual)) == (2.0, 30.0)
    unmoved = lower._replace(step=jnp.asarray(0), objective=jnp.asarray(0.0), bound=jnp.asarray(9.0))
    assert int(now.total) == 6
    assert float(phase_end(now, unmoved, status, Outcome(60 * one, 70 * one)).params) == 40.0


def test_a_solver_may_count_its_steps_in_another_integer_type(problem):
    @dataclasses.dataclass(frozen=True)
    class Counting(Halving):
        def init(self, problem, key, params):
            return super().init(problem, key, params)._replace(step=jnp.asarray(0, jnp.int64))

    counted, usual = (ran(problem, solver(tol=0.01, check_every=3)) for solver in (Counting, Halving))
    jax.tree.map(np.testing.assert_array_equal, counted, usual)
    assert counted.num_steps.dtype == usual.num_steps.dtype == counted.history.step.dtype
