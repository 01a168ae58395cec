"""Targets: shapes and values that each kind of loss takes, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.losses.entrywise import resolve_loss
from jaxcvx.losses.targets import as_targets


def targets(loss, Y, n=3, **options):
    return as_targets(resolve_loss(loss), Y, n, jnp.float32, **options)


def test_reals_become_a_column():
    Y = targets("squared", [1, 2, 3])
    assert Y.shape == (3, 1) and Y.dtype == jnp.float32
    assert targets("huber", np.ones((3, 2))).shape == (3, 2)


@pytest.mark.parametrize("given", [[0, 1, 1], [-1, 1, 1], [False, True, True]])
def test_signs_from_both_codings(given):
    np.testing.assert_array_equal(targets("logistic", given), [[-1.0], [1.0], [1.0]])


def test_labels_become_one_hot():
    np.testing.assert_array_equal(targets("softmax", [0, 2, 1]), np.eye(3)[[0, 2, 1]])
    assert targets("softmax", [0, 0, 1], num_classes=4).shape == (3, 4)
    np.testing.assert_array_equal(targets("softmax", np.eye(3)), np.eye(3))
    assert targets("softmax", [0, 0, 0]).shape == (3, 2)  # one class has two outputs


@pytest.mark.parametrize(
    ("loss", "given", "words"),
    [
        ("squared", [1.0, 2.0], "^Y: got 2 rows"),
        ("squared", np.ones((3, 1, 1)), "^Y: got shape"),
        ("squared", [1.0, np.nan, 2.0], "^Y"),
        ("logistic", [0, 1, 2], "^Y: got values"),
        ("softmax", [0.5, 1, 2], "^Y: got label 0.5"),
        ("softmax", [-1, 0, 1], "^Y: got label -1"),
        ("softmax", [0, 1, 10**6], "^Y: got label"),
        ("softmax", np.ones((3, 2)), "^Y: got a matrix that is not one-hot"),
    ],
)
def test_refusals(loss, given, words):
    with pytest.raises(InvalidInputError, match=words):
        targets(loss, given)


def test_a_label_beyond_the_given_classes_is_refused():
    with pytest.raises(InvalidInputError, match="labels below 2"):
        targets("softmax", [0, 1, 2], num_classes=2)


def test_ragged_lists_are_a_wrong_type():
    with pytest.raises(InvalidTypeError, match="^Y: got list"):
        targets("squared", [[1.0], [1.0, 2.0], [1.0]])


def test_labels_cannot_be_counted_inside_jit():
    with pytest.raises(InvalidInputError, match="one-hot rows"):
        jax.jit(lambda Y: targets("softmax", Y))(jnp.array([0, 1, 2]))
    np.testing.assert_array_equal(jax.jit(lambda Y: targets("softmax", Y))(jnp.eye(3)), np.eye(3))
