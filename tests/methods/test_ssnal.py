"""The augmented Lagrangian on a plain lasso, with a dense Newton system: CVXPY's optimum from any start."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.methods.ssnal import LassoProgram, lasso_start, lasso_step
from jaxcvx.operators.cells import CellOperator, largest_penalty
from tests.helpers import gaussian_data

B, Y = gaussian_data(0, 12, 20)
BETA = 0.7


def program() -> LassoProgram:
    matrix = jnp.asarray(B)

    def prox(V, t):
        return jnp.sign(V) * jnp.maximum(jnp.abs(V) - t, 0)

    def solve(V, sigma, g):
        kept = matrix * (jnp.abs(V[:, 0]) > sigma * BETA)
        return jnp.linalg.solve(jnp.eye(12) + sigma * kept @ kept.T, g)

    return LassoProgram(lambda W: matrix @ W, lambda R: matrix.T @ R, prox, solve)


def run(params, steps: int):
    beta, largest = jnp.asarray(BETA), jnp.asarray(1e5)  # beyond, rounding of sigma B^T R shows
    norms = jnp.abs(params[:, 0])
    state = lasso_start(program(), jnp.asarray(Y), beta, params, norms, jnp.asarray(40.0), largest)
    one = jax.jit(lambda s: lasso_step(program(), jnp.asarray(Y), beta, s, 10.0, largest))
    states = [state]
    for _ in range(steps):
        states.append(one(states[-1]))
    return states


@pytest.mark.routine(2)
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_converges_from_any_start(scale):
    start = jnp.asarray(scale * np.random.default_rng(1).standard_normal((20, 1)))
    state = run(start, 40)[-1]
    w = cp.Variable((20, 1))
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(B @ w - Y) + BETA * cp.norm1(w)))
    problem.solve(solver=cp.CLARABEL)
    W = np.asarray(state.params)
    value = 0.5 * ((B @ W - Y) ** 2).sum() + BETA * np.abs(W).sum()
    assert value == pytest.approx(problem.value, rel=1e-8)
    np.testing.assert_allclose(state.R, Y - B @ W, atol=1e-8)  # the dual variable is the residual
    assert np.abs(B.T @ np.asarray(state.R)).max() <= BETA * (1 + 1e-7)


def test_the_penalty_grows_with_the_multiplier_updates_and_never_beyond_its_limit():
    states = run(jnp.zeros((20, 1)), 40)
    sigma = np.array([float(s.sigma) for s in states])
    target = np.array([float(s.target) for s in states])
    updated = target[1:] < target[:-1]
    assert updated.any() and (sigma[1:][updated] >= sigma[:-1][updated]).all() and sigma.max() <= 1e5
    for before, after, moved in zip(states, states[1:], updated, strict=False):
        expected = after.params if moved else before.multiplier
        np.testing.assert_array_equal(after.multiplier, expected)


def test_warm_and_cold_penalties():
    cold, warm = run(jnp.zeros((20, 1)), 0)[0], run(jnp.full((20, 1), 2.0), 0)[0]
    assert float(cold.sigma) == pytest.approx(100 / 40)
    assert float(warm.sigma) == pytest.approx(30 * 2.0 / BETA)


def test_the_penalty_is_limited_by_rounding():
    rng = np.random.default_rng(0)
    operator = CellOperator(jnp.asarray(rng.standard_normal((9, 3))), jnp.ones((2, 9), bool))
    assert float(largest_penalty(operator)) * float(jnp.sum(operator.Z**2)) * np.finfo(float).eps == pytest.approx(0.01)
