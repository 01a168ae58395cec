"""The Newton phase of the cone program: its Hessian is the derivative it claims, and alone it reaches the optimum."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import ConeADMM, ConvFlatten, ConvPool, Dense, Status, make_problem, sample_arrangements, solve
from jaxcvx.solvers.cone import ssnal as cone_newton
from jaxcvx.solvers.cone.program import cone_program
from jaxcvx.solvers.cone.ssnal import ConeNewton, _direction
from tests.helpers import cone_optimum, distinct_cells, gaussian_data
from tests.solvers.gated.test_proximal_gradient import hard_data
from tests.solvers.gated.test_proximal_gradient import problem_of as hard_problem


def problem_of(c: int = 1):
    X, Y = gaussian_data(0, 12, 2, c)
    return make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, 6))


FEATURES = {"dense": Dense(), "pool": ConvPool((2,)), "flatten": ConvFlatten((2,))}
CASES = [(2, "shared", "flatten"), (2, "per-output", "pool"), (1, "shared", "dense"), (1, "shared", "flatten")]
CASES += [(2, "shared", "dense"), (2, "per-output", "dense"), (2, "per-output", "flatten"), (2, "shared", "pool")]


def rows_problem(c: int, features: str):
    """As ``problem_of``, with the rows of a convolution."""
    X, Y = gaussian_data(0, 12, 4, c)
    cells = sample_arrangements(jax.random.key(0), X, 6, features=FEATURES[features])
    return make_problem(X, Y, 0.5, arrangements=cells, features=FEATURES[features])


@pytest.mark.routine("2-shared-flatten")
@pytest.mark.parametrize(("c", "grouping", "features"), CASES)
def test_direction_is_newtons_of_the_dual_gradient(c, grouping, features):
    """The derivative of the gradient along the direction is minus the gradient."""
    problem = rows_problem(c, features) if features != "dense" else problem_of(c)
    program, sigma = cone_program(problem, grouping), jnp.asarray(0.7)
    threshold = sigma * problem.beta
    rng = np.random.default_rng(1)
    shape = (2 * problem.operator.num_blocks, problem.rows.shape[1], problem.num_columns)
    R, Q = jnp.asarray(rng.standard_normal((12, c))), jnp.asarray(0.3 * rng.standard_normal(shape))

    @jax.jit
    def at(R):
        q, rows = program.penalty.project(Q + sigma * program.adjoint(R), program.penalty.start_memory(Q))
        return R - problem.Y + program.forward(program.penalty.groups.prox(q, threshold)), q, rows

    g, q, rows = at(R)
    assert float(jnp.max(program.penalty.group_norms(q))) > float(threshold)
    h = 1e-6

    def slope(step):
        return (at(R + h * step)[0] - at(R - h * step)[0]) / (2 * h)

    exact = _direction(program, q, rows, threshold, sigma, g, accuracy=1e-13, max_steps=50)
    np.testing.assert_allclose(slope(exact), -g, rtol=1e-6, atol=1e-6)
    rough = _direction(program, q, rows, threshold, sigma, g)
    assert float(jnp.linalg.norm(slope(rough) + g)) <= 1.001e-3 * float(jnp.linalg.norm(g))


@pytest.mark.routine("2-per-output-pool")
@pytest.mark.parametrize(("c", "grouping", "features"), CASES)
def test_the_preconditioners_matrix_is_the_hessians(c, grouping, features, monkeypatch):
    """Conjugate gradients would hide what is missing of it. More rows and groups than are summed up at a time."""
    monkeypatch.setattr(cone_newton, "_ROWS", 3)
    monkeypatch.setattr(cone_newton, "_BLOCKS", 2)
    problem = rows_problem(c, features) if features != "dense" else problem_of(c)
    program = cone_program(problem, grouping)
    rng = np.random.default_rng(2)
    shape = (2 * problem.operator.num_blocks, problem.rows.shape[1], problem.num_columns)
    q, rows = program.penalty.project(
        jnp.asarray(rng.standard_normal(shape)), program.penalty.start_memory(jnp.zeros(shape))
    )
    threshold = jnp.median(program.penalty.group_norms(q))
    faces, lines = cone_newton._derivative(program, q, rows, threshold)

    def hessian(x):
        T = program.adjoint(x.reshape(12, c))
        J = jnp.einsum("qcrp,qcrs,qsc->qpc", faces, faces, T) + lines * program.penalty.groups.inner(lines, T)
        return program.forward(J).reshape(-1)

    expected = jax.vmap(hessian)(jnp.eye(12 * c))
    assert np.linalg.matrix_rank(expected) > 3
    found = cone_newton._sum_up(program, faces, lines, 12)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.routine("2")
@pytest.mark.parametrize("c", [1, 2])
def test_projections_that_do_not_matter_are_bounded(c):
    problem = problem_of(c)
    program = cone_program(problem, "shared")
    rng = np.random.default_rng(1)
    Q = jnp.asarray(rng.standard_normal((12, 2, c)))
    exact, rows = program.penalty.project(Q, program.penalty.start_memory(Q))
    norms = program.penalty.group_norms(exact)
    for threshold in (0.0, float(jnp.median(norms)), 10.0):
        for warm in (program.penalty.start_memory(Q), rows):
            points, _ = program.penalty.project_above(Q, warm, jnp.asarray(threshold))
            shrunk = program.penalty.groups.prox(points, jnp.asarray(threshold))
            np.testing.assert_allclose(shrunk, program.penalty.groups.prox(exact, jnp.asarray(threshold)), atol=1e-12)
            assert bool(jnp.all(program.penalty.group_norms(points) >= norms - 1e-12))


def test_subproblems_end_at_rounding():
    """Targets of 1e5 beside others of 1, and hardly any penalty: no step reaches what is asked of the gradient."""
    X, Y, cells = hard_data("outlier target")
    solution = solve(hard_problem(X, Y, 1e-4, cells=cells), ConeADMM(tol=1e-8))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-8


@pytest.mark.routine(1)
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
