"""A snapshot as plain arrays and back: the same state, or None where it is not this solver's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxcvx import GradientDescent, ProximalGradient, Status, solve
from jaxcvx.solvers.core import driver, snapshot
from jaxcvx.solvers.core.snapshot import restore
from tests.helpers import gaussian_data
from tests.solvers.gated.test_proximal_gradient import problem_of

SOLVER = ProximalGradient(tol=1e-9, phases="accelerated", check_every=5)


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        return problem_of(*gaussian_data(0, 20, 3), 0.05)


def to_leaves(here):
    """The arrays, as a file gives them back."""
    return {place: np.asarray(leaf) for place, leaf in snapshot.to_leaves(here).items()}


def snapshots(problem, solver):
    """All that the driver's loop makes."""
    seen = []
    solution = driver._solve(problem, solver, None, None, lambda info, here: seen.append(here) or False)
    return seen, solution


def test_back_from_leaves_it_is_the_same(problem):
    seen, _ = snapshots(problem, SOLVER)
    middle = seen[len(seen) // 2]
    leaves = to_leaves(middle)
    back = restore(problem, SOLVER, leaves)
    jax.tree.map(np.testing.assert_array_equal, back.state, middle.state)
    assert int(back.status) == Status.RUNNING and int(back.before) == int(middle.before)
    count = int(middle.history.count)
    assert int(back.history.count) == count == len(leaves[".history.step"])
    np.testing.assert_array_equal(back.history.objective[:count], middle.history.objective[:count])


def test_limits_may_have_changed(problem):
    seen, _ = snapshots(problem, SOLVER)
    last = to_leaves(seen[-1])
    assert int(seen[-1].status) == Status.CONVERGED
    tighter = ProximalGradient(tol=1e-13, phases="accelerated", check_every=5)
    assert int(restore(problem, tighter, last).status) == Status.RUNNING
    assert int(restore(problem, SOLVER, last).status) == Status.CONVERGED
    early = ProximalGradient(tol=1e-13, phases="accelerated", check_every=5, max_steps=5)
    shorter = restore(problem, early, last)
    assert int(shorter.status) == Status.MAX_STEPS and shorter.history.step.shape == (2,)


def test_snapshot_of_another_solver_or_shape_is_not_restored(problem):
    leaves = to_leaves(snapshots(problem, SOLVER)[0][1])
    assert restore(problem, GradientDescent(width=4), leaves) is None
    place = next(place for place in leaves if place.startswith(".state") and leaves[place].ndim > 1)
    for changed in (
        {place: leaves[place][:1]},
        {place: leaves[place].astype(np.float32)},
        {place: "text"},
        {".phase": np.int32(7)},
        {".phase": np.zeros(2, np.int32)},
        {".other": np.zeros(2)},
    ):
        assert restore(problem, SOLVER, leaves | changed) is None, changed
    for missing in (".phase", place, ".status"):
        assert restore(problem, SOLVER, {k: v for k, v in leaves.items() if k != missing}) is None


def test_solve_itself_ends_where_the_loop_with_snapshots_does(problem):
    _, with_snapshots = snapshots(problem, SOLVER)
    plain = solve(problem, SOLVER)
    assert with_snapshots.num_steps == plain.num_steps
    np.testing.assert_allclose(with_snapshots.objective, plain.objective, rtol=1e-12)
