"""The interior-point method for the relaxation, against Clarabel; what it returns is feasible for both sides."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Status, make_problem
from jaxcvx.solvers.copositive.interior_point import CopositiveInterior
from jaxcvx.solvers.copositive.program import relaxed_bound, relaxed_objective, with_facets
from jaxcvx.solvers.core.loop import run
from tests.helpers import distinct_cells, gaussian_data, relaxed_optimum

SOLVER = CopositiveInterior(tol=1e-7)
SHAPES = {
    "plane": (10, 2, 3, 12, 2),
    "space": (9, 3, 2, 14, 9),
    "wide": (7, 4, 4, 10, 7),
}  # n, d, c, cells, facets


@functools.partial(jax.jit, static_argnums=1)
def solve_relaxation(problem, solver):
    return run(problem, solver, solver.initial_params(problem, None), None)


def instance(shape: str, seed: int):
    n, d, c, num, facets = SHAPES[shape]
    X, Y = gaussian_data(seed, n, d, c)
    problem = with_facets(make_problem(X, Y, 10.0 ** (-seed / 2), arrangements=distinct_cells(0, X, num)))
    found = problem.facets
    extra = facets - found.index.shape[1]  # padded to one shape, which must not matter
    pad = ((0, 0), (0, extra))
    padded = type(found)(jnp.pad(found.index, pad), jnp.pad(found.scale, pad), jnp.pad(found.rays, (*pad, (0, 0))))
    return dataclasses.replace(problem, facets=padded, faces=None), X, Y


@pytest.mark.routine(1)
@pytest.mark.parametrize("shape,seeds", [("plane", range(4)), ("space", range(3)), ("wide", range(3))])
def test_against_clarabel(shape, seeds):
    for seed in seeds:
        problem, X, Y = instance(shape, seed)
        done = solve_relaxation(problem, SOLVER)
        assert int(done.status) == Status.CONVERGED and done.num_steps <= 40
        expected = relaxed_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
        value, bound = (
            relaxed_objective(problem, done.outcome.params),
            relaxed_bound(problem, done.outcome.dual),
        )
        assert value == pytest.approx(expected, rel=1e-6)
        assert bound <= expected * (1 + 1e-7) and bound == pytest.approx(expected, rel=1e-6)


def test_both_sides_are_feasible():
    problem, X, Y = instance("space", 1)
    done = solve_relaxation(problem, SOLVER)
    U, V, W = map(np.asarray, done.outcome.params)
    R, S = map(np.asarray, done.outcome.dual)
    beta, optimum = float(problem.beta), float(relaxed_objective(problem, done.outcome.params))
    masks = np.asarray(problem.arrangements.masks, float)
    F = 0
    for mask, u, v, w in zip(masks, U, V, W, strict=True):
        A, B = (2 * mask - 1)[:, None] * X, mask[:, None] * X
        assert (A @ u @ A.T).min() >= -1e-12  # every row, though only facets were constraints
        assert np.linalg.eigvalsh(np.block([[u, v], [v.T, w]])).min() >= -1e-9
        F = F + B @ v
    value = 0.5 * np.sum((F - Y) ** 2) + 0.5 * beta * (np.trace(U, axis1=1, axis2=2).sum() + np.trace(W.sum(0)))
    assert optimum == pytest.approx(value, rel=1e-12)
    assert S.min() >= 0
    # Dual: G G^T + beta A^T S A <= beta^2 I up to the gap.
    A = np.asarray(problem.facets.scale)[:, :, None] * X[np.asarray(problem.facets.index)]
    G = np.einsum("in,np,nc->ipc", masks, X, R)
    top = np.linalg.eigvalsh(G @ G.transpose(0, 2, 1) + beta * A.transpose(0, 2, 1) @ S @ A).max()
    assert top == pytest.approx(beta**2, rel=1e-3)


def test_asking_for_more_than_rounding_allows_does_no_harm():
    problem, *_ = instance("plane", 0)
    done = solve_relaxation(problem, CopositiveInterior(tol=0.0, max_steps=60))
    assert int(done.status) in (Status.CONVERGED, Status.MAX_STEPS)
    value, bound = relaxed_objective(problem, done.outcome.params), relaxed_bound(problem, done.outcome.dual)
    assert 0 <= (value - bound) / value <= 1e-7


def test_zero_targets_and_a_beta_beyond_the_largest():
    problem, X, Y = instance("plane", 0)
    large = solve_relaxation(problem.replace(beta=1e3), SOLVER)
    assert relaxed_objective(problem.replace(beta=1e3), large.outcome.params) == pytest.approx(
        0.5 * np.sum(Y**2), rel=1e-5
    )
    nothing = solve_relaxation(problem.replace(Y=jnp.zeros_like(problem.Y)), SOLVER)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in nothing.outcome.params)
