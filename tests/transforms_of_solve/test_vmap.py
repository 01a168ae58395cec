"""vmap of solve over data, and over keys, equals a loop; solvers whose loop is on the host refuse it."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidTypeError
from tests.cases import CASES, rows, solved


# By test_many_betas_in_one_program of tests/solvers/gated/test_proximal_gradient.py, and test_vmap_over_keys below.
@pytest.mark.rare("copositive", "nuclear", "jaxopt")
@pytest.mark.parametrize("name", rows(covered=("gated", "adam", "adam-output-bias", "noise")))
def test_vmap_over_data_equals_a_loop(name: str) -> None:
    case, problem = CASES[name], CASES[name].prepared()
    value = case.value(problem)
    values = jnp.stack([value, 0.9 * value, jnp.nan * value])
    batched = jax.jit(jax.vmap(lambda value: case.solve(case.replaced(problem, value))))
    if case.refuses_tracers:
        with pytest.raises(InvalidTypeError, match=f"^problem: got traced.*{type(case.solver).__name__}.*vmap"):
            batched(values)
        return
    batch = batched(values)
    if case.on_host:  # under jit such a solver takes another way than outside
        jitted = jax.jit(case.solve)
        loop = [jitted(case.replaced(problem, each)) for each in values[:2]]
    else:
        loop = [solved(name), case.solve(case.replaced(problem, values[1]))]
    chex.assert_equal_shape_prefix(jax.tree.leaves((batch.params, batch.objective, batch.status)), 1)
    for k, single in enumerate(loop):
        assert batch.status[k] == single.status and batch.num_steps[k] == single.num_steps
        params = jax.tree.map(lambda leaf, k=k: leaf[k], batch.params)
        chex.assert_trees_all_close(params, single.params, rtol=1e-5, atol=1e-7)
        for number in ("objective", "upper_bound", "lower_bound"):
            np.testing.assert_allclose(getattr(batch, number)[k], getattr(single, number), rtol=case.rtol)
    assert loop[0].objective != loop[1].objective
    assert batch.status[2] == jaxcvx.Status.INVALID_INPUT and batch.num_steps[2] == 0


RANDOM = [name for name, case in CASES.items() if case.key is not None and not case.on_host]


@pytest.mark.parametrize("name", rows(RANDOM))
def test_vmap_over_keys_equals_a_loop(name: str) -> None:
    case, problem = CASES[name], CASES[name].make()
    seeds = jnp.arange(2) + case.key
    batch = jax.vmap(lambda seed: case.solve(problem, key=jax.random.key(seed)))(seeds)
    loop = [solved(name), case.solve(problem, key=jax.random.key(1 + case.key))]
    for k, single in enumerate(loop):
        params = jax.tree.map(lambda leaf, k=k: leaf[k], batch.params)
        chex.assert_trees_all_close(params, single.params, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(batch.objective[k], single.objective, rtol=case.rtol)
