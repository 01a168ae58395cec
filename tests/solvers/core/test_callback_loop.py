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
def test_it_goes_on_from_a_snapshot(name):
    snapshots = []
    whole = run(name, lambda info, snapshot: snapshots.append(snapshot))
    assert len(snapshots) >= 3
    resumed = run(name, lambda info, snapshot: False, snapshots[len(snapshots) // 2])
    jax.tree.map(np.testing.assert_array_equal, resumed.outcome, whole.outcome)
    assert int(resumed.num_steps) == int(whole.num_steps)


def test_a_true_value_stops_it_and_keeps_what_was_reached():
    infos = []

    def stop(info: jaxcvx.StepInfo, snapshot: object) -> bool:
        infos.append(info)
        return len(infos) == 2

    stopped = run("gated", stop)
    assert int(stopped.status) == Status.STOPPED and len(infos) == 2
    assert int(stopped.num_steps) == infos[-1].step
    assert all(isinstance(v, float) for v in (infos[0].objective, infos[0].bound, infos[0].residual))
