"""The program in the hidden Gram matrices: equal to the block form, its gradient, and the norm that it represents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import make_problem
from jaxcvx.solvers.copositive.interior_point import CopositiveInterior
from jaxcvx.solvers.copositive.program import relaxed_objective, with_facets
from jaxcvx.solvers.copositive.reduced import (
    blocks_from_hidden,
    completely_positive_gradient,
    completely_positive_objective,
    constrained_nuclear_norm,
    dual_residual,
)
from jaxcvx.solvers.core.loop import run
from tests.helpers import distinct_cells, gaussian_data

N, D, C, P, BETA = 9, 3, 2, 6, 0.4


def instance(seed: int = 0):
    X, Y = gaussian_data(seed, N, D, C)
    return make_problem(X, Y, BETA, arrangements=distinct_cells(0, X, P)), X, Y


def gram_matrices(seed: int = 1) -> jax.Array:
    half = np.random.default_rng(seed).standard_normal((P, D, 2))
    return jnp.asarray(half @ half.transpose(0, 2, 1))


def test_equal_to_the_block_form_at_the_relaxation_s_solution():
    problem = with_facets(instance()[0])
    solver = CopositiveInterior(tol=1e-8)
    blocks = jax.jit(run, static_argnums=1)(problem, solver, solver.initial_params(problem, None), None).outcome.params
    value = relaxed_objective(problem, blocks)
    assert completely_positive_objective(problem, blocks.U) == pytest.approx(float(value), rel=1e-12)


def test_recovered_blocks_are_the_best_for_their_gram_matrices():
    problem, X, Y = instance()
    U = gram_matrices()
    blocks = blocks_from_hidden(problem, U)
    value = completely_positive_objective(problem, U)
    assert relaxed_objective(problem, blocks) == pytest.approx(float(value), rel=1e-12)
    F = np.asarray(problem.operator.forward(blocks.V))
    np.testing.assert_allclose(Y - F, dual_residual(problem, U), atol=1e-12)
    for u, v, w in zip(*map(np.asarray, blocks), strict=True):
        np.testing.assert_allclose(w, v.T @ np.linalg.pinv(u, 1e-10) @ v, atol=1e-10)
    # Any other V in the range, with its own best W, is worse.
    rng = np.random.default_rng(2)
    V = np.asarray(blocks.V) + 0.1 * np.asarray(U) @ rng.standard_normal((P, D, C))
    W = np.stack([v.T @ np.linalg.pinv(u, 1e-10) @ v for u, v in zip(np.asarray(U), V, strict=True)])
    assert relaxed_objective(problem, blocks._replace(V=V, W=W)) > value


def test_gradient_against_automatic_and_finite_differences():
    problem = instance()[0]
    U, E, h = gram_matrices(), gram_matrices(3), 1e-5
    gradient = completely_positive_gradient(problem, U)
    automatic = jax.grad(lambda U: completely_positive_objective(problem, U))(U)
    np.testing.assert_allclose(gradient, 0.5 * (automatic + automatic.swapaxes(1, 2)), atol=1e-12)
    plus, minus = (completely_positive_objective(problem, U + s * h * E) for s in (1, -1))
    assert jnp.sum(gradient * E) == pytest.approx(float((plus - minus) / (2 * h)), rel=1e-7)


def test_other_scaling_of_the_same_program():
    """With U = 2 beta U': 1/2 tr(Y^T (I + 2 K')^{-1} Y) + beta^2 sum tr U'."""
    problem, X, Y = instance()
    U, masks = gram_matrices(), np.asarray(problem.arrangements.masks, float)
    B = masks[:, :, None] * X
    K = np.einsum("inp,ipr,imr->nm", B, np.asarray(U), B)
    value = 0.5 * np.trace(Y.T @ np.linalg.solve(np.eye(N) + 2 * K, Y)) + BETA**2 * np.einsum("ipp->", U)
    assert completely_positive_objective(problem, 2 * BETA * U) == pytest.approx(value, rel=1e-12)


def test_constrained_nuclear_norm():
    """Balanced singular pairs attain the nuclear norm, which is what the norm is without cones."""
    rng = np.random.default_rng(0)
    left, size, right = np.linalg.svd(rng.standard_normal((4, 3)), full_matrices=False)
    V = (left * size) @ right
    best = (left * size) @ left.T
    assert constrained_nuclear_norm(V, best) == pytest.approx(size.sum(), rel=1e-12)
    for seed in range(5):
        half = np.random.default_rng(seed).standard_normal((4, 4))
        assert constrained_nuclear_norm(V, half @ half.T) > size.sum()
    assert constrained_nuclear_norm(V, np.outer(left[:, 0], left[:, 0])) == np.inf
    # One neuron: U = t u u^T costs (t |u|^2 + |g|^2 / t) / 2, least at |u| |g|.
    u, g = np.array([3.0, 4.0]), np.array([0.0, 2.0])
    assert constrained_nuclear_norm(np.outer(u, g), np.outer(u, u) * 2 / 5) == pytest.approx(10.0, rel=1e-12)
