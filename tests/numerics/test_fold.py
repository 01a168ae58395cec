"""Loops over marked places against a plain loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.numerics.fold import fold_marked


@pytest.mark.routine(2)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("size", [1, 3, 20])
def test_every_marked_place_is_visited_once_and_no_other(size, share):
    marks = np.random.default_rng(size).random(11) < share

    @jax.jit
    def visits(marks):
        def body(counts, index):
            assert index.shape == (size,)
            return counts.at[index].add(1, mode="drop")

        return fold_marked(marks, size, body, jnp.zeros(11, int))

    np.testing.assert_array_equal(visits(jnp.asarray(marks)), marks)


def test_lists_are_gone_through_side_by_side():
    marks = np.random.default_rng(0).random((3, 11)) < [[0.0], [0.3], [0.9]]

    def body(counts, index):
        return jax.vmap(lambda row, places: row.at[places].add(1, mode="drop"))(counts, index)

    found = jax.jit(lambda m: fold_marked(m, 4, body, jnp.zeros((3, 11), int)))(jnp.asarray(marks))
    np.testing.assert_array_equal(found, marks)
