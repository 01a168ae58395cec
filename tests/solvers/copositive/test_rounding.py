"""Networks from the relaxation: factors, rotations into a cone, pushes, and neurons that are priced in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import enumerate_arrangements, make_problem
from jaxcvx.solvers.copositive import rounding as rounding
from jaxcvx.solvers.copositive.program import facet_rows, facets_of_problem, with_facets
from tests.helpers import gaussian_data, relaxed_optimum


def prepared(seed: int = 0, n: int = 7, d: int = 3, c: int = 2):
    X, Y = gaussian_data(seed, n, d, c)
    return with_facets(make_problem(X, Y, 0.3, arrangements=enumerate_arrangements(X)))


@pytest.mark.routine(2)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cholesky_factors_what_it_is_given(rank):
    rng = np.random.default_rng(rank)
    A, B = rng.standard_normal((5, 3)), rng.standard_normal((3, rank))
    Q = rounding.cholesky_factor(jnp.asarray(A), jnp.asarray(B @ B.T))
    np.testing.assert_allclose(Q @ Q.T, B @ B.T, atol=1e-9)
    assert np.linalg.matrix_rank(Q, tol=1e-6) == rank


def test_two_facets_are_factored_inside_the_cell_as_they_stand():
    rng = np.random.default_rng(0)
    for _ in range(5):
        A = rng.standard_normal((2, 2))
        neurons = np.linalg.solve(A, rng.uniform(0, 1, (2, 4)))  # A u >= 0
        Q = rounding.cholesky_factor(jnp.asarray(A), jnp.asarray(neurons @ neurons.T))
        assert (A @ np.asarray(Q)).min() >= -1e-10


def test_rotation_finds_a_non_negative_factor_and_keeps_the_product():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((3, 3))
    neurons = np.linalg.solve(A, rng.uniform(0.2, 1, (3, 3)))
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    Q = jnp.asarray(neurons @ turn)
    assert (A @ np.asarray(Q)).min() < -0.1
    found = rounding.rotate_into_cone(jnp.asarray(A), Q, 2000)
    np.testing.assert_allclose(found @ found.T, Q @ Q.T, atol=1e-9)
    assert (A @ np.asarray(found)).min() > -1e-2
    np.testing.assert_array_equal(rounding.rotate_into_cone(jnp.asarray(A), jnp.asarray(neurons)), neurons)


def test_pushes_go_just_far_enough():
    A = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    center = jnp.asarray([1.0, 0.5])
    U = jnp.asarray([[-1.0, 2.0], [3.0, -1.0], [1.0, 1.0]])
    pushed = rounding.push_towards(A[None], center[None], U)
    np.testing.assert_allclose(pushed, [[0.0, 2.5], [5.0, 0.0], [1.0, 1.0]])


def test_priced_neurons_lie_in_their_cells_and_climb():
    problem = prepared()
    R = jnp.asarray(np.random.default_rng(3).standard_normal((7, 2)))
    A, centers = facet_rows(problem), facets_of_problem(problem).centers()
    start, cell = rounding.unit_rows(centers[:5]), jnp.arange(5)
    found = rounding.priced_neurons(problem, R, start, cell)
    norms = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(norms[norms > 0], 1, atol=1e-12)
    assert (norms[:5] > 0).all() and (norms > 0).mean() > 0.8
    assert np.einsum("mkp,mp->mk", A[:5], found[:5]).min() >= -1e-12

    def price(U):
        return np.linalg.norm(np.maximum(np.asarray(problem.X) @ U.T, 0).T @ np.asarray(R), axis=1)

    assert (price(np.asarray(found[:5])) >= price(np.asarray(start)) - 1e-12).all()
    np.testing.assert_array_equal(rounding.unit_rows(jnp.zeros((2, 3))), 0)


def test_candidates_lie_in_their_cells():
    problem = prepared()
    B = np.random.default_rng(4).standard_normal((problem.operator.num_cells, 3, 3))
    U = jnp.asarray(B @ np.swapaxes(B, 1, 2))
    hidden, cell = rounding.candidate_neurons(problem, U)
    inside = np.einsum("mkp,mp->mk", np.asarray(facet_rows(problem))[np.asarray(cell)], hidden)
    assert inside.min() >= -1e-9 and len(hidden) <= 4 * 14


def test_rounding_prices_its_way_to_the_optimum_from_any_blocks():
    problem = prepared()
    blocks = jnp.zeros((problem.operator.num_cells, 3, 3)) + 1e-3 * jnp.eye(3)
    network = jax.jit(rounding.round_relaxed)(problem, blocks)
    F = np.maximum(np.asarray(problem.X) @ np.asarray(network.hidden).T, 0) @ np.asarray(network.output)
    weights = sum(float((np.asarray(w) ** 2).sum()) for w in (network.hidden, network.output))
    value = 0.5 * ((F - np.asarray(problem.Y)) ** 2).sum() + 0.15 * weights
    bound = relaxed_optimum(np.asarray(problem.X), problem.arrangements.masks, np.asarray(problem.Y), 0.3)
    assert bound * (1 - 1e-6) <= value <= 1.01 * bound
