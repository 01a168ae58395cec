"""Descent on factors: exact steps, scaled gradients, conjugate directions, constant steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.transforms.scaled_descent import (
    conjugate_descent,
    constant_descent,
    exact_step,
    largest_singular_value,
    scale_gradient,
)
from tests.problems.low_rank_data import (
    COLS,
    D1,
    D2,
    DOF,
    RANK,
    ROWS,
    TRUTH,
    completion,
    given,
    one_bit,
)


@pytest.mark.parametrize("make", [completion, lambda: completion(balance=0.5), one_bit])
def test_line_and_exact_step(make):
    """Along a line the objective is the energy of a quadratic, and the step is a stationary point below the start."""
    problem = make()
    along = jax.jit(lambda t: problem.objective(jax.tree.map(lambda p, d: p + t * d, given(), descent)))
    descent = jax.tree.map(lambda g: -g, jax.grad(problem.objective)(given()))
    z, a, b = problem.line(given(), descent)
    for t in (0.0, 0.01):
        at = jax.tree.map(lambda x, y, w, t=t: x + t * (y + t * w), z, a, b)
        np.testing.assert_allclose(problem.energy(at), along(t), rtol=1e-12)
        if problem.quartic(z, a, b) is not None:
            np.testing.assert_allclose(np.polyval(problem.quartic(z, a, b)[::-1], t), along(t), rtol=1e-12)
    step = exact_step(problem, given(), descent, jnp.zeros(()))
    assert step > 0 and along(step) < along(0.0)
    assert abs(jax.grad(along)(step)) < 1e-3 * abs(jax.grad(along)(0.0))


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_exact_step_counts_the_penalty(weight):
    problem = completion()
    descent = jax.tree.map(lambda g: -g, jax.grad(problem.objective)(given()))
    step = exact_step(problem, given(), descent, jnp.asarray(weight))

    def along(t):
        at = jax.tree.map(lambda p, d: p + t * d, given(), descent)
        return problem.objective(at) + 0.5 * weight * sum(jnp.sum(F**2) for F in at)

    assert step > 0 and abs(jax.grad(along)(step)) < 1e-3 * abs(jax.grad(along)(0.0))


def test_scaled_gradients_do_not_depend_on_the_basis_of_the_factors():
    """(U, V) -> (U Q, V Q^-T) describes the same X: the scaled step of X is the same (up to the ridge)."""
    problem, Q = completion(), np.array([[2.0, 0.3], [-0.4, 0.7]])
    U, V = given()
    other = (U @ Q, V @ np.linalg.inv(Q).T)
    steps = [scale_gradient(problem, p, jax.grad(problem.objective)(p)) for p in ((U, V), other)]
    np.testing.assert_allclose(steps[1][0], steps[0][0] @ Q, rtol=0, atol=2e-3 * np.abs(steps[0][0]).max())
    moved = [p[0] @ s[1].T + s[0] @ p[1].T for p, s in zip(((U, V), other), steps, strict=True)]
    np.testing.assert_allclose(moved[1], moved[0], rtol=0, atol=2e-3 * np.abs(moved[0]).max())


def descend(problem, optimizer, params, steps):
    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(problem.objective)(params), state, params)
            params = jax.tree.map(jnp.add, params, updates)
            return (params, state), problem.objective(params)

        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)

    (params, _), values = run(params)
    return params, np.asarray(values)


def test_conjugate_descent_goes_down_and_far_faster_than_constant_steps():
    problem = completion()
    start = problem.spectral_params()
    _, fast = descend(problem, conjugate_descent(problem), start, 40)
    _, slow = descend(problem, constant_descent(problem, None), start, 40)
    assert np.all(np.diff(fast) <= 1e-12 * fast[0]) and np.all(np.diff(slow) <= 0)
    assert fast[-1] < 1e-4 * slow[-1]


def test_constant_steps_shrink_with_the_batch():
    problem = completion()
    whole = constant_descent(problem, None).init(given())
    np.testing.assert_allclose(whole, 0.25 / (problem.curvature * largest_singular_value(problem)))
    np.testing.assert_allclose(constant_descent(problem, DOF).init(given()), 0.5 * whole)


def test_largest_singular_value_of_everything_observed():
    rows, cols = np.divmod(np.arange(D1 * D2), D2)
    problem = jaxcvx.MatrixCompletion(rows, cols, TRUTH.reshape(-1), (D1, D2), RANK)
    np.testing.assert_allclose(largest_singular_value(problem), np.linalg.norm(TRUTH, 2), rtol=1e-6)
    nothing = jaxcvx.MatrixCompletion(rows, cols, np.zeros(D1 * D2), (D1, D2), RANK)
    assert float(largest_singular_value(nothing)) == 1


@pytest.mark.long
def test_conjugate_directions_beat_the_steepest_ones():
    """Few observations bend the objective; both take exact steps in the same metric."""
    rows, cols = ROWS[: 5 * DOF // 2], COLS[: 5 * DOF // 2]
    problem = jaxcvx.MatrixCompletion(rows, cols, TRUTH[rows, cols], (D1, D2), RANK)

    def steepest(params, _):
        gradient = jax.grad(problem.objective)(params)
        direction = jax.tree.map(jnp.negative, scale_gradient(problem, params, gradient))
        step = exact_step(problem, params, direction, jnp.zeros(()))
        params = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return params, problem.objective(params)

    start = problem.spectral_params()
    plain = jax.jit(lambda p: jax.lax.scan(steepest, p, length=60)[1])(start)
    _, conjugate = descend(problem, conjugate_descent(problem), start, 60)
    assert conjugate[-1] < 0.1 * plain[-1]
