"""The Newton phase of the cone program: its Hessian is the derivative it claims, and alone it reaches the optimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Status, make_problem, solve
from jaxcvx.solvers.cone import cone_program
from jaxcvx.solvers.cone_newton import ConeNewton, _direction
from tests.helpers import cone_optimum, distinct_cells, gaussian_data


def problem_of(c: int = 1):
    X, Y = gaussian_data(0, 12, 2, c)
    return make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, 6))


@pytest.mark.parametrize(("c", "grouping"), [(1, "shared"), (2, "shared"), (2, "per-output")])
def test_direction_is_newtons_of_the_dual_gradient(c, grouping):
    """The derivative of the gradient along the direction is minus the gradient."""
    problem = problem_of(c)
    program, sigma = cone_program(problem, grouping), jnp.asarray(0.7)
    threshold = sigma * problem.beta
    rng = np.random.default_rng(1)
    R, Q = jnp.asarray(rng.standard_normal((12, c))), jnp.asarray(0.3 * rng.standard_normal((12, 2, c)))

    @jax.jit
    def at(R):
        q, rows = program.project(Q + sigma * program.adjoint(R), program.no_rows(Q))
        return R - problem.Y + program.forward(program.shrink(q, threshold)), q, rows

    g, q, rows = at(R)
    assert float(jnp.max(program.norms(q))) > float(threshold)
    h = 1e-6

    def slope(step):
        return (at(R + h * step)[0] - at(R - h * step)[0]) / (2 * h)

    exact = _direction(program, q, rows, threshold, sigma, g, accuracy=1e-13, max_steps=50)
    np.testing.assert_allclose(slope(exact), -g, rtol=1e-6, atol=1e-6)
    rough = _direction(program, q, rows, threshold, sigma, g)
    assert float(jnp.linalg.norm(slope(rough) + g)) <= 1.001e-3 * float(jnp.linalg.norm(g))


def test_projections_that_do_not_matter_are_bounded():
    problem = problem_of(2)
    program = cone_program(problem, "shared")
    rng = np.random.default_rng(1)
    Q = jnp.asarray(rng.standard_normal((12, 2, 2)))
    exact, rows = program.project(Q, program.no_rows(Q))
    norms = program.norms(exact)
    for threshold in (0.0, float(jnp.median(norms)), 10.0):
        for warm in (program.no_rows(Q), rows):
            points, _ = program.project_above(Q, warm, jnp.asarray(threshold))
            shrunk = program.shrink(points, jnp.asarray(threshold))
            np.testing.assert_allclose(shrunk, program.shrink(exact, jnp.asarray(threshold)), atol=1e-12)
            assert bool(jnp.all(program.norms(points) >= norms - 1e-12))


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
