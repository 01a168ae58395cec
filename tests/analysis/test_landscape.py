"""Saddles, minima and isometry constants, against dense Hessians and known spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcvx

KEY = jax.random.key


def sensing(m=200, n=8, rank=2):
    rng = np.random.default_rng(0)
    U = rng.standard_normal((n, rank)) / n**0.5
    A = rng.standard_normal((m, n, n))
    return jaxcvx.MatrixSensing(A, np.einsum("mij,ij->m", A, U @ U.T), rank), U, m


@pytest.mark.long
def test_smallest_eigenvalue_is_that_of_the_dense_hessian():
    problem, U, _ = sensing()
    point = jnp.asarray(U + 0.3)
    hessian = jax.hessian(lambda x: problem.objective(x.reshape(U.shape)))(point.ravel())
    values, vectors = np.linalg.eigh(hessian)
    report = jaxcvx.second_order(problem, point, KEY(1))
    np.testing.assert_allclose(report.smallest, values[0], rtol=1e-9)
    assert abs(float(report.direction.ravel() @ vectors[:, 0])) > 1 - 1e-9 and report.error < 1e-6
    rough = jaxcvx.second_order(problem, point, KEY(1), num_steps=4)
    assert rough.smallest >= values[0] - 1e-9  # a Ritz value, with a bound on its error
    assert np.abs(values - float(rough.smallest)).min() <= float(rough.error) + 1e-9


def test_saddles_are_strict_and_the_solution_is_a_minimum():
    """Zero and factors without one eigenvector are saddles of curvature below -4/5 sigma_r (Bhojanapalli et al.)."""
    problem, U, m = sensing(m=2000)
    values, vectors = np.linalg.eigh(U @ U.T)
    column = vectors[:, -1:] * values[-1] ** 0.5
    start = jnp.asarray(np.hstack([column, 0 * column]))
    saddle = jaxcvx.solve(problem, jaxcvx.GradientDescent(optimizer=optax.sgd(0.1 / m)), init=start).params
    assert float(jnp.abs(saddle[:, 1]).max()) == 0  # its second column has no gradient
    for point in (jnp.zeros_like(U), saddle):
        report = jaxcvx.second_order(problem, point, KEY(0))
        assert report.kind(1e-3 * m, 1e-6) == "saddle"
        assert report.smallest / m <= -0.8 * values[-2]
    assert jaxcvx.second_order(problem, jnp.asarray(U), KEY(0)).kind(1e-6, 1e-6) == "minimum"
    assert jaxcvx.second_order(problem, jnp.asarray(U + 1), KEY(0)).kind(1e-6, 1e-6) == "not stationary"


def test_counterexample_has_isometry_one_half_and_a_spurious_minimum():
    problem, solution, trap = jaxcvx.half_rip_counterexample()
    stack = problem.operator.stack.reshape(4, 4)
    np.testing.assert_allclose(np.linalg.eigvalsh(stack.T @ stack), [0.5, 1, 1.5, 1.5], atol=1e-12)
    np.testing.assert_allclose(jaxcvx.isometry_constant(problem, KEY(0)), 0.5, atol=1e-6)
    np.testing.assert_allclose(problem.objective(trap), 3 / 8)
    assert problem.objective(solution) == 0
    assert jaxcvx.second_order(problem, trap, KEY(0)).kind(1e-12, 1e-12) == "minimum"


def test_gradient_descent_sometimes_ends_at_the_spurious_minimum():
    problem, solution, trap = jaxcvx.half_rip_counterexample()
    starts = jax.random.normal(KEY(0), (1000, 2, 1))
    solver = jaxcvx.GradientDescent(optimizer=optax.sgd(0.04), max_steps=3000, tol=0.0)
    ends = jax.jit(jax.vmap(lambda x: jaxcvx.solve(problem, solver, init=x).params))(starts)
    X = ends @ jnp.swapaxes(ends, 1, 2)
    success = jnp.linalg.norm(X - solution @ solution.T, axis=(1, 2)) < 1e-2
    assert 0.93 <= float(success.mean()) <= 0.99
    trapped = X[~success] - trap @ trap.T
    assert float(jnp.median(jnp.linalg.norm(trapped, axis=(1, 2)))) < 0.1


def test_restricted_curvature_of_known_spectra():
    """All entries are observed, with weights. Single entries then give the extremes over rank-one matrices."""
    weights = jnp.asarray(np.random.default_rng(0).uniform(1, 3, (4, 5)))
    problem = jaxcvx.LowRankLoss(jax.tree_util.Partial(lambda W, X: 0.5 * jnp.sum(W * X**2), weights), (4, 5), 1)
    low, high = jaxcvx.restricted_curvature(problem, jnp.zeros((4, 5)), 1, KEY(0), num_starts=40)
    np.testing.assert_allclose(high, weights.max(), rtol=1e-3)
    assert low >= weights.min() - 1e-9
    np.testing.assert_allclose(low, weights.min(), rtol=0.1)


@pytest.mark.long
def test_isometry_improves_with_measurements():
    constants = [float(jaxcvx.isometry_constant(sensing(m)[0], KEY(0))) for m in (100, 400, 1600)]
    assert constants[0] > 1.5 * constants[1] > 2 * constants[2]


def test_isometry_of_observed_entries():
    """Some entries are observed, others not. Rank-one matrices of such entries have curvature 1 and 0."""
    problem = jaxcvx.MatrixCompletion([0, 0, 1, 2], [0, 1, 1, 2], jnp.ones(4), (3, 3), 1)
    np.testing.assert_allclose(jaxcvx.isometry_constant(problem, KEY(0), rank=1), 1.0, atol=1e-2)
