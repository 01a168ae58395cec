"""Derivatives of solutions against finite differences of independent solves, dense formulas, and jaxopt."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import block_diag

from jaxcvx import (
    Arrangements,
    ConeADMM,
    CopositiveADMM,
    Dense,
    NuclearProximalGradient,
    ProximalGradient,
    make_problem,
    solve,
)
from jaxcvx.errors import InvalidTypeError
from jaxcvx.numerics import implicit
from jaxcvx.solvers.gated.program import gated_optimality
from tests.helpers import distinct_cells, gaussian_data, targets_for
from tests.oracle import jaxopt_reference

N, D, P = 24, 2, 8
OUTPUTS = {"squared": 2, "logistic": 1, "softmax": 3}
SOLVER = ProximalGradient(tol=1e-14, phases="accelerated")


def problem_of(seed: int, loss: str = "squared", fraction: float = 0.2, d: int = D, **more: Any):
    X, Y = gaussian_data(seed, N, d, OUTPUTS[loss])
    Z = np.hstack([X, np.ones((N, 1))]) if more.get("features", Dense()).bias else X
    cells = distinct_cells(0, Z, P)
    problem = make_problem(X, targets_for(loss, Y), 1.0, loss=loss, arrangements=cells, **more)
    return problem.replace(beta=fraction * problem.beta_max())


def data(problem):
    return problem.X, problem.Y, problem.beta


def with_data(problem, X, Y, beta):
    return dataclasses.replace(problem, X=X, Y=Y, beta=beta)


def directions(problem, seed: int = 7):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal(a.shape)) for a in data(problem))


def moved(problem, change, h: float):
    return with_data(problem, *(a + h * t for a, t in zip(data(problem), change, strict=True)))


def derivatives_of_loss(loss: str, F, Y):
    """Gradient (n, c) and Hessian (n, c, c) in F, from the definitions."""
    if loss == "squared":
        return F - Y, np.broadcast_to(np.eye(F.shape[1]), (*F.shape, F.shape[1]))
    if loss == "logistic":
        p = 1 / (1 + np.exp(Y * F))
        return -Y * p, (Y**2 * p * (1 - p))[:, :, None]
    p = np.exp(F - F.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True)
    return p - Y, p[:, :, None] * np.eye(F.shape[1]) - p[:, :, None] * p[:, None, :]


def newton(loss: str, maps, blocks, Y, beta, steps: int = 12):
    """Minimise loss(sum_i maps[i] @ blocks[i]) + beta sum_i ||blocks[i]||_F from nearby, in numpy."""
    n, c = Y.shape
    A = np.hstack([np.kron(M, np.eye(c)) for M in maps])
    x, cuts = np.concatenate([B.ravel() for B in blocks]), np.cumsum([B.size for B in blocks])[:-1]
    for _ in range(steps):
        g, H = derivatives_of_loss(loss, (A @ x).reshape(n, c), Y)
        parts = np.split(x, cuts)
        sizes = [np.linalg.norm(b) for b in parts]
        gradient = A.T @ g.ravel() + beta * np.concatenate([b / s for b, s in zip(parts, sizes, strict=True)])
        bends = [(np.eye(b.size) - np.outer(b, b) / s**2) / s for b, s in zip(parts, sizes, strict=True)]
        hessian = A.T @ block_diag(*H) @ A + beta * block_diag(*bends)
        x = x - np.linalg.lstsq(hessian, gradient, rcond=1e-13)[0]
    return [b.reshape(B.shape) for b, B in zip(np.split(x, cuts), blocks, strict=True)]


def polished(problem, W):
    """The gated solution near W, to rounding; W's zero blocks stay zero."""
    Z, masks = np.asarray(problem.rows), np.asarray(problem.operator.masks, float)
    W = np.array(W)
    live = np.flatnonzero(np.any(W != 0, axis=(1, 2)))
    maps = [masks[i][:, None] * Z for i in live]
    W[live] = newton(problem.loss.name, maps, W[live], np.asarray(problem.Y), float(problem.beta))
    return W


def assert_close(got, expected, tol: float = 1e-5):
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(got, expected, atol=tol * scale, rtol=0)


def weights_like(params):
    return jnp.asarray(np.random.default_rng(3).standard_normal(params.shape))


def readings(problem, solver=SOLVER):
    """A function of all params, and the params themselves."""
    solution = solve(problem, solver)
    return jnp.sum(weights_like(solution.params) * solution.params), solution


def stacked(problems):
    return jax.tree.map(lambda *a: jnp.stack(a), *problems)


def check_against_differences(problem, params, gradient, h: float = 1e-5):
    C = np.asarray(weights_like(params))
    for k, direction in enumerate(directions(problem)):
        change = [jnp.zeros_like(a) for a in data(problem)]
        change[k] = direction
        up, down = (np.sum(C * polished(moved(problem, change, s), params)) for s in (h, -h))
        assert_close(np.sum(np.asarray(gradient[k] * direction)), (up - down) / (2 * h))


def gradients_of(problems):
    def value(arrays, problem):
        return readings(with_data(problem, *arrays))

    batch = stacked(problems)
    return jax.jit(jax.vmap(jax.grad(value, has_aux=True)))(data(batch), batch)


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", OUTPUTS)
def test_gradients_agree_with_finite_differences(loss):
    problems = [problem_of(seed, loss) for seed in (1, 2)]
    gradients, solutions = gradients_of(problems)
    for i, problem in enumerate(problems):
        params = solutions.params[i]
        live = np.any(np.asarray(params) != 0, axis=(1, 2))
        assert 1 < live.sum() < P
        check_against_differences(problem, params, jax.tree.map(lambda a, i=i: a[i], gradients))


@pytest.mark.routine(2)
@pytest.mark.long
@pytest.mark.parametrize("loss", OUTPUTS)
def test_gradients_of_many_problems(loss):
    problems = [problem_of(seed, loss, 0.1 + 0.02 * (seed % 10)) for seed in range(100, 130)]
    gradients, solutions = gradients_of(problems)
    for i, problem in enumerate(problems):
        gradient = jax.tree.map(lambda a, i=i: a[i], gradients)
        check_against_differences(problem, solutions.params[i], gradient)


def test_transformations_compose():
    problems = [problem_of(seed) for seed in (1, 2)]
    batch = stacked(problems)

    def total(arrays):
        return jnp.sum(jax.vmap(lambda p: readings(p)[0])(with_data(batch, *arrays)))

    def along(arrays, change):
        return jax.jvp(total, (arrays,), (change,))[1]

    outside = jax.jit(jax.grad(total))(data(batch))
    inside, _ = gradients_of(problems)
    for a, b in zip(outside, inside, strict=True):
        assert_close(a, b, 1e-10)
    change = directions(batch)
    reverse = sum(jnp.sum(g * t) for g, t in zip(outside, change, strict=True))
    assert_close(jax.jit(along)(data(batch), change), reverse, 1e-8)


def solved_exactly(seed: int, loss: str = "squared", **more: Any):
    problem = problem_of(seed, loss, **more)
    params = solve(problem, SOLVER).params
    return problem, jnp.asarray(polished(problem, params))


def derivatives(problem, W):
    """Forward and reverse derivative of sum(C * W) along one direction."""
    C, change = weights_like(W), directions(problem)

    def value(arrays):
        p = with_data(problem, *arrays)
        return jnp.sum(C * implicit.differentiable_params(gated_optimality(W), p, W))

    forward = jax.jvp(value, (data(problem),), (change,))[1]
    reverse = jax.grad(value)(data(problem))
    return float(forward), float(sum(jnp.sum(g * t) for g, t in zip(reverse, change, strict=True)))


def test_conjugate_gradients_give_the_same(monkeypatch):
    problem, W = solved_exactly(1)
    iterative = derivatives(problem, W)
    monkeypatch.setattr(implicit, "_MAX_DENSE_PRECONDITIONED", 10_000)
    dense = derivatives(problem, W)
    assert dense[0] == pytest.approx(dense[1], rel=1e-9)
    assert iterative == pytest.approx(dense, rel=1e-8)


@pytest.mark.long
def test_jaxopt_agrees():
    problem, W = solved_exactly(2, "logistic")
    _, dY, dbeta = directions(problem)
    expected = jaxopt_reference.implicit_tangent(problem, W, (dY, dbeta))

    def params(Y, beta):
        return implicit.differentiable_params(gated_optimality(W), problem.replace(Y=Y, beta=beta), W)

    got = jax.jvp(params, (problem.Y, problem.beta), (dY, dbeta))[1]
    assert_close(got, expected, 1e-8)


def test_the_objective_needs_no_solve_and_has_a_right_second_derivative(monkeypatch):
    problem, W = solved_exactly(1)
    optimality = gated_optimality(W)

    def value(X, Y, beta):
        p = with_data(problem, X, Y, beta)
        params = implicit.differentiable_params(optimality, p, W)
        return implicit.differentiable_objective(optimality, p, params, jnp.asarray(0.0))

    h = 1e-5
    norms = [np.sqrt((polished(problem.replace(beta=problem.beta + s), W) ** 2).sum((1, 2))).sum() for s in (h, -h)]
    assert_close(jax.grad(jax.grad(value, 2), 2)(*data(problem)), (norms[0] - norms[1]) / (2 * h))

    X, masks, V = np.asarray(problem.X), np.asarray(problem.arrangements.masks, float), np.asarray(W)
    R = np.asarray(problem.Y) - np.einsum("qn,np,qpc->nc", masks, X, V)
    by_X, by_Y, by_beta = jax.jit(jax.grad(value, (0, 1, 2)))(*data(problem))
    assert_close(by_X, -np.einsum("qn,nc,qpc->np", masks, R, V), 1e-10)
    assert_close(by_Y, R, 1e-10)
    assert_close(by_beta, np.sqrt((V**2).sum((1, 2))).sum(), 1e-10)


def test_zero_solutions_and_repeated_cells():
    problem = problem_of(1)
    zero = jnp.zeros((P, D, 2))
    assert derivatives(problem, zero) == (0.0, 0.0)

    problem, W = solved_exactly(1)
    cells = problem.arrangements
    twice = problem.replace(arrangements=Arrangements(*(jnp.concatenate([a, a]) for a in (cells.masks, cells.gates))))
    both = jnp.concatenate([0.3 * W, 0.7 * W])  # a solution that is not unique, though its predictions are

    def predictions(problem, W):
        def value(arrays):
            p = with_data(problem, *arrays)
            return p.operator.forward(implicit.differentiable_params(gated_optimality(W), p, W))

        return jax.jvp(value, (data(problem),), (directions(problem),))[1]

    assert_close(predictions(twice, both), predictions(problem, W), 1e-6)


@pytest.mark.long
def test_bias_and_skip_connection():
    problem, W = solved_exactly(3, "logistic", features=Dense(bias=True, skip=True))
    change, h = directions(problem), 1e-5
    C = np.asarray(weights_like(W))
    up, down = (np.sum(C * polished(moved(problem, change, s), W)) for s in (h, -h))
    forward, reverse = derivatives(problem, W)
    assert_close(forward, (up - down) / (2 * h))
    assert forward == pytest.approx(reverse, rel=1e-8)


@pytest.mark.long
def test_cone_program():
    X, Y = gaussian_data(0, 16, 3)
    problem = make_problem(X, Y, 1.0, arrangements=distinct_cells(0, X, P))
    problem = problem.replace(beta=0.1 * problem.beta_max())
    change, h = directions(problem), 1e-4

    @jax.jit
    def outcome(*arrays):
        p = with_data(problem, *arrays)
        solution = solve(p, ConeADMM(tol=1e-13))
        return p.operator.forward(solution.params[0] - solution.params[1]), solution.objective, solution

    (F, value, solution), (dF, slope, _) = jax.jvp(outcome, data(problem), change)
    touching = np.abs(X @ np.asarray(solution.params[0])[:, :, 0].T) < 1e-9
    assert 0 < np.sum(touching & np.any(np.asarray(solution.params[0]) != 0, axis=(1, 2)))
    up, down = (outcome(*data(moved(problem, change, s)))[:2] for s in (h, -h))
    assert_close(dF, (up[0] - down[0]) / (2 * h), 1e-4)  # the solver's accuracy over h
    assert_close(slope, (up[1] - down[1]) / (2 * h))


@pytest.mark.routine("NuclearProximalGradient-squared", "ConeADMM-hinge")
@pytest.mark.parametrize(
    "solver,loss",
    [(CopositiveADMM(), "squared"), (NuclearProximalGradient(), "squared"), (ConeADMM(), "hinge")],
    ids=lambda a: a if isinstance(a, str) else type(a).__name__,
)
def test_other_solvers_refuse(solver, loss):
    X, Y = gaussian_data(0, 6, 2)
    problem = make_problem(X, targets_for(loss, Y), 0.1, loss=loss, arrangements=distinct_cells(0, X, 4))
    with pytest.raises(InvalidTypeError, match=f"got {type(solver).__name__} under grad"):
        jax.eval_shape(jax.grad(lambda b: solve(problem.replace(beta=b), solver).objective), problem.beta)
