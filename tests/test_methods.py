"""The methods that are bound from higher layers are the public functions."""

from __future__ import annotations

import numpy as np

import jaxcvx
from jaxcvx.problems.smooth import SmoothProblem
from tests.cases import CASES


def test_methods_give_what_the_functions_give():
    problem, solver = CASES["gated"].make(), CASES["gated"].solver
    for program in ("gated", "network"):
        np.testing.assert_array_equal(problem.beta_max(program), jaxcvx.beta_max(problem, program))
    assert problem.memory_estimate(solver) == jaxcvx.memory_estimate(problem, solver)


def test_smooth_problems_have_the_estimate_too():
    case = CASES["factors"]
    assert isinstance(case.make(), SmoothProblem)
    assert case.make().memory_estimate(case.solver) == jaxcvx.memory_estimate(case.make(), case.solver) > 0
