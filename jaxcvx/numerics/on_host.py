"""Arrays and random keys made on the host, where jax would compile a small program for each of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxcvx.numerics.trees import is_traced

_IMPL = "threefry2x32"


def on_device(tree: Any) -> Any:
    """The tree with its numpy arrays as jax arrays. ``jnp.asarray`` compiles a program for every shape."""
    return jax.tree.map(lambda a: a if isinstance(a, jax.Array) else jax.device_put(np.asarray(a)), tree)


def key_of(seed: int) -> PRNGKeyArray:
    """``jax.random.key(seed)`` of jax's default kind of key, for 0 <= seed < 2**32."""
    words: Any = np.array([0, seed], np.uint32)
    return jax.random.wrap_key_data(words, impl=_IMPL)


def split_keys(key: PRNGKeyArray, num: int) -> PRNGKeyArray:
    """``num`` independent keys, as one array of keys. They are others than those of ``jax.random.split``.

    A traced key, and a key that is no typed one, is split by jax.
    """
    if is_traced(key) or not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.split(key, num)
    words = np.asarray(jax.random.key_data(key))
    drawn: Any = np.random.default_rng(words.ravel().tolist()).integers(2**32, size=(num, words.size), dtype=np.uint32)
    return jax.random.wrap_key_data(drawn, impl=jax.random.key_impl(key))


def list_of_keys(key: PRNGKeyArray, num: int) -> list[PRNGKeyArray]:
    """The keys of :func:`split_keys`, one by one. A key may be used by one of the two functions only."""
    keys = split_keys(key, num)
    if is_traced(key) or not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        return list(keys)
    words, impl = np.asarray(jax.random.key_data(keys)), jax.random.key_impl(key)
    return [jax.random.wrap_key_data(each, impl=impl) for each in words]
