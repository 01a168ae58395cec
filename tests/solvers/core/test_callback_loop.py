"""The loop with callbacks takes the same steps as the compiled loop, from any snapshot too."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx import Status
from jaxcvx.solvers.core.callback_loop import run_with_callback
from jaxcvx.solvers.core.loop import run_jitted
from tests.cases import CASES
from tests.solvers.core.test_loop import Halving

NAMES = ["gated", "cone", "primal-dual"]  # with several phases, and with a key


def prepared(name):
    case = CASES[name]
    problem, key = case.prepared(), None if case.key is None else jax.random.key(case.key)
    return problem, case.solver, case.solver.initial_params(problem, key), key


def run(name, callback, resumed=None):
    problem, solver, params, key = prepared(name)
    return run_with_callback(problem, solver, params, key, callback, resumed)


def assert_same(one, other):
    assert int(one.num_steps) == int(other.num_steps) and int(one.status) == int(other.status)
    np.testing.assert_allclose(one.history.objective, other.history.objective, rtol=1e-9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), one.outcome, other.outcome)


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_where_the_compiled_loop_ends(name):
    problem, solver, params, key = prepared(name)
    assert_same(run(name, lambda info, snapshot: False), run_jitted(problem, solver, params, key))


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_from_every_snapshot(name):
    snapshots = []
    whole = run(name, lambda info, snapshot: snapshots.append(snapshot))
    assert len(snapshots) >= 3
    last_of_phases = [k for k in range(len(snapshots) - 1) if snapshots[k].phase != snapshots[k + 1].phase]
    for k in {1, len(snapshots) // 2, *last_of_phases, *(k + 1 for k in last_of_phases)}:
        resumed = run(name, lambda info, snapshot: False, snapshots[k])
        jax.tree.map(np.testing.assert_array_equal, resumed, whole)  # steps, history and outcome to the same bits


def phases_that_go_astray():
    """A second phase makes the objective of the first one worse."""
    return Halving(tol=1e-9, check_every=2, max_steps=4, then=(Halving(factor=3.0, max_steps=6, check_every=2),))


@pytest.mark.parametrize("solver", [phases_that_go_astray(), Halving(tol=1e-9, factor=2.0, max_steps=5, check_every=5)])
def test_the_best_of_start_and_phases_comes_back(solver):
    problem = CASES["gated"].make()
    snapshots = []
    start = solver.initial_params(problem, None)
    whole = run_with_callback(problem, solver, start, None, lambda info, snapshot: snapshots.append(snapshot), None)
    expected = run_jitted(problem, solver, start, None)
    jax.tree.map(np.testing.assert_array_equal, whole, expected)
    assert float(whole.outcome.params) == (0.5**4 if solver.then else 1.0)
    for snapshot in snapshots:
        resumed = run_with_callback(problem, solver, start, None, lambda info, snapshot: False, snapshot)
        jax.tree.map(np.testing.assert_array_equal, resumed, expected)


def test_a_true_value_stops_it_and_keeps_what_was_reached():
    infos = []

    def stop(info: jaxcvx.StepInfo, snapshot: object) -> bool:
        infos.append(info)
        return len(infos) == 2

    stopped = run("gated", stop)
    assert int(stopped.status) == Status.STOPPED and len(infos) == 2
    assert int(stopped.num_steps) == infos[-1].step
    assert all(isinstance(v, float) for v in (infos[0].objective, infos[0].bound, infos[0].residual))
