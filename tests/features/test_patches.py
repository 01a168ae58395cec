"""Patches against plain loops, and convolutions by patches against XLA's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import InvalidInputError
from jaxcvx.features.patches import extract_patches, output_positions

# spatial shape, filter, stride, padding
CASES = [
    ((5, 6), (2, 3), (1, 1), "VALID"),
    ((5, 6), (3, 3), (2, 1), "VALID"),
    ((5, 6), (3, 2), (1, 2), "SAME"),
    ((5, 6), (1, 4), (3, 3), "SAME"),
    ((7,), (3,), (2,), "VALID"),
    ((7,), (4,), (3,), "SAME"),
]
EACH = pytest.mark.parametrize(("space", "filter_shape", "stride", "padding"), CASES)


@pytest.mark.routine(2)
@EACH
def test_against_xla_convolution(space, filter_shape, stride, padding):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3, *space, 2))
    filters = rng.standard_normal((*filter_shape, 2, 4))
    layout = ("NHWC", "HWIO", "NHWC") if len(space) == 2 else ("NWC", "WIO", "NWC")
    expected = jax.lax.conv_general_dilated(
        jnp.asarray(X), jnp.asarray(filters), stride, padding, dimension_numbers=layout
    )
    Z = extract_patches(X, filter_shape, stride, padding)
    np.testing.assert_allclose(Z @ filters.reshape(-1, 4), expected.reshape(-1, 4), atol=1e-12)
    assert expected.shape[1:-1] == output_positions(space, filter_shape, stride, padding)


@pytest.mark.routine(2)
@EACH
def test_numpy_and_jax_agree_bit_for_bit(space, filter_shape, stride, padding):
    X = np.random.default_rng(1).standard_normal((3, *space, 2)).astype(np.float32)
    host = extract_patches(X, filter_shape, stride, padding)
    made = jax.jit(lambda X: extract_patches(X, filter_shape, stride, padding))(X)
    assert isinstance(host, np.ndarray) and host.dtype == made.dtype == np.float32
    np.testing.assert_array_equal(host, made)


def test_order_of_rows_and_entries():
    n, H, W, fh, fw, channels = 2, 4, 5, 2, 3, 2
    X = np.random.default_rng(2).standard_normal((n, H, W, channels))
    Z = extract_patches(X, (fh, fw), (2, 1), "VALID")
    row = 0
    for i in range(n):
        for top in range(0, H - fh + 1, 2):
            for left in range(W - fw + 1):
                np.testing.assert_array_equal(Z[row].reshape(fh, fw, channels), X[i, top : top + fh, left : left + fw])
                row += 1
    assert row == len(Z)


def test_same_padding_is_zeros():
    Z = extract_patches(np.ones((1, 3, 1)), (3,), (1,), "SAME")
    np.testing.assert_array_equal(Z, [[0, 1, 1], [1, 1, 1], [1, 1, 0]])


def test_a_filter_larger_than_the_image():
    with pytest.raises(InvalidInputError, match=r"^X: got spatial shape \(3, 4\), expected .*\(4, 2\)"):
        extract_patches(np.ones((1, 3, 4, 1)), (4, 2), (1, 1), "VALID")
    assert extract_patches(np.ones((1, 3, 4, 1)), (4, 2), (1, 1), "SAME").shape == (12, 8)
