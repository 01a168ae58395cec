"""The Newton phase of the cone program: its Hessian is the derivative it claims, and alone it reaches the optimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Status, make_problem, solve
from jaxcvx.operators.projections import face_projector
from jaxcvx.solvers.cone import cone_program
from jaxcvx.solvers.cone_newton import ConeNewton, _hessian
from tests.helpers import cone_optimum, distinct_cells, gaussian_data


def problem_of(c: int = 1):
    X, Y = gaussian_data(0, 12, 2, c)
    return make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, 6))


@pytest.mark.parametrize("grouping", ["shared", "per-output"])
def test_hessian_is_the_derivative_of_the_dual_gradient(grouping):
    problem = problem_of(2)
    program, sigma = cone_program(problem, grouping), jnp.asarray(0.7)
    threshold = sigma * problem.beta
    rng = np.random.default_rng(1)
    R, change = (jnp.asarray(rng.standard_normal((12, 2))) for _ in range(2))
    Q = jnp.asarray(0.3 * rng.standard_normal((12, 2, 2)))  # a multiplier

    @jax.jit
    def at(R):
        q, rows = program.project(Q + sigma * program.adjoint(R), program.no_rows(Q))
        return R - problem.Y + program.forward(program.shrink(q, threshold)), q, rows

    _, q, rows = at(R)
    project = jax.vmap(jax.vmap(face_projector, in_axes=(None, None, 0)), in_axes=(None, 0, 0))
    H = _hessian(program, q, project(program.operator.Z, program.signs, rows), threshold, sigma, R.shape)
    h = 1e-6
    slope = (at(R + h * change)[0] - at(R - h * change)[0]) / (2 * h)
    np.testing.assert_allclose((H @ change.reshape(-1)).reshape(R.shape), slope, rtol=1e-6, atol=1e-6)
    assert np.linalg.eigvalsh(H).min() >= 1 - 1e-9 and float(jnp.max(program.norms(q))) > float(threshold)


@pytest.mark.parametrize(("c", "grouping"), [(1, "shared"), (2, "per-output")])
def test_alone_it_reaches_clarabels_optimum_at_a_feasible_point(c, grouping):
    problem = problem_of(c)
    solution = solve(problem, ConeNewton(tol=1e-9, grouping=grouping))
    X, Y, masks = (np.asarray(a) for a in (problem.X, problem.Y, problem.arrangements.masks))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-8
    assert float(solution.objective) == pytest.approx(cone_optimum(X, masks, Y, 0.5, grouping=grouping), rel=1e-6)
    h = solution.history
    met = (h.objective - h.bound) / h.objective <= 1e-9
    assert met.sum() == ConeNewton().confirm and met[-1]  # it stops at the fourth check that meets the tolerance
    for blocks in solution.params:
        inside = np.einsum("pn,nd,pdc->pnc", 2.0 * masks - 1, X, np.asarray(blocks))
        assert inside.min() >= -1e-12
