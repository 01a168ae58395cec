"""Questions about pytrees, and dataclasses whose copies skip validation."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxcvx.numerics.trees import all_finite, is_traced, register_validated, tree_norm

leaves = hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), elements=st.floats(-1e3, 1e3))
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner) | st.tuples(inner),
    max_leaves=6,
)


def test_is_traced_separates_tracers_from_arrays():
    seen, concrete = {}, (np.ones(2), jnp.ones(2))

    def record(name):
        def function(x):
            seen[name] = is_traced(x), is_traced(1.0, x), is_traced(*concrete)
            return jnp.sum(x**2)

        return function

    x = jnp.ones((2, 3))
    jax.jit(record("jit"))(x)
    jax.vmap(record("vmap"))(x)
    jax.grad(record("grad"))(x)
    jax.eval_shape(record("shape"), x)
    record("eager")(x)
    assert seen == dict.fromkeys(["jit", "vmap", "grad", "shape"], (True, True, False)) | {"eager": (False,) * 3}
    assert not is_traced() and not is_traced(None, "text", [x])


@settings(deadline=None, max_examples=30)
@given(trees)
def test_trees_of_finite_numbers(tree):
    assert all_finite(tree)
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)] or [np.zeros(0)])
    if flat.size:
        np.testing.assert_allclose(tree_norm(tree), np.linalg.norm(flat), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_all_finite_sees_a_single_nonfinite_entry(bad, dtype):
    tree = {"a": np.arange(3), "b": [np.ones(2), np.array([1, bad, 0], dtype)], "c": True}
    assert not all_finite(tree)
    assert not jax.jit(all_finite)(tree)
    tree["b"][1][1] = 0
    assert all_finite(tree)


def test_integers_keys_and_empty_trees_are_finite():
    for tree in ((), {}, None, [np.array([2**31 - 1])], [True], [np.zeros((0, 3))], [jax.random.key(0)]):
        assert all_finite(tree)


@register_validated
@dataclasses.dataclass(frozen=True, init=False)
class Interval:
    """Two numbers in order; ``closed`` is static."""

    low: Any
    high: Any
    closed: bool = dataclasses.field(metadata={"static": True})

    def __init__(self, low: Any, high: Any, closed: bool = True):
        if not low <= high:
            raise ValueError("low > high")
        self.__dict__.update(low=low, high=high, closed=closed)


def test_a_validated_dataclass_is_a_pytree_of_its_data_fields():
    interval = Interval(jnp.asarray(1.0), jnp.asarray(2.0), closed=False)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(interval)]
    assert paths == [".low", ".high"]
    doubled = jax.tree.map(lambda x: 2 * x, interval)
    assert isinstance(doubled, Interval) and (doubled.low, doubled.high, doubled.closed) == (2, 4, False)
    assert jax.tree.structure(interval) != jax.tree.structure(Interval(1.0, 2.0, closed=True))


def test_unflattening_validates_nothing():
    flipped = jax.tree.map(lambda x: -x, Interval(1.0, 2.0))
    assert (flipped.low, flipped.high) == (-1, -2)
    shapes = jax.eval_shape(lambda x: x, Interval(jnp.asarray(1.0), jnp.asarray(2.0)))
    assert shapes.low.shape == ()
    with pytest.raises(ValueError, match="low > high"):
        Interval(-1.0, -2.0)


def test_validated_dataclasses_pass_through_jit_vmap_and_grad():
    lengths = jax.vmap(lambda x: jax.tree.map(lambda y: x * y, Interval(1.0, 2.0)))(jnp.arange(3.0))
    np.testing.assert_array_equal(lengths.high - lengths.low, np.arange(3.0))
    slope = jax.jit(jax.grad(lambda i: i.high**2 - i.low))(Interval(1.0, 2.0))
    assert (slope.low, slope.high) == (-1, 4)
