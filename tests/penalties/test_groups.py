"""Group penalties: against jaxopt's prox, and as static fields."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.penalties.groups import ColumnGroups, FrobeniusGroups
from jaxcvx.penalties.nuclear import NuclearNorm
from tests.oracle.jaxopt_reference import shrink_groups

W = np.random.default_rng(0).standard_normal((6, 3, 2))


@pytest.mark.parametrize("t", [0.0, 0.5, 3.0])
def test_prox_is_jaxopts(t):
    np.testing.assert_allclose(FrobeniusGroups().prox(jnp.asarray(W), t), shrink_groups(jnp.asarray(W), t), atol=1e-14)
    columns = jnp.asarray(np.moveaxis(W, 2, 1).reshape(12, 3, 1))
    expected = np.moveaxis(np.asarray(shrink_groups(columns, t)).reshape(6, 2, 3), 1, 2)
    np.testing.assert_allclose(ColumnGroups().prox(jnp.asarray(W), t), expected, atol=1e-14)


def test_values_and_dual_norms_are_the_definitions():
    blocks, columns = np.linalg.norm(W, axis=(1, 2)), np.linalg.norm(W, axis=1)
    assert float(FrobeniusGroups().value(jnp.asarray(W))) == pytest.approx(blocks.sum())
    assert float(FrobeniusGroups().dual_norm(jnp.asarray(W))) == pytest.approx(blocks.max())
    assert float(ColumnGroups().value(jnp.asarray(W))) == pytest.approx(columns.sum())
    assert float(ColumnGroups().dual_norm(jnp.asarray(W))) == pytest.approx(columns.max())
    np.testing.assert_allclose(ColumnGroups().inner(jnp.asarray(W), jnp.asarray(W))[:, 0], columns**2)


def test_gradients_at_zero_blocks_are_finite():
    for penalty in (FrobeniusGroups(), ColumnGroups()):
        gradient = jax.grad(lambda V, p=penalty: p.value(V) + jnp.sum(p.prox(V, 0.5) ** 2))(jnp.zeros((2, 3, 2)))
        np.testing.assert_array_equal(gradient, 0)


def test_equal_penalties_are_one_static_argument():
    assert FrobeniusGroups() == FrobeniusGroups() and hash(FrobeniusGroups()) == hash(FrobeniusGroups())
    assert FrobeniusGroups() != ColumnGroups() and NuclearNorm(1) != NuclearNorm()
    compiled = jax.jit(lambda penalty, W: penalty.value(W))
    for _ in range(2):
        compiled(NuclearNorm(1), jnp.asarray(W))
    assert compiled._cache_size() == 1


@pytest.mark.parametrize(
    ("penalty", "bounds"), [(FrobeniusGroups(), True), (NuclearNorm(), True), (ColumnGroups(), False)]
)
def test_bounds_neurons_says_whether_a_neuron_costs_its_norms(penalty, bounds):
    rng = np.random.default_rng(1)
    u, v = rng.standard_normal((20, 3)), rng.standard_normal((20, 2))
    values = jax.vmap(lambda block: penalty.value(block[None]))(jnp.asarray(u[:, :, None] * v[:, None, :]))
    cheap = np.asarray(values) <= np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1) * (1 + 1e-12)
    assert penalty.bounds_neurons == bounds and np.all(cheap) == bounds
