"""The projection on positive semidefinite matrices and its derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.proximal.psd_cone import project_psd


def stack_of_matrices(seed: int = 0) -> np.ndarray:
    A = np.random.default_rng(seed).standard_normal((5, 4, 4))
    return A + A.transpose(0, 2, 1)


def test_moreau_decomposition():
    """A = P - N with P, N positive semidefinite and orthogonal holds for the projection alone."""
    A = stack_of_matrices()
    P = np.asarray(project_psd(A))
    N = P - A
    assert np.linalg.eigvalsh(P).min() >= -1e-13 and np.linalg.eigvalsh(N).min() >= -1e-13
    np.testing.assert_allclose(np.einsum("bij,bij->b", P, N), 0, atol=1e-12)


def test_only_the_symmetric_part_counts():
    A = stack_of_matrices()
    skew = np.triu(A, 1) - np.triu(A, 1).transpose(0, 2, 1)
    np.testing.assert_allclose(project_psd(A + skew), project_psd(A), atol=1e-13)


def test_derivative_against_differences():
    A, E, h = stack_of_matrices(), stack_of_matrices(1), 1e-6
    tangent = jax.jvp(project_psd, (jnp.asarray(A),), (jnp.asarray(E),))[1]
    difference = (np.asarray(project_psd(A + h * E)) - np.asarray(project_psd(A - h * E))) / (2 * h)
    np.testing.assert_allclose(tangent, difference, atol=1e-8)


@pytest.mark.routine(2)
@pytest.mark.parametrize("scale,expected", [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.0)])
def test_derivative_at_repeated_eigenvalues(scale, expected):
    E = jnp.asarray(stack_of_matrices()[0])
    tangent = jax.jvp(project_psd, (scale * jnp.eye(4),), (E,))[1]
    np.testing.assert_allclose(tangent, expected * E, atol=1e-13)
    gradient = jax.grad(lambda A: jnp.sum(project_psd(A) * E))(jnp.diag(jnp.array([2.0, 2.0, -1.0, -1.0])))
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_reverse_mode_is_the_adjoint():
    A, E, G = (jnp.asarray(stack_of_matrices(s)[0]) for s in range(3))
    tangent = jax.jvp(project_psd, (A,), (E,))[1]
    gradient = jax.grad(lambda A: jnp.sum(project_psd(A) * G))(A)
    assert jnp.sum(tangent * G) == pytest.approx(float(jnp.sum(gradient * E)), rel=1e-12)
