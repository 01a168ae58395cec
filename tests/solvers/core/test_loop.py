"""The loop by a solver whose course is known: blocks, checks, phases, and what is kept of each."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.solvers.test_proximal_gradient import problem_of

from jaxcvx import Status
from jaxcvx.solvers.core.loop import keep_best, next_status, run, start_as_best
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome
from tests.helpers import gaussian_data


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


def test_next_status_goes_on_unless_the_solve_has_ended():
    rough, fine = Halving(tol=1e-2), Halving(tol=1e-6)
    status = {name: jnp.asarray(value, jnp.int32) for name, value in Status.__members__.items()}
    assert int(next_status(status["CONVERGED"], rough, fine)) == Status.RUNNING
    assert int(next_status(status["CONVERGED"], fine, rough)) == Status.CONVERGED
    assert int(next_status(status["MAX_STEPS"], rough, fine)) == Status.RUNNING
    for name in ("DIVERGED", "INVALID_INPUT", "STOPPED"):
        assert int(next_status(status[name], rough, fine)) == Status[name]


def test_keep_best_takes_params_by_objective_and_dual_by_bound():
    one = jnp.ones(())
    state = _State(one, jnp.asarray(3), one, jnp.asarray(5.0), jnp.asarray(2.0))
    best = keep_best(start_as_best(jnp.asarray(4.0), 10 * one), state, Outcome(20 * one, 30 * one))
    assert (float(best.objective), float(best.params)) == (4.0, 10.0)
    assert (float(best.bound), float(best.dual)) == (2.0, 30.0)
    lower = state._replace(objective=jnp.asarray(3.0), bound=jnp.asarray(1.0))
    best = keep_best(best, lower, Outcome(40 * one, 50 * one))
    assert (float(best.objective), float(best.params)) == (3.0, 40.0)
    assert (float(best.bound), float(best.dual)) == (2.0, 30.0)
    unmoved = lower._replace(step=jnp.asarray(0), objective=jnp.asarray(0.0), bound=jnp.asarray(9.0))
    assert float(keep_best(best, unmoved, Outcome(60 * one, 70 * one)).params) == 40.0
