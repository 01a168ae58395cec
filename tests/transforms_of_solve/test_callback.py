"""Callbacks see increasing steps, do not change the result, and can stop every solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jaxcvx
from tests.cases import CASES, rows, solved


@pytest.mark.rare("copositive", "nuclear")
@pytest.mark.parametrize("name", rows())
def test_callback_sees_increasing_steps_and_the_same_result(name: str) -> None:
    case, seen = CASES[name], []
    solution = case.solve(callback=lambda info: seen.append(info))
    assert len(seen) > 1 and seen[-1].step == solution.num_steps
    for earlier, later in itertools.pairwise(seen):
        # A new phase is looked at once before its first step.
        assert later.step > earlier.step or (later.step == earlier.step and later.solver != earlier.solver)
    assert all(isinstance(info, jaxcvx.StepInfo) and np.isfinite(info.objective) for info in seen)
    without = solved(name)
    assert solution.num_steps == without.num_steps and solution.status == without.status
    np.testing.assert_allclose(solution.objective, without.objective, rtol=case.rtol)


@pytest.mark.parametrize("name", rows())
def test_callback_stops_the_solve(name: str) -> None:
    case, seen = CASES[name], []

    def stop(info):
        seen.append(info.step)
        return True

    solution = case.solve(callback=stop)
    assert len(seen) == 1 and solution.num_steps == seen[0]
    assert solution.status in (jaxcvx.Status.STOPPED, jaxcvx.Status.CONVERGED)
    assert solution.lower_bound <= solution.upper_bound
