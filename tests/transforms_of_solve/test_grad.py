"""Derivatives of the optimal value agree with finite differences; solvers without derivatives refuse to give any."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxcvx.errors import InvalidTypeError
from tests.cases import CASES, rows


@pytest.mark.rare("columns")
@pytest.mark.parametrize("name", rows(covered=("gated", "cone")))  # by tests/numerics/test_implicit.py
def test_gradient_equals_finite_differences_or_is_refused(name: str) -> None:
    case, problem = CASES[name], CASES[name].prepared()
    if not getattr(case.solver, "differentiable", False):
        words = (
            "got traced arrays.*runs on the host"
            if case.refuses_tracers
            else f"got {type(case.solver).__name__} under grad"
        )
        with pytest.raises(InvalidTypeError, match=words) as refusal:
            jax.grad(lambda value: case.solve(case.replaced(problem, value)).objective)(case.value(problem))
        assert type(case.solver).__name__ in str(refusal.value)
        return
    case = case._replace(solver=dataclasses.replace(case.solver, tol=1e-12))
    rng = np.random.default_rng(0)
    labels = not problem.loss.is_quadratic  # no derivatives in class labels
    direction = rng.standard_normal(), 0 * problem.Y if labels else rng.standard_normal(problem.Y.shape)

    def optimum(t):
        beta, Y = (a + t * b for a, b in zip((problem.beta, problem.Y), direction, strict=True))
        return case.solve(problem.replace(beta=beta, Y=Y)).objective

    h = 1e-3
    differences = (optimum(h) - optimum(-h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(optimum)(0.0), differences, rtol=1e-4, atol=1e-5 * optimum(0.0))
