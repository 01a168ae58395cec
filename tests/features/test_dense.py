"""Features: the bias column, and what the name resolves to."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Dense, FreeBias, InvalidInputError
from jaxcvx.errors import InvalidTypeError
from jaxcvx.features.dense import resolve_features


def test_without_bias_the_rows_are_the_inputs():
    X = np.arange(6.0).reshape(3, 2)
    assert Dense().matrix(X) is X and Dense(skip=True).matrix(X) is X
    assert Dense().num_weights(2) == Dense(skip=True).num_weights(2) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bias_is_a_last_column_of_ones(dtype):
    X = np.arange(6).reshape(3, 2).astype(dtype)
    expected = np.array([[0, 1, 1], [2, 3, 1], [4, 5, 1]])
    host = Dense(bias=True).matrix(X)
    assert isinstance(host, np.ndarray) and host.dtype == dtype
    np.testing.assert_array_equal(host, expected)
    for made in (Dense(bias=True).matrix(jnp.asarray(X)), jax.jit(Dense(bias=True).matrix)(X)):
        assert isinstance(made, jax.Array) and made.dtype == dtype
        np.testing.assert_array_equal(made, expected)
    assert Dense(bias=True).num_weights(2) == 3


def test_output_biases_are_a_property_of_the_network_only():
    X = np.arange(6.0).reshape(3, 2)
    features = Dense(output_bias=True)
    assert features.matrix(X) is X and features.num_weights(2) == 2
    assert not features.bias and not features.free_bias and not Dense(bias=True).output_bias
    assert features.without_output_bias() == Dense() == Dense().without_output_bias()
    assert Dense(True, True, True).without_output_bias() == Dense(True, True)
    assert FreeBias().output_bias and FreeBias().free_bias and FreeBias().without_output_bias() == FreeBias()


def test_features_are_hashable_and_frozen():
    assert Dense(bias=True) == Dense(True) != Dense() and len({Dense(), Dense(), Dense(skip=True)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Dense().bias = True  # type: ignore[misc]


def test_resolution():
    assert resolve_features("dense") == Dense()
    assert resolve_features(Dense(bias=True)) == Dense(bias=True)
    with pytest.raises(InvalidInputError, match="^features: got 'conv', expected 'dense'"):
        resolve_features("conv")
    with pytest.raises(InvalidTypeError, match="^features: got int"):
        resolve_features(3)
