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
    constrained_nuclear_norm,
    hidden_gradient,
    hidden_objective,
    hidden_point,
)
from tests.helpers import distinct_cells, gaussian_data

N, D, C, P, BETA = 9, 3, 2, 6, 0.4


def instance(seed: int = 0):
    X, Y = gaussian_data(seed, N, D, C)
    return make_problem(X, Y, BETA, arrangements=distinct_cells(0, X, P)), X, Y


def factors(seed: int = 1, rank: int = 2) -> jax.Array:
    """Factors L of Gram matrices L L^T of the given rank."""
    half = np.random.default_rng(seed).standard_normal((P, D, D))
    return jnp.asarray(half).at[:, :, rank:].set(0.0)


def objective(problem, L) -> float:
    return float(hidden_objective(problem, hidden_point(problem, L)))


def test_the_interior_point_method_uses_these_formulas():
    problem = with_facets(instance()[0])
    solver = CopositiveInterior(tol=1e-8)
    state = solver.init(problem, None, solver.initial_params(problem, None))
    for _ in range(3):
        state = solver.step(problem, state)
    state = solver.check(problem, state)
    assert relaxed_objective(problem, state.params) == pytest.approx(float(state.objective), rel=1e-12)
    assert objective(problem, state.L) == pytest.approx(float(state.objective), rel=1e-12)


def test_recovered_blocks_are_the_best_for_their_gram_matrices():
    problem, X, Y = instance()
    point = hidden_point(problem, factors())
    blocks = blocks_from_hidden(problem, point)
    value = float(hidden_objective(problem, point))
    assert relaxed_objective(problem, blocks) == pytest.approx(value, rel=1e-12)
    F = np.asarray(problem.operator.forward(blocks.V))
    np.testing.assert_allclose(Y - F, point.R, atol=1e-12)
    for u, v, w in zip(*map(np.asarray, blocks), strict=True):
        np.testing.assert_allclose(w, v.T @ np.linalg.pinv(u, 1e-10) @ v, atol=1e-10)
    # Any other V in the range, with its own best W, is worse.
    rng, U = np.random.default_rng(2), np.asarray(blocks.U)
    V = np.asarray(blocks.V) + 0.1 * U @ rng.standard_normal((P, D, C))
    W = np.stack([v.T @ np.linalg.pinv(u, 1e-10) @ v for u, v in zip(U, V, strict=True)])
    assert relaxed_objective(problem, blocks._replace(V=V, W=W)) > value


def test_gradient_against_automatic_and_finite_differences():
    problem = instance()[0]
    L, h = factors(), 1e-5
    E = np.random.default_rng(3).standard_normal((P, D, D))
    E = E + E.transpose(0, 2, 1)
    gradient = hidden_gradient(problem, hidden_point(problem, L))
    # (I + A)(I + A)^T = I + A + A^T + ..., so the derivative in A is twice that in M.
    identity = jnp.tile(jnp.eye(D), (P, 1, 1))
    automatic = jax.grad(lambda A: hidden_objective(problem, hidden_point(problem, L @ A)))(identity)
    np.testing.assert_allclose(gradient, 0.25 * (automatic + automatic.swapaxes(1, 2)), atol=1e-12)
    plus, minus = (objective(problem, L @ jnp.linalg.cholesky(identity + s * h * E)) for s in (1, -1))
    assert jnp.sum(gradient * E) == pytest.approx((plus - minus) / (2 * h), rel=1e-7)


def test_gradient_in_the_gram_matrices_themselves():
    problem, X, _ = instance()
    L = factors(rank=D)
    point = hidden_point(problem, L)
    B = np.asarray(problem.arrangements.masks, float)[:, :, None] * X
    pulled = np.einsum("inp,nc->ipc", B, np.asarray(point.R))
    plain = 0.5 * (BETA * np.eye(D) - pulled @ pulled.transpose(0, 2, 1) / BETA)
    np.testing.assert_allclose(
        hidden_gradient(problem, point), L.swapaxes(1, 2) @ plain @ L, atol=1e-12 * float(jnp.abs(L).max()) ** 2
    )


def test_other_scaling_of_the_same_program():
    """With U = 2 beta U': 1/2 tr(Y^T (I + 2 K')^{-1} Y) + beta^2 sum tr U'."""
    problem, X, Y = instance()
    L, masks = np.asarray(factors()), np.asarray(problem.arrangements.masks, float)
    U, B = L @ L.transpose(0, 2, 1), masks[:, :, None] * X
    K = np.einsum("inp,ipr,imr->nm", B, U, B)
    value = 0.5 * np.trace(Y.T @ np.linalg.solve(np.eye(N) + 2 * K, Y)) + BETA**2 * np.einsum("ipp->", U)
    assert objective(problem, np.sqrt(2 * BETA) * jnp.asarray(L)) == pytest.approx(value, rel=1e-12)


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
