"""Convolutional features: rows, shapes, readouts, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxcvx import ConvFlatten, ConvPool, Features, InvalidInputError
from jaxcvx.features.patches import extract_patches
from jaxcvx.features.readout import Readout

BOTH = pytest.mark.parametrize("kind", [ConvPool, ConvFlatten])
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((3, 4, 5, 2))


@BOTH
def test_rows_weights_and_positions(kind):
    features = kind((2, 3), stride=(2, 1))
    Z = features.matrix(IMAGES)
    np.testing.assert_array_equal(Z, extract_patches(IMAGES, (2, 3), (2, 1), "VALID"))
    assert features.num_weights(4, 5, 2) == Z.shape[1] == 12
    assert features.readout(4, 5, 2).positions == len(Z) // 3 == 6
    assert isinstance(features, Features) and not features.bias and not features.skip


def test_readouts():
    assert ConvPool((2, 2)).readout(4, 5, 2) == Readout("pool", 12, 1 / 12)
    assert ConvPool((2, 2), pool="sum").readout(4, 5) == Readout("pool", 12, 1.0)
    assert ConvFlatten(2, padding="SAME").readout(5) == Readout("flatten", 5)


@BOTH
def test_the_axis_of_channels_may_be_left_out(kind):
    np.testing.assert_array_equal(kind((2, 2)).matrix(IMAGES[..., 0]), kind((2, 2)).matrix(IMAGES[..., :1]))
    signals = IMAGES[:, :, :, 0]  # (n, H, W) for a filter of two sizes, (n, L, channels) for one
    assert kind(3).matrix(signals).shape == (3 * 2, 15)
    np.testing.assert_array_equal(kind(3).matrix(signals[..., 0]), kind((3,)).matrix(signals[..., :1]))


@BOTH
def test_bias_and_basis(kind):
    basis = np.linalg.qr(RNG.standard_normal((8, 3)))[0]
    features = kind((2, 2), bias=True, basis=basis)
    Z = kind((2, 2)).matrix(IMAGES)
    expected = np.concatenate([Z @ basis, np.ones((len(Z), 1))], axis=1)
    np.testing.assert_allclose(features.matrix(IMAGES), expected, atol=1e-14)
    np.testing.assert_allclose(jax.jit(features.matrix)(IMAGES), expected, atol=1e-12)
    assert features.num_weights(4, 5, 2) == 4
    assert features == kind((2, 2), bias=True, basis=tuple(map(tuple, basis.tolist())))
    assert hash(features) != hash(dataclasses.replace(features, basis=None))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"filter_shape": (2, 0)}, r"^features.filter_shape: got \(2, 0\)"),
        ({"filter_shape": (2, 2, 2)}, "^features.filter_shape"),
        ({"filter_shape": 2.0}, "^features.filter_shape: got 2.0"),
        ({"filter_shape": (2, 2), "stride": (1, 1, 1)}, "^features.stride"),
        ({"filter_shape": (2, 2), "stride": 0}, "^features.stride: got 0"),
        ({"filter_shape": (2, 2), "padding": "same"}, "^features.padding: got 'same'"),
        ({"filter_shape": (2, 2), "pool": "max"}, "^features.pool: got 'max'"),
        ({"filter_shape": 2, "basis": [[1.0], [1.0]]}, "^features.basis: .*orthonormal"),
        ({"filter_shape": 2, "basis": "identity"}, "^features.basis"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(InvalidInputError, match=match):
        ConvPool(**arguments)


@pytest.mark.routine(2)
@BOTH
@pytest.mark.parametrize(
    ("features", "shape", "match"),
    [
        ({"filter_shape": (5, 2)}, (4, 5, 2), r"spatial shape \(4, 5\)"),
        ({"filter_shape": (2, 2)}, (4,), "2 axes"),
        ({"filter_shape": 2, "basis": np.eye(4)[:, :2]}, (5, 3), "patches of 6 entries, expected 4"),
    ],
)
def test_inputs_that_do_not_fit_name_X(kind, features, shape, match):
    for use in (lambda f: f.num_weights(*shape), lambda f: f.matrix(np.zeros((2, *shape)))):
        with pytest.raises(InvalidInputError, match="^X: got .*" + match):
            use(kind(**features))
