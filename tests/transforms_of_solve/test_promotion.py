"""Solvers mix no types: they run where jax promotes nothing but Python scalars."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.cases import CASES, rows


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", rows())
def test_strict_promotion(name: str, dtype: Any) -> None:
    case, problem = CASES[name], CASES[name].prepared(dtype)
    with jax.numpy_dtype_promotion("strict"):
        if case.on_host:
            case.solve(problem)
        else:
            jax.eval_shape(case.solve, problem)  # nothing is computed


@pytest.mark.parametrize("name", rows())
def test_no_promotion_of_ranks(name: str) -> None:
    """The caller's flag against broadcast ranks is about the caller's code."""
    case, problem = CASES[name], CASES[name].prepared(jnp.float64)
    with jax.numpy_rank_promotion("raise"):
        if case.on_host:
            case.solve(problem)
        else:
            jax.eval_shape(case.solve, problem)  # nothing is computed
