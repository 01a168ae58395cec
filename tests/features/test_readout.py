"""Readouts against loops over samples and positions, and the operator built on them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.features.readout import Readout
from jaxcvx.operators.cells import CellOperator

N, K, C, P, D = 5, 3, 2, 7, 4
READOUTS = [Readout(), Readout("pool", K, 1 / K), Readout("pool", K), Readout("flatten", K)]
EACH = pytest.mark.parametrize("readout", READOUTS, ids=["plain", "mean", "sum", "flatten"])


def rows_of(readout: Readout) -> int:
    return N * readout.positions


@pytest.mark.routine(2)
@EACH
def test_lower_sums_the_positions_of_each_sample(readout):
    A = np.random.default_rng(0).standard_normal((rows_of(readout), readout.columns(C)))
    expected = np.zeros((N, C))
    for i in range(N):
        for k in range(readout.positions):
            row = A[i * readout.positions + k]
            block = row[k * C : (k + 1) * C] if readout.kind == "flatten" else row
            expected[i] += readout.weight * block
    np.testing.assert_allclose(readout.lower(jnp.asarray(A)), expected, atol=1e-14)
    assert readout.outputs(readout.columns(C)) == C


@pytest.mark.routine(2)
@EACH
def test_one_column_goes_to_one_output(readout):
    rng, q = np.random.default_rng(3), readout.columns(C)
    activations = jnp.asarray(rng.standard_normal((rows_of(readout), q)))
    found = readout.lower_column(activations, jnp.arange(q) // C)
    for column in range(q):
        alone = readout.lower(jnp.zeros_like(activations).at[:, column].set(activations[:, column]))
        np.testing.assert_allclose(found[:, column], alone[:, column % C], atol=1e-14)
        assert not np.any(np.delete(np.asarray(alone), column % C, axis=1))


@pytest.mark.routine(2)
@EACH
def test_lift_is_the_adjoint(readout):
    rng = np.random.default_rng(1)
    A = jnp.asarray(rng.standard_normal((rows_of(readout), readout.columns(C))))
    R = jnp.asarray(rng.standard_normal((N, C)))
    assert float(jnp.sum(readout.lower(A) * R)) == pytest.approx(float(jnp.sum(A * readout.lift(R))))


@pytest.mark.routine(2)
@EACH
def test_operator_adjoint_and_gram(readout):
    rng = np.random.default_rng(2)
    Z = jnp.asarray(rng.standard_normal((rows_of(readout), D)))
    masks = jnp.asarray(rng.random((P, rows_of(readout))) < 0.5)
    operator = CellOperator(Z, masks, readout=readout)
    q = readout.columns(C)
    W, R = jnp.asarray(rng.standard_normal((P, D, q))), jnp.asarray(rng.standard_normal((N, C)))
    blocks = sum(masks[i][:, None] * (Z @ W[i]) for i in range(P))
    np.testing.assert_allclose(operator.forward(W), readout.lower(blocks), atol=1e-12)
    assert float(jnp.sum(operator.forward(W) * R)) == pytest.approx(float(jnp.sum(W * operator.adjoint(R))))
    inner = rng.standard_normal((D, D))
    inner = jnp.asarray(inner + inner.T)
    weights = jnp.asarray(rng.random(P))
    expected = operator.forward(weights[:, None, None] * jnp.einsum("pr,qrc->qpc", inner, operator.adjoint(R)))
    np.testing.assert_allclose(operator.gram(inner, weights) @ R, expected, atol=1e-12)
    np.testing.assert_allclose(operator.gram() @ R, operator.forward(operator.adjoint(R)), atol=1e-12)
    top = np.linalg.eigvalsh(np.asarray(operator.gram()))[-1]
    assert float(operator.max_curvature(500)) == pytest.approx(top, rel=1e-6)
    np.testing.assert_allclose(jnp.sum(operator.each_block(W), axis=1), operator.forward(W), atol=1e-12)
    only = operator.forward(W * (jnp.arange(P) == 2)[:, None, None])
    np.testing.assert_allclose(operator.each_block(W)[:, 2], only, atol=1e-12)


@pytest.mark.routine(2)
@EACH
def test_apply_and_price_are_lower_and_lift_with_activations(readout):
    rng = np.random.default_rng(3)
    H = jnp.asarray(rng.standard_normal((rows_of(readout), 6)))
    V = jnp.asarray(rng.standard_normal((6, readout.columns(C))))
    R = jnp.asarray(rng.standard_normal((N, C)))
    np.testing.assert_allclose(readout.apply(H, V), readout.lower(H @ V), atol=1e-13)
    np.testing.assert_allclose(readout.price(H, R), H.T @ readout.lift(R), atol=1e-13)


@pytest.mark.routine(2)
@EACH
def test_gain(readout):
    rng = np.random.default_rng(4)
    Z = rng.standard_normal((rows_of(readout), D))
    W = rng.standard_normal((D, readout.columns(C)))
    bound = readout.gain * np.sum(Z**2) * np.sum(W**2)
    assert 0 < np.sum(np.asarray(readout.lower(jnp.asarray(Z @ W))) ** 2) <= bound
    one, w = np.ones((readout.positions, 1)), np.ones((1, readout.columns(1)))  # one sample, equal patches
    reached = float(readout.lower(jnp.asarray(one @ w))[0, 0]) ** 2
    assert reached == pytest.approx(readout.gain * one.size * w.size)
