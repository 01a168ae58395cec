"""Restricted filters, and the cells of convolutions: their number depends on the patches' rank alone."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConvFlatten, ConvPool, Dense, InvalidInputError
from jaxcvx.errors import InvalidTypeError


def images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, *shape))


def counted(num_rows: int, rank: int) -> int:
    return 2 * sum(math.comb(num_rows - 1, k) for k in range(rank))


def test_the_basis_is_the_best_of_its_rank():
    X = images(5, 4, 4)
    features = jaxcvx.restrict_filters(ConvFlatten((2, 2), stride=2), X, 2)
    Z = ConvFlatten((2, 2), stride=2).matrix(X)
    basis = np.asarray(features.basis)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-14)
    lost = np.linalg.norm(Z - features.matrix(X) @ basis.T)
    assert lost == pytest.approx(np.linalg.norm(np.linalg.svd(Z)[1][2:]), rel=1e-12)
    assert features.stride == (2, 2) and isinstance(features, ConvFlatten)


@pytest.mark.routine(2)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [ConvPool, ConvFlatten])
def test_cells_depend_on_rows_and_rank_only(channels, kind):
    X = images(4, 4, 5, channels)
    for rank in (1, 2, 3):
        features = jaxcvx.restrict_filters(kind((2, 2), stride=(2, 3)), X, rank)
        cells = jaxcvx.enumerate_arrangements(X, features=features)
        rows = 16 if rank > 1 else 1  # all rows are parallel in one dimension
        assert cells.num_cells == counted(rows, rank) and cells.complete
        assert cells.masks.shape[1] == 16 and cells.gates.shape[1] == rank


def test_zero_and_repeated_patches_add_no_cells():
    X = np.zeros((3, 6))
    X[:, 3:] = images(3, 3)  # patches of length 2 at stride 2: zero, (0, a), (b, c)
    X[2] = 2 * X[1]
    cells = jaxcvx.enumerate_arrangements(X, features=ConvPool(2, stride=2))
    assert cells.num_cells == counted(3, 2)  # the three (0, a) are parallel, and two of the (b, c)
    assert np.asarray(cells.masks)[:, 0::3].all()


def test_masks_are_the_filters_signs():
    X = images(3, 4, 4)
    features = ConvPool((2, 2), bias=True)
    for method in ("gaussian", "data", "conv"):
        cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 200, method=method, features=features)
        Z = features.matrix(X)
        np.testing.assert_array_equal(cells.masks, np.asarray(cells.gates) @ Z.T >= 0)
        assert cells.masks.shape[1] == 27 and cells.num_cells > 50 and not cells.complete


def test_conv_gates_answer_to_contrast():
    X = 5 + images(6, 5, 5)  # bright: most directions switch all patches together
    features = ConvPool((2, 2))
    found = {
        method: jaxcvx.sample_arrangements(jax.random.key(1), X, 200, method=method, features=features)
        for method in ("gaussian", "conv")
    }
    assert found["conv"].num_cells > 1.5 * found["gaussian"].num_cells
    share = np.asarray(found["conv"].masks).mean(axis=1)
    assert np.median(np.abs(share - 0.5)) < 0.15


def test_conv_method_on_dense_and_degenerate_rows():
    X = np.outer([1.0, 2.0, 0.0], [1.0, 1.0])  # all rows along the mean
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 20, method="conv", features=Dense())
    assert cells.num_cells == 2


def test_bad_input():
    X = images(3, 4, 4)
    for rank in (0, 5, 2.0, True):
        with pytest.raises(InvalidInputError, match="^rank: .*1 to 4"):
            jaxcvx.restrict_filters(ConvPool((2, 2)), X, rank)
    with pytest.raises(InvalidTypeError, match="^features: got Dense"):
        jaxcvx.restrict_filters(Dense(), X, 2)
    for X in (np.zeros((3, 4)), np.zeros((3, 1, 4)), np.full((3, 4, 4), np.nan)):
        with pytest.raises(InvalidInputError, match="^X: "):
            jaxcvx.enumerate_arrangements(X, features=ConvPool((2, 2)))
