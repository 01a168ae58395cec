"""Newton steps on the cells with weights: the linear system, the step, and the optimum they reach from near it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import ProximalGradient, Status, make_problem, solve
from jaxcvx.solvers.gated import active_set_newton as active_newton
from jaxcvx.solvers.gated.active_set_newton import ActiveNewton, newton_direction, newton_step
from jaxcvx.solvers.gated.program import gated_objective
from tests.helpers import distinct_cells, gated_optimum, gaussian_data

N, D, P = 14, 3, 8


def problem_of(c: int, beta: float = 0.5):
    """A small problem; c outputs."""
    X, Y = gaussian_data(0, N, D, c)
    return make_problem(X, Y, beta, arrangements=distinct_cells(0, X, P))


def from_anywhere(tol: float) -> ActiveNewton:
    return ActiveNewton(tol, max_steps=2000, near=jnp.inf)


def near_optimum(problem):
    return solve(problem, ProximalGradient(tol=1e-2, check_every=1, phases="accelerated"))


def some_blocks(c: int, live: int):
    W = np.random.default_rng(1).standard_normal((P, D, c))
    W[np.random.default_rng(2).permutation(P)[live:]] = 0
    return jnp.asarray(W)


def value(problem, W):
    return float(gated_objective(problem, W, problem.operator.forward(W)))


@pytest.mark.routine(2)
@pytest.mark.parametrize("radial", [2.0, 1e6])
@pytest.mark.parametrize("live", [3, P])
@pytest.mark.parametrize("c", [1, 2])
def test_direction_is_newtons_on_the_blocks_with_weights(c, live, radial):
    """Against the Hessian of jax, with what is added along blocks, where it would be singular."""
    problem, W = problem_of(c), some_blocks(c, live)
    on = np.flatnonzero(np.any(np.asarray(W) != 0, axis=(1, 2)))

    def objective(flat):
        V = jnp.zeros_like(W).at[on].set(flat.reshape(len(on), D, c))
        F = problem.operator.forward(V)
        norms = jnp.sqrt(jnp.sum(V[on] ** 2, axis=(1, 2)))
        return problem.loss.value(F, problem.Y) + problem.beta * jnp.sum(norms)

    flat = W[on].reshape(-1)
    g, H = jax.grad(objective)(flat), jax.hessian(objective)(flat)
    trusted = radial * float(jnp.mean(jnp.linalg.norm(W[on], axis=(1, 2)))) / 0.5
    expected = -np.linalg.solve(H + np.eye(len(g)) / trusted, g)
    F = problem.operator.forward(W)
    found, change = newton_direction(problem, W, F, radial, accuracy=1e-12, max_steps=200)
    np.testing.assert_allclose(change, problem.operator.forward(found), rtol=1e-6, atol=1e-8)
    assert not np.any(np.delete(np.asarray(found), on, axis=0))
    np.testing.assert_allclose(found[on].reshape(-1), expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


@pytest.mark.routine("2")
@pytest.mark.parametrize("c", [1, 2])
def test_the_preconditioner_is_the_inverse_up_to_float32(c):
    problem, W = problem_of(c), some_blocks(c, 5)
    C = active_newton._curvature(problem, W, jnp.asarray(10.0))
    operator = problem.operator

    def system(x):
        return x + operator.forward(C(operator.adjoint(x)))

    x = jnp.asarray(np.random.default_rng(3).standard_normal((N, c)))
    np.testing.assert_allclose(active_newton._rough_inverse(problem, C)(system(x)), x, rtol=1e-3, atol=1e-3)


@pytest.mark.routine("2")
@pytest.mark.parametrize("c", [1, 2])
def test_residual_is_as_small_as_asked_for(c):
    problem, W = problem_of(c), some_blocks(c, 5)
    F = problem.operator.forward(W)
    exact, _ = newton_direction(problem, W, F, accuracy=1e-12, max_steps=200)
    rough, _ = newton_direction(problem, W, F, accuracy=1e-2)
    assert float(jnp.linalg.norm(exact - rough)) <= 0.05 * float(jnp.linalg.norm(exact))


def test_steps_never_raise_the_objective():
    problem, W = problem_of(1), some_blocks(1, P)
    for _ in range(12):
        before = value(problem, W)
        W, *_ = newton_step(problem, W)
        assert value(problem, W) <= before * (1 + 1e-14)
    slope = jax.grad(lambda W: gated_objective(problem, W, problem.operator.forward(W)))(W)
    live = np.any(np.asarray(W) != 0, axis=(1, 2))
    assert live.any() and np.abs(np.asarray(slope)[live]).max() <= 1e-7  # optimal among the blocks that are left
    zero, *_ = newton_step(problem, jnp.zeros_like(W))
    assert not np.any(np.asarray(zero))


def test_blocks_that_a_step_turns_around_are_stopped_at_zero():
    problem = problem_of(1)
    optimum = solve(problem, from_anywhere(1e-12)).params
    dead = int(np.flatnonzero(~np.any(np.asarray(optimum) != 0, axis=(1, 2)))[0])
    tiny = 1e-6 * np.random.default_rng(0).standard_normal((D, 1))
    W, *_ = newton_step(problem, optimum.at[dead].set(jnp.asarray(tiny)))
    assert not np.any(np.asarray(W[dead]))
    np.testing.assert_allclose(W, optimum, atol=1e-5)


@pytest.mark.routine("2")
@pytest.mark.parametrize("c", [1, 2])
def test_from_near_it_reaches_clarabels_optimum(c):
    problem = problem_of(c)
    start = near_optimum(problem)
    assert start.program_gap >= 1e-3
    solution = solve(problem, ActiveNewton(tol=1e-10, max_steps=200), init=start.params)
    X, Y, masks = (np.asarray(a) for a in (problem.X, problem.Y, problem.arrangements.masks))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-9
    assert float(solution.objective) == pytest.approx(gated_optimum(X, masks, Y, 0.5), rel=1e-7)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_no_number_leaves_the_range_of_float32(scale):
    X, Y = gaussian_data(0, N, D, 1)
    cells = distinct_cells(0, X, P)
    plain = solve(make_problem(X, Y, 0.5, arrangements=cells), from_anywhere(1e-9))
    scaled = solve(make_problem(X * scale, Y, 0.5 * scale, arrangements=cells), from_anywhere(1e-9))
    assert scaled.status == Status.CONVERGED
    assert float(scaled.objective) == pytest.approx(float(plain.objective), rel=1e-8)
    assert int(scaled.num_steps) <= 2 * int(plain.num_steps)


def test_it_gives_up_far_from_a_solution_and_where_steps_lead_nowhere(monkeypatch):
    solver = ActiveNewton(tol=1e-14, max_steps=1000)
    start = near_optimum(problem_of(1)).params
    far = solve(problem_of(1), dataclasses.replace(solver, near=1e-6), init=start)
    assert far.program_gap > 1e-6 and far.num_steps == 0
    nowhere = lambda problem, W: (W, jnp.zeros(()), jnp.zeros_like(problem.Y))  # noqa: E731
    monkeypatch.setattr(active_newton, "newton_step", nowhere)
    stuck = solve(problem_of(1), solver, init=start)
    assert stuck.status == Status.MAX_STEPS and stuck.num_steps == solver.first_order + 1


@pytest.mark.float32
def test_bounds_do_not_end_where_the_residual_is_rounding():
    """The residual is a thousandth of the targets, so that float32 leaves three digits fewer of it."""
    X, Y = gaussian_data(0, N, D, 1)
    cells = distinct_cells(0, X, 2 * P)
    problem = make_problem(np.float32(X), np.float32(Y), np.float32(1e-3), arrangements=cells)
    solution = solve(problem, from_anywhere(3e-5))
    residual = problem.Y - problem.operator.forward(solution.params)
    assert float(jnp.linalg.norm(residual)) <= 1e-3 * float(jnp.linalg.norm(problem.Y))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 3e-5
