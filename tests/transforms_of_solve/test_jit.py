"""solve under jit gives what it gives outside; solvers whose loop is on the host refuse tracers."""

from __future__ import annotations

import chex
import jax
import numpy as np
import pytest

from jaxcvx.errors import InvalidTypeError
from tests.cases import CASES, rows, solved


@pytest.mark.parametrize("name", rows())
def test_jit_equals_eager_and_traces_once(name: str) -> None:
    case, problem = CASES[name], CASES[name].prepared()
    chex.clear_trace_counter()  # it counts by the place in the source

    @jax.jit
    @chex.assert_max_traces(n=1)
    def jitted(problem):
        return case.solve(problem)

    if case.on_host:
        with pytest.raises(InvalidTypeError, match=f"^problem: got traced.*{type(case.solver).__name__}.*outside jit"):
            jitted(problem)
        return
    inside, outside = jitted(problem), solved(name)
    assert inside.status == outside.status and inside.num_steps == outside.num_steps
    assert inside.scope == outside.scope
    chex.assert_tree_all_finite((inside.params, inside.network, inside.objective))
    chex.assert_trees_all_close(inside.params, outside.params, rtol=1e-5, atol=1e-7)
    for number in ("objective", "upper_bound", "lower_bound"):
        np.testing.assert_allclose(getattr(inside, number), getattr(outside, number), rtol=case.rtol)
    assert inside.lower_bound <= inside.upper_bound
    other = jitted(case.replaced(problem, 0.9 * case.value(problem)))
    assert other.objective != inside.objective
