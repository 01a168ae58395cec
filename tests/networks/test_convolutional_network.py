"""Networks of convolutional features against explicit convolutions, and the functions that act on networks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConvFlatten, ConvPool, InvalidInputError, Network
from jaxcvx.networks.network import zero_network

N, C, M = 3, 2, 4
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, 5, 6, 2))
Y = RNG.standard_normal((N, C))
ARCHITECTURES = [
    ConvPool((2, 3), stride=(1, 2)),
    ConvPool((3, 3), padding="SAME", pool="sum", bias=True),
    ConvFlatten((2, 3), stride=2, skip=True),
    ConvFlatten((3, 3), stride=3, padding="SAME", bias=True, skip=True),
]
EACH = pytest.mark.parametrize("features", ARCHITECTURES, ids=["mean", "sum", "flatten", "flatten-same"])


def network_of(features) -> Network:
    p, q = features.num_weights(*X.shape[1:]), features.readout(*X.shape[1:]).columns(C)
    rng = np.random.default_rng(1)
    skip = rng.standard_normal((p, q)) if features.skip else None
    return Network(rng.standard_normal((M, p)), rng.standard_normal((M, q)), skip, features)


def convolve(features, weights: np.ndarray) -> np.ndarray:
    """Outputs (n, positions, filters) of XLA's convolution with filters (m, p), bias included."""
    h = np.prod(features.filter_shape) * X.shape[-1]
    kernel = weights[:, :h].T.reshape(*features.filter_shape, X.shape[-1], -1)
    out = jax.lax.conv_general_dilated(
        jnp.asarray(X), jnp.asarray(kernel), features.stride, features.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return np.asarray(out).reshape(len(X), -1, len(weights)) + (weights[:, h:].sum(1) if features.bias else 0)


def read(features, activations: np.ndarray, output: np.ndarray) -> np.ndarray:
    if isinstance(features, ConvPool):
        pooled = activations.mean(1) if features.pool == "mean" else activations.sum(1)
        return pooled @ output
    K = activations.shape[1]
    return sum(activations[:, k] @ output[:, k * C : (k + 1) * C] for k in range(K))


@pytest.mark.routine(2)
@EACH
def test_against_an_explicit_convolution(features):
    network = network_of(features)
    expected = read(features, np.maximum(convolve(features, network.hidden), 0), network.output)
    if features.skip:
        K = features.readout(*X.shape[1:]).positions
        for k in range(C):
            linear = convolve(features, network.skip[:, k::C].T)  # (n, K, K): only position k by column k
            expected[:, k] += np.einsum("nkk->n", linear.reshape(N, K, K))
    np.testing.assert_allclose(network(X), expected, atol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda net, X: net(X))(network, X), expected, atol=1e-12)


@pytest.mark.routine(2)
@EACH
def test_objective_zero_network_and_merging(features):
    network = network_of(features)
    F = np.asarray(network(X))
    value = 0.5 * ((F - Y) ** 2).sum() + 0.15 * ((network.hidden**2).sum() + (network.output**2).sum())
    if features.skip:
        value += 0.3 * np.linalg.norm(network.skip)
    assert float(jaxcvx.training_objective(network, X, Y, 0.3)) == pytest.approx(value, rel=1e-12)
    problem = jaxcvx.make_problem(X, Y, 0.3, features=features)
    zero = zero_network(problem, 2)
    assert zero.output.shape == (2, network.output.shape[1]) == (2, problem.num_columns)
    np.testing.assert_array_equal(zero(X), np.zeros((N, C)))
    doubled = dataclasses.replace(
        network, hidden=np.tile(network.hidden, (2, 1)), output=np.tile(network.output / 2, (2, 1))
    )
    merged = jaxcvx.merge_parallel(doubled)
    assert merged.width == M
    np.testing.assert_allclose(merged(X), F, atol=1e-12)


def test_cells_of_a_network():
    network = network_of(ARCHITECTURES[0])
    cells = jaxcvx.arrangements_of(network, X)
    np.testing.assert_array_equal(cells.masks, network.hidden @ network.features.matrix(X).T >= 0)
    traced = jax.jit(jaxcvx.arrangements_of)(network, X)
    np.testing.assert_array_equal(traced.masks, cells.masks)


def test_network_and_data_of_different_shapes_are_refused():
    network = network_of(ARCHITECTURES[2])
    with pytest.raises(InvalidInputError, match=r"^X: got shape \(3, 5, 6, 1\), expected .* length 12"):
        jaxcvx.training_objective(network, X[..., :1], Y, 0.3)
    narrow = dataclasses.replace(network, output=network.output[:, :6], skip=None)
    with pytest.raises(InvalidInputError, match="^X: got 4 positions, expected a divisor of 6"):
        jaxcvx.training_objective(narrow, X, Y, 0.3)
    with pytest.raises(InvalidInputError, match="^Y: got 1 outputs, expected 2"):
        jaxcvx.training_objective(network, X, Y[:, :1], 0.3)
