"""Observations of matrices: every form says the same of the same map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.operators.observation import Matrices, MatrixFree, Whole

D1, D2, M, K = 6, 5, 9, 2
RNG = np.random.default_rng(0)
STACK = RNG.standard_normal((M, D1, D2))
X, L, R, P, Q = (RNG.standard_normal(shape) for shape in ((D1, D2), (D1, K), (D2, K), (D1, K), (D2, K)))


def forward(X):
    return jnp.einsum("mij,ij->m", STACK, X)


def backward(z):
    return jnp.einsum("mij,m->ij", STACK, z)


FORMS = {
    "matrices": lambda: Matrices(jnp.asarray(STACK)),
    "functions": lambda: MatrixFree(forward, backward, (D1, D2, M)),
    "whole": lambda: Whole((D1, D2)),
}


def expected(form, X):
    return X if form == "whole" else np.einsum("mij,ij->m", STACK, X)


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.mark.routine(2)
def test_values(form):
    A = FORMS[form]()
    assert A.shape == (D1, D2) and A.count == expected(form, X).size
    np.testing.assert_allclose(A.full(X), expected(form, X))
    np.testing.assert_allclose(A.apply(L, R), expected(form, L @ R.T))


@pytest.mark.routine(2)
def test_adjoint(form):
    A = FORMS[form]()
    z = np.random.default_rng(1).standard_normal(expected(form, X).shape)
    back = A.adjoint(z)
    np.testing.assert_allclose(np.sum(back * X), np.sum(z * expected(form, X)))
    np.testing.assert_allclose(A.times(z, R), back @ R)
    np.testing.assert_allclose(A.transposed_times(z, L), back.T @ L)


@pytest.mark.routine(2)
def test_observations_along_a_line_are_its_quadratic(form):
    A = FORMS[form]()
    z, a, b = A.line(L, R, P, Q)
    for t in (-0.7, 2.0):
        np.testing.assert_allclose(z + t * a + t**2 * b, expected(form, (L + t * P) @ (R + t * Q).T))


@pytest.mark.routine(2)
def test_mean_square(form):
    """The average of ``||A(X)||^2 / ||X||_F^2`` over all matrices; of functions it is estimated."""
    draws = np.random.default_rng(2).standard_normal((4000, D1, D2))
    squares = [np.sum(expected(form, X) ** 2) / (D1 * D2) for X in draws]
    exact = 1.0 if form == "whole" else np.sum(STACK**2) / (D1 * D2)
    np.testing.assert_allclose(np.mean(squares), exact, rtol=0.05)  # what it is the average of
    np.testing.assert_allclose(FORMS[form]().mean_square(), exact, rtol=0.4 if form == "functions" else 1e-12)


def test_under_jit_and_vmap():
    Rs = np.random.default_rng(3).standard_normal((3, D2, K))
    A = FORMS["matrices"]()
    batch = jax.jit(jax.vmap(lambda A, R: A.apply(L, R), (None, 0)))(A, Rs)
    for R, values in zip(Rs, batch, strict=True):
        np.testing.assert_allclose(values, expected("matrices", L @ R.T))
