"""From convex variables to networks: objectives and predictions are kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx import Dense, Network, enumerate_arrangements, make_problem
from jaxcvx.networks.network import balanced_penalty, network_objective, prune
from jaxcvx.networks.recovery import (
    decompose_in_cone,
    gated_to_relu,
    network_from_cone,
    network_from_gated,
    push_inside,
)
from jaxcvx.operators.cells import CellOperator
from jaxcvx.solvers.cone.program import pair_from_network
from tests.helpers import distinct_cells

N, D, P, BETA = 9, 3, 6, 0.2
X = np.random.default_rng(0).standard_normal((N, D))
FEATURES = [Dense(), Dense(bias=True, skip=True)]
seeds = st.integers(0, 10**6)
decompose = jax.jit(decompose_in_cone)
recover_cone, recover_gated = jax.jit(network_from_cone), jax.jit(network_from_gated)


def problem_with(features: Dense = Dense(), c: int = 1, seed: int = 0):
    Z = np.asarray(features.matrix(X))
    Y = np.random.default_rng(seed).standard_normal((N, c))
    return make_problem(X, Y, BETA, arrangements=distinct_cells(seed, Z, P), features=features)


def cone_point(problem, seed: int):
    """A random feasible point (V, W): positive multiples of directions inside each cell, some blocks zero."""
    rng, gates, c = np.random.default_rng(seed), np.asarray(problem.arrangements.gates), problem.num_outputs
    Z, masks = np.asarray(problem.rows), np.asarray(problem.arrangements.masks)
    pair = []
    for _ in range(2):
        columns = np.repeat(gates[:, :, None], c, axis=2)
        moved = columns + 0.3 * rng.standard_normal(columns.shape)
        inside = np.all((np.einsum("np,qpc->qnc", Z, moved) >= 0) == masks[:, :, None], axis=1)
        V = np.where(inside[:, None, :], moved, columns) * rng.uniform(0.1, 2, (P, 1, c))
        V[rng.random(P) < 0.4] = 0
        pair.append(np.concatenate([V, rng.standard_normal((1, *V.shape[1:]))]) if problem.features.skip else V)
    return tuple(jnp.asarray(a) for a in pair)


def cone_value(problem, V, W) -> float:
    """The cone program's value with groups per output, from its definition; the skip block stands for V - W."""
    Z, masks = np.asarray(problem.rows), np.asarray(problem.operator.masks, float)
    V, W = np.asarray(V), np.asarray(W)
    F = np.einsum("qn,np,qpc->nc", masks, Z, V - W)
    penalty = np.linalg.norm(V[:P], axis=1).sum() + np.linalg.norm(W[:P], axis=1).sum()
    penalty += np.linalg.norm((V - W)[P:])
    return float(0.5 * np.sum((F - np.asarray(problem.Y)) ** 2) + BETA * penalty)


@pytest.mark.routine(2)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("c", [1, 3])
def test_network_of_a_cone_point_has_its_objective(features, c):
    for seed in range(5):
        problem = problem_with(features, c, seed)
        V, W = cone_point(problem, seed)
        network = recover_cone(problem, V, W)
        assert float(network_objective(network, problem)) == pytest.approx(cone_value(problem, V, W), rel=1e-12)
        assert network.features == features and (network.skip is not None) == features.skip


@pytest.mark.routine(2)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("c", [1, 3])
def test_cone_point_of_a_network_is_feasible_and_predicts_the_same(features, c):
    problem = problem_with(features, c)
    rng = np.random.default_rng(1)
    hidden = np.asarray(problem.arrangements.gates)[[0, 2, 2, 5]] * rng.uniform(0.5, 2, (4, 1))
    skip = jnp.asarray(rng.standard_normal((hidden.shape[1], c))) if features.skip else None
    network = Network(jnp.asarray(hidden), jnp.asarray(rng.standard_normal((4, c))), skip, features)
    V, W = pair_from_network(problem, network)
    for block in (V, W):
        assert float(problem.operator.cone_margin(block).min()) >= 0
    np.testing.assert_allclose(problem.operator.forward(V - W), network(problem.X), atol=1e-12)
    if c == 1:
        assert cone_value(problem, V, W) <= float(network_objective(network, problem)) + 1e-12


@settings(max_examples=40)
@given(seeds)
def test_decomposition_in_a_cone(seed):
    rng = np.random.default_rng(seed)
    operator = problem_with(seed=0).operator
    cell = int(rng.integers(P))
    z = rng.standard_normal(D)
    sign = np.asarray(operator.signs())[cell]
    u, w = (np.asarray(a) for a in decompose(operator, jnp.asarray(sign), jnp.asarray(z)))
    np.testing.assert_allclose(u - w, z, atol=1e-10)
    for part in (u, w):
        assert np.min(sign * (X @ part)) >= -1e-9 * (1 + np.linalg.norm(part))
    # w is the shortest of its way round, so it is no longer than the plain way through an interior point.
    gate = np.asarray(problem_with().arrangements.gates)[cell]
    ways = []
    for side in (z, -z):
        length = np.max(np.maximum(-sign * (X @ side), 0) / (sign * (X @ gate)))
        ways.append(2 * length * np.linalg.norm(gate) + np.linalg.norm(z))
    assert np.linalg.norm(u) + np.linalg.norm(w) <= min(ways) * (1 + 1e-9)


def test_decomposition_of_a_point_inside_is_itself():
    operator, gates = problem_with().operator, problem_with().arrangements.gates
    for cell in range(P):
        for side in (1.0, -1.0):
            u, w = decompose(operator, operator.signs()[cell], side * gates[cell])
            np.testing.assert_allclose(u if side > 0 else w, gates[cell], atol=1e-12)
            np.testing.assert_allclose(w if side > 0 else u, 0, atol=1e-12)


@pytest.mark.routine(1)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("c", [1, 3])
def test_gated_networks_become_relu_networks_with_the_same_predictions(features, c):
    for seed in range(3):
        problem = problem_with(features, c, seed)
        rng = np.random.default_rng(seed)
        params = rng.standard_normal((problem.operator.num_blocks, problem.rows.shape[1], c))
        params[1] = 0
        V = jnp.asarray(params)
        network, pruned = recover_gated(problem, V), gated_to_relu(problem, V)
        size = float(jnp.abs(network.hidden).max() ** 2)
        for net in (network, pruned):
            np.testing.assert_allclose(net(problem.X), problem.operator.forward(V), atol=1e-9 * (1 + size))
        assert pruned.width <= network.width and bool(jnp.all(jnp.any(pruned.hidden != 0, axis=1)))
        gated = sum(np.linalg.norm(block) for block in np.asarray(V))
        assert float(balanced_penalty(network)) >= gated * (1 - 1e-9)


def test_gated_blocks_inside_their_cells_cost_nothing():
    problem = problem_with()
    V = problem.arrangements.gates[:, :, None] * jnp.asarray([1.0, -2, 0, 3, -0.1, 1])[:, None, None]
    network = gated_to_relu(problem, V)
    assert prune(network, tol=1e-12).width == 5
    assert float(balanced_penalty(network)) == pytest.approx(float(jnp.sum(jnp.linalg.norm(V[:, :, 0], axis=1))))


def test_pushing_inside():
    operator, gates = problem_with().operator, problem_with().arrangements.gates
    rng = np.random.default_rng(2)
    V = jnp.asarray(rng.standard_normal((P, D, 2)))
    pushed = push_inside(operator, V, gates)
    assert float(operator.cone_margin(pushed).min()) >= -1e-12
    already = gates[:, :, None] * jnp.ones((1, 1, 2))
    np.testing.assert_array_equal(push_inside(operator, already, gates), already)
    outside = push_inside(operator, V, -gates)  # centers on the wrong side cannot help
    np.testing.assert_array_equal(outside, V)


def test_all_cells_of_the_data_decompose():
    rng = np.random.default_rng(0)
    cells = enumerate_arrangements(X)
    operator = CellOperator(jnp.asarray(X), cells.masks)
    Zs = jnp.asarray(rng.standard_normal((len(cells), D)))
    U, W = jax.jit(jax.vmap(decompose_in_cone, in_axes=(None, 0, 0)))(operator, operator.signs(), Zs)
    sizes = np.linalg.norm(U, axis=1) + np.linalg.norm(W, axis=1)
    for part in (U, W):
        slack = np.asarray((part @ X.T) * operator.signs())
        assert np.all(slack.min(axis=1) >= -1e-9 * sizes)
    np.testing.assert_allclose(U - W, Zs, atol=1e-9 * sizes.max())
