"""Arrays and keys of the host: the same values and types as jax makes, and nothing is compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.cli.phases import Compilations
from jaxcvx.numerics.on_host import key_of, list_of_keys, on_device, split_keys


def words(key):
    return np.asarray(jax.random.key_data(key))


def test_arrays_keep_their_values_and_types_and_jax_arrays_stay():
    there = jnp.arange(3)
    made = on_device({"a": np.ones((2, 7)), "b": np.arange(4, dtype=np.int32), "c": there})
    assert made["c"] is there and all(isinstance(a, jax.Array) for a in made.values())
    assert made["a"].dtype == jnp.zeros(1).dtype and made["b"].dtype == jnp.int32
    np.testing.assert_array_equal(made["b"], np.arange(4))


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_keys_of_seeds_are_those_of_jax(seed):
    np.testing.assert_array_equal(words(key_of(seed)), words(jax.random.key(seed, impl="threefry2x32")))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_new_ones_determined_by_the_given_one(impl):
    key = jax.random.key(7, impl=impl)
    many, listed = split_keys(key, 100), list_of_keys(key, 100)
    assert many.shape == (100,) and jax.random.key_impl(many) == jax.random.key_impl(key)
    np.testing.assert_array_equal(words(many), np.stack([words(each) for each in listed]))
    assert len(np.unique(words(many), axis=0)) == 100
    other = split_keys(jax.random.key(8, impl=impl), 100)
    assert not (words(other) == words(many)).all(axis=1).any()
    draws = jax.vmap(jax.random.normal)(many)
    assert abs(float(draws.mean())) < 0.5 and 0.6 < float(draws.std()) < 1.4


def test_traced_and_old_keys_are_split_by_jax():
    inside = jax.jit(lambda key: jax.random.key_data(split_keys(key, 3)))(jax.random.key(1))
    np.testing.assert_array_equal(inside, words(jax.random.split(jax.random.key(1), 3)))
    old = jax.random.PRNGKey(1)
    np.testing.assert_array_equal(split_keys(old, 2), jax.random.split(old, 2))
    assert len(list_of_keys(old, 2)) == 2


def test_nothing_is_compiled():
    with Compilations() as seen:
        list_of_keys(key_of(3), 5)
        on_device(np.ones((3, 11, 2)))
    assert seen.programs == 0
