"""The Newton phase of the gated program: the linear system it solves, and the optimum it reaches alone."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Status, make_problem, solve
from jaxcvx.penalties.groups import ColumnGroups, FrobeniusGroups
from jaxcvx.penalties.nuclear import NuclearNorm
from jaxcvx.solvers.gated.ssnal import SSNAL, solve_hessian
from tests.helpers import distinct_cells, gated_optimum, gaussian_data

N, D, P = 14, 3, 8


def problem_of(c: int):
    X, Y = gaussian_data(0, N, D, c)
    return make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, P))


@pytest.mark.parametrize("c", [1, 2])
def test_hessian_is_that_of_the_prox(c):
    """H = I + sigma B J B^T, with J the derivative of block soft-thresholding, built densely."""
    problem, sigma = problem_of(c), 0.9
    rng = np.random.default_rng(1)
    V, g = rng.standard_normal((P, D, c)), rng.standard_normal((N, c))
    V[::2] *= 0.1  # below the threshold
    masks, X = np.asarray(problem.arrangements.masks, float), np.asarray(problem.X)
    B = np.einsum("qn,np,cb->ncqpb", masks, X, np.eye(c)).reshape(N * c, P, D * c)
    H = np.eye(N * c)
    for i in range(P):
        v = V[i].reshape(-1)
        size, threshold = np.linalg.norm(v), sigma * 0.5
        if size > threshold:
            J = (1 - threshold / size) * np.eye(D * c) + threshold / size**3 * np.outer(v, v)
            H += sigma * B[:, i] @ J @ B[:, i].T
    V = jnp.asarray(V)
    gram = problem.operator.Z @ problem.operator.Z.T
    arguments = (problem, FrobeniusGroups(), gram.astype(jnp.float32), jnp.asarray(sigma), V, jnp.asarray(g))
    found = solve_hessian(*arguments, accuracy=1e-13, max_steps=50)
    np.testing.assert_allclose(found.reshape(-1), np.linalg.solve(H, g.reshape(-1)), rtol=1e-9)
    residual = H @ np.asarray(solve_hessian(*arguments)).reshape(-1) - g.reshape(-1)
    assert np.linalg.norm(residual) <= 1.001e-3 * np.linalg.norm(g)


@pytest.mark.parametrize("c", [1, 2])
def test_alone_it_reaches_clarabels_optimum(c):
    problem = problem_of(c)
    solution = solve(problem, SSNAL(tol=1e-10))
    X, Y, masks = (np.asarray(a) for a in (problem.X, problem.Y, problem.arrangements.masks))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-9
    assert float(solution.objective) == pytest.approx(gated_optimum(X, masks, Y, 0.5), rel=1e-7)


@pytest.mark.parametrize("penalty", [ColumnGroups(), NuclearNorm()])
def test_without_a_preconditioner_for_any_penalty(penalty):
    problem = problem_of(2)
    solution = solve(problem, SSNAL(tol=1e-9, penalty=penalty))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-9
