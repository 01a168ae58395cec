"""solve under jit gives what it gives outside; solvers whose loop is on the host refuse tracers."""

from __future__ import annotations

import chex
import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidTypeError
from tests.cases import CASES, rows, solved

_TRACED = 2e-3  # relative difference of a host solver's objective under jit


@pytest.mark.rare("copositive")
@pytest.mark.parametrize("name", rows())
def test_jit_equals_eager_and_traces_once(name: str) -> None:
    case, problem = CASES[name], CASES[name].prepared()
    chex.clear_trace_counter()  # it counts by the place in the source

    @jax.jit
    @chex.assert_max_traces(n=1)
    def jitted(problem):
        return case.solve(problem)

    if case.refuses_tracers:
        with pytest.raises(InvalidTypeError, match=f"^problem: got traced.*{type(case.solver).__name__}.*outside jit"):
            jitted(problem)
        return
    inside, outside = jitted(problem), solved(name)
    if case.on_host:  # another method under jit, with fixed shapes and fewer digits
        chex.assert_tree_all_finite((inside.params, inside.network, inside.objective))
        np.testing.assert_allclose(inside.upper_bound, outside.upper_bound, rtol=_TRACED)
        own = jaxcvx.training_objective(inside.network, problem.X, problem.Y, float(problem.beta), loss=problem.loss)
        np.testing.assert_allclose(inside.upper_bound, own, rtol=1e-6)
        assert jitted(case.replaced(problem, 0.9 * case.value(problem))).objective != inside.objective
        return
    assert inside.status == outside.status and inside.num_steps == outside.num_steps
    assert inside.scope == outside.scope
    chex.assert_tree_all_finite((inside.params, inside.network, inside.objective))
    chex.assert_trees_all_close(inside.params, outside.params, rtol=1e-5, atol=1e-7)
    for number in ("objective", "upper_bound", "lower_bound"):
        np.testing.assert_allclose(getattr(inside, number), getattr(outside, number), rtol=case.rtol)
    assert inside.lower_bound <= inside.upper_bound
    other = jitted(case.replaced(problem, 0.9 * case.value(problem)))
    assert other.objective != inside.objective
