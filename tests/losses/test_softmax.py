"""Softmax cross-entropy: what it has beside the other losses, whose common tests it passes in test_losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import InvalidInputError
from jaxcvx.losses.softmax import SoftmaxCrossEntropy, balanced_rows, other_classes


def test_softmax_conjugate_is_the_supremum():
    loss, Y = SoftmaxCrossEntropy(), jnp.asarray([[0.0, 1.0, 0.0]])
    t = np.linspace(-15, 15, 601)
    grid = np.stack([*np.meshgrid(t, t), np.zeros((601, 601))], -1).reshape(-1, 1, 3)  # the loss ignores shifts
    values = np.asarray(jax.vmap(lambda F: loss.value(F, Y))(grid))
    for p in ([0.2, 0.5, 0.3], [0.05, 0.05, 0.9], [0.6, 0.3, 0.1]):
        G = np.asarray(p) - np.asarray(Y)
        best = np.max(grid[:, 0] @ G[0] - values)
        assert float(loss.conjugate(jnp.asarray(G), Y)) == pytest.approx(best, abs=1e-3)


def test_softmax_curvature_holds_for_many_classes():
    rng = np.random.default_rng(0)
    for c in (2, 3, 10):
        p = rng.dirichlet(np.full(c, 0.3), 200)
        top = [np.linalg.eigvalsh(np.diag(q) - np.outer(q, q))[-1] for q in p]
        assert max(top) <= SoftmaxCrossEntropy.curvature


def test_losses_that_couple_entries_have_no_interval():
    with pytest.raises(InvalidInputError, match="^loss: got 'softmax', expected a loss that is a sum"):
        SoftmaxCrossEntropy().dual_interval(jnp.eye(3))


def one_hot(n: int, c: int) -> tuple[jax.Array, np.random.Generator]:
    rng = np.random.default_rng(0)
    return jnp.asarray(np.eye(c)[rng.integers(c, size=n)]), rng


def test_gradients_have_balanced_rows_with_all_digits():
    """Where a class is nearly sure, the entry of the right one is the sum of the others, not 1 - p."""
    Y = jnp.asarray([[1.0, 0.0, 0.0]])
    F = jnp.asarray([[60.0, 0.0, 1.0]])
    R = -SoftmaxCrossEntropy().grad(F, Y)
    small = np.exp(-60.0) * (1 + np.e)  # to relative 1e-26
    np.testing.assert_allclose(R[0, 0], small, rtol=1e-14)
    assert float(jnp.sum(R)) == 0


def test_balanced_rows_keep_the_other_classes():
    Y, rng = one_hot(6, 4)
    R = jnp.asarray(rng.standard_normal((6, 4)))
    B = balanced_rows(R, Y)
    np.testing.assert_allclose(jnp.sum(B, axis=1), 0, atol=1e-15)
    np.testing.assert_array_equal(jnp.where(Y > 0, 0, B), jnp.where(Y > 0, 0, R))


def test_other_classes_say_what_the_domain_is():
    Y, rng = one_hot(6, 4)
    R = Y - jnp.asarray(rng.dirichlet(np.ones(4), 6))
    other, missed, inside = other_classes(R, Y)
    assert bool(inside)
    np.testing.assert_allclose(missed[:, 0], jnp.sum(R * Y, axis=1), rtol=1e-14)
    np.testing.assert_allclose(other, jnp.where(Y > 0, 0, -R), rtol=1e-15)
    for bad in (R.at[0].add(0.01), -R):  # rows that do not sum to zero; a class pushed the wrong way
        assert not bool(other_classes(bad, Y)[2])
