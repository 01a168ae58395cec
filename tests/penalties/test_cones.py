"""ConeGroups: feasibility, memory, and points that stand for projections that do not matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.penalties.cones import ConeGroups
from jaxcvx.penalties.groups import ColumnGroups, FrobeniusGroups
from tests.penalties.test_contract import C, D, P, cones


def targets(seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((P, D, C)))


@pytest.mark.parametrize("groups", [FrobeniusGroups(), ColumnGroups()])
def test_memory_changes_no_result(groups):
    penalty, t = cones(groups), jnp.asarray(0.4)
    cold, memory = penalty.prox_with_memory(targets(0), t, penalty.start_memory(targets(0)))
    warm, _ = penalty.prox_with_memory(targets(0), t, memory)
    other, _ = penalty.prox_with_memory(targets(1), t, memory)
    np.testing.assert_allclose(warm, cold, atol=1e-12)
    np.testing.assert_allclose(other, penalty.prox(targets(1), t), atol=1e-12)


def test_projections_of_all_columns_of_all_cells():
    """A projection V of W: feasible, ``<W - V, V> = 0``, and W - V in the polar cone."""
    penalty, W = cones(FrobeniusGroups()), targets(2)
    V = np.asarray(penalty.project(W, penalty.start_memory(W))[0])
    normals = np.asarray(penalty.signs)[:, :, None] * np.asarray(penalty.rows)
    assert np.min(np.einsum("qnp,qpc->qnc", normals, V)) >= -1e-12
    np.testing.assert_allclose(np.sum((W - V) * V, axis=1), 0, atol=1e-12)
    points = np.random.default_rng(3).standard_normal((P, D, 4000))
    inside = np.all(np.einsum("qnp,qpk->qnk", normals, points) >= 0, axis=1)
    products = np.einsum("qpc,qpk->qck", W - V, points)
    assert inside.any(axis=1).all() and np.max(np.where(inside[:, None], products, -np.inf)) <= 1e-12
    np.testing.assert_array_equal(V[-1], W[-1])  # unconstrained


def test_it_is_a_pytree_whose_groups_are_static():
    penalty = cones(ColumnGroups())
    leaves, tree = jax.tree.flatten(penalty)
    again = jax.tree.unflatten(tree, leaves)
    assert len(leaves) == 2 and isinstance(again, ConeGroups) and again.groups == ColumnGroups()
    norm = jax.jit(lambda penalty, G: penalty.dual_norm(G))(penalty, targets(0))
    assert float(norm) == pytest.approx(float(penalty.dual_norm(targets(0))), rel=1e-12)
