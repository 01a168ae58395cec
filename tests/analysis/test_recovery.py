"""Recovery certificates against nuclear-norm minimisation by Clarabel, and cases where nothing may be certified."""

import cvxpy as cp
import jax
import numpy as np
import pytest

import jaxcvx

SHAPE, RANK = (20, 16), 1
RNG = np.random.default_rng(0)
X = RNG.standard_normal((SHAPE[0], RANK)) @ RNG.standard_normal((RANK, SHAPE[1]))
SOLVER = jaxcvx.GradientDescent(tol=1e-10)


def completion(count, seed=1):
    rows, cols = np.divmod(np.random.default_rng(seed).choice(X.size, count, replace=False), SHAPE[1])
    return rows, cols, jaxcvx.MatrixCompletion(rows, cols, X[rows, cols], SHAPE, RANK)


def test_certified_matrix_is_the_nuclear_norm_minimiser():
    rows, cols, problem = completion(200)
    params = jaxcvx.solve(problem, SOLVER).params
    certificate = jaxcvx.recovery_certificate(problem, params)
    assert certificate.certified and 0 < certificate.margin <= 1 - certificate.off_tangent
    assert np.linalg.norm(problem.matrix(params) - X) <= certificate.error_bound < 1e-6
    Z = cp.Variable(SHAPE)
    cp.Problem(cp.Minimize(cp.normNuc(Z)), [Z[rows, cols] == X[rows, cols]]).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(Z.value, X, atol=1e-5)


def test_dual_certificate_satisfies_its_definition():
    """Y is zero outside the observed entries, equals U V^T on the tangent space, and is small outside it."""
    rows, cols, problem = completion(200)
    certificate = jaxcvx.recovery_certificate(problem, jaxcvx.solve(problem, SOLVER).params)
    Y = np.zeros(SHAPE)
    Y[rows, cols] = problem.operator.collect(certificate.dual)
    u, _, vt = np.linalg.svd(X)
    u, v = u[:, :RANK], vt[:RANK].T
    outside = (np.eye(SHAPE[0]) - u @ u.T) @ Y @ (np.eye(SHAPE[1]) - v @ v.T)
    np.testing.assert_allclose(Y - outside, u @ v.T, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(outside, 2), certificate.off_tangent, atol=1e-8)
    # The observations restricted to the tangent space, column by column.
    basis = [np.outer(u[:, 0], e) for e in np.eye(SHAPE[1])] + [np.outer(e, v[:, 0]) for e in np.linalg.svd(u)[0].T[1:]]
    A = np.array([B[rows, cols] for B in basis])
    np.testing.assert_allclose(np.linalg.svd(A, compute_uv=False)[-1], certificate.injectivity, rtol=1e-6)


@pytest.mark.long
def test_no_certificate_if_another_matrix_has_a_smaller_norm():
    """With an unobserved row X is not unique; for a wrong matrix another one has a smaller nuclear norm."""
    rows, cols, _ = completion(200)
    kept = rows != 3
    values = X[rows, cols][kept]
    hole = jaxcvx.MatrixCompletion(rows[kept], cols[kept], values, SHAPE, RANK)
    solution = jaxcvx.solve(hole, SOLVER)
    u, v = (np.asarray(F) for F in solution.params)
    u = u.copy()
    u[3] = 1.0
    certificate = jaxcvx.recovery_certificate(hole, (u, v))
    assert not certificate.certified and certificate.error_bound == np.inf
    few = completion(40)[2]
    assert not jaxcvx.recovery_certificate(few, jaxcvx.solve(few, SOLVER).params).certified


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")  # the reference's answer suffices
@pytest.mark.parametrize("symmetric", [True, False])
def test_sensing(symmetric):
    rng = np.random.default_rng(2)
    n = 8
    U = rng.standard_normal((n, 1))
    A = rng.standard_normal((30 if symmetric else 50, n, n))
    problem = jaxcvx.MatrixSensing(A, np.einsum("mij,ij->m", A, U @ U.T), 1, symmetric=symmetric)
    params = jaxcvx.solve(problem, SOLVER).params
    certificate = jaxcvx.recovery_certificate(problem, params)
    assert certificate.certified
    assert np.linalg.norm(problem.matrix(params) - U @ U.T) <= certificate.error_bound < 1e-6
    Z = cp.Variable((n, n), symmetric=symmetric)
    fits = [cp.sum(cp.multiply(a, Z)) == y for a, y in zip(A, np.asarray(problem.targets), strict=True)]
    cp.Problem(cp.Minimize(cp.normNuc(Z)), fits).solve(solver=cp.CLARABEL)
    np.testing.assert_allclose(Z.value, U @ U.T, atol=1e-5)


def test_error_bound_covers_inexact_solutions():
    _, _, problem = completion(200)
    u, v = jaxcvx.solve(problem, SOLVER).params
    certificate = jaxcvx.recovery_certificate(problem, (u * (1 + 1e-4), v))
    error = np.linalg.norm(u @ v.T * (1 + 1e-4) - X)
    assert certificate.certified and error <= certificate.error_bound < 1e3 * error


def test_bad_input_is_named():
    rows, cols, problem = completion(200)
    signs = jaxcvx.OneBitCompletion(rows, cols, np.sign(X[rows, cols]), SHAPE, RANK)
    with pytest.raises(jaxcvx.InvalidTypeError, match="problem"):
        jaxcvx.recovery_certificate(signs, signs.spectral_params())
    with pytest.raises(jaxcvx.InvalidTypeError, match="traced"):
        jax.jit(lambda p: jaxcvx.recovery_certificate(problem, p).margin)(problem.spectral_params())
