"""Problems in float32 are solved in float32, with jax's default precision and beside float64, and results agree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import CASES, Case, rows, solved


def start(case: Case) -> dict[str, Any]:
    """Random starts differ between the types. Both solves begin at the one in float64."""
    if case.key is None or case.on_host:
        return {}
    with jax.enable_x64(True):
        params = case.solver.initial_params(case.make(), jax.random.key(case.key))
        return {"init": jax.tree.map(lambda a: np.asarray(a, np.float32), params)}


def floating_types(tree: Any) -> set[Any]:
    """The floating types of a pytree's arrays."""
    return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def check(name: str, solution: Any) -> None:
    case = CASES[name]
    of_params = jnp.float64 if case.float64_params else jnp.float32
    assert floating_types((solution.params, solution.dual)) == {jnp.dtype(of_params)}
    assert floating_types(solution.network) <= {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(solution.objective, solved(name).objective, rtol=case.float32_rtol)
    assert solution.lower_bound <= solution.upper_bound
    if np.isfinite(solved(name).lower_bound):
        np.testing.assert_allclose(solution.lower_bound, solved(name).lower_bound, rtol=10 * case.float32_rtol)


@pytest.mark.rare("copositive", "columns", "nuclear", "cuts", "frank-wolfe")
@pytest.mark.float32
@pytest.mark.parametrize("name", rows(covered=("gated", "cone")))  # by tests/test_float32.py
def test_default_precision_agrees_with_float64(name: str) -> None:
    case = CASES[name]
    check(name, case.solve(**start(case)))


@pytest.mark.parametrize("name", rows())
def test_float32_problem_stays_float32_where_float64_is_enabled(name: str) -> None:
    case, problem = CASES[name], CASES[name].prepared(jnp.float32)
    if case.on_host:
        check(name, case.solve(problem))
        return
    solution = jax.eval_shape(case.solve, problem)  # nothing is computed
    assert floating_types(solution) == {jnp.dtype(jnp.float32)}
