"""Callbacks: what they see, how they stop a solve, hooks around it, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import InvalidInputError, ProximalGradient, Solution, Status, StepInfo, make_problem, solve
from jaxcvx.errors import InvalidTypeError
from jaxcvx.solvers.core.callbacks import Callback, as_callbacks
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


def test_callbacks_see_the_gap_close(solved):
    seen: list[StepInfo] = []
    solution = solve(small_problem(), SOLVER, callback=seen.append)
    assert solution.objective == pytest.approx(solved.objective, rel=1e-12)
    assert solution.status == solved.status and solution.num_steps == solved.num_steps
    assert [info.step for info in seen] == solution.history.step.tolist()
    np.testing.assert_allclose([info.objective for info in seen], solution.history.objective)
    residuals = [info.residual for info in seen]
    assert residuals[-1] <= 1e-6 < residuals[0] and min(residuals) == residuals[-1]
    assert np.mean(np.diff(residuals) < 0) > 0.7
    for info in seen:
        assert info.bound <= seen[-1].objective * (1 + 1e-12) and info.max_steps == SOLVER.max_steps
        assert info.solver == "ProximalGradient" and isinstance(info.residual, float)
    np.testing.assert_array_equal(seen[-1].params, solution.params)


def test_callbacks_can_stop(solved):
    solution = solve(small_problem(), SOLVER, callback=lambda info: info.step >= 20)
    assert solution.status == Status.STOPPED and solution.num_steps == 20
    assert solved.objective < solution.objective and solution.lower_bound <= solved.objective
    at_once = solve(small_problem(), SOLVER, callback=lambda info: True)
    assert at_once.status == Status.STOPPED and at_once.num_steps == 0
    assert float(jnp.abs(at_once.params).max()) == 0


def test_stopping_ends_all_phases():
    calls = []
    solution = solve(small_problem(0.01), ProximalGradient(tol=1e-12), callback=lambda i: calls.append(i) or True)
    assert solution.status == Status.STOPPED and len(calls) == 1


def test_errors_in_callbacks_surface():
    def broken(info):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        solve(small_problem(), SOLVER, callback=broken)


def test_callbacks_are_refused_under_jit():
    problem = small_problem()
    with pytest.raises(InvalidInputError, match="^callback: got .*jit"):
        jax.jit(lambda b: solve(problem.replace(beta=b), SOLVER, callback=print).objective)(0.1)


class Recorder(Callback):
    """Writes down what it is told; starts from ``start`` where that is given."""

    def __init__(self, start=None, fail=False):
        self.start, self.fail, self.log = start, fail, []

    def begin(self, problem, solver):
        self.log.append("begin")
        return self.start

    def __call__(self, info):
        self.log.append(info.step)
        if self.fail:
            raise RuntimeError("mine")

    def end(self, solution):
        self.log.append(solution)


def test_hooks_see_start_and_end_and_may_give_the_start(solved):
    hook = Recorder(start=solved.params)
    solution = solve(small_problem(), SOLVER, callback=[hook, lambda info: None])
    assert hook.log[0] == "begin" and hook.log[1] == 0 and hook.log[-1] is solution
    assert solution.num_steps == 0  # started from the solution
    failing = Recorder(fail=True)
    with pytest.raises(RuntimeError, match="mine"):
        solve(small_problem(), SOLVER, callback=failing)
    assert failing.log == ["begin", 0, None]


def test_callbacks_are_a_callable_or_a_sequence():
    assert as_callbacks(print) == (print,)
    assert as_callbacks([print, len]) == (print, len) and as_callbacks(()) == ()
    with pytest.raises(InvalidTypeError, match="^callback: got int"):
        as_callbacks([print, 3])
    hook = Callback()
    assert hook.begin(None, SOLVER) is None and not hook(None) and hook.end(None) is None


def test_every_callback_is_called_even_if_an_earlier_one_stops():
    seen = []
    solution = solve(small_problem(), SOLVER, callback=[lambda info: True, seen.append])
    assert solution.status == Status.STOPPED and len(seen) == 1
