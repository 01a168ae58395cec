"""What may be given as a random key."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import wrong_type


def check_key(key: Any) -> None:
    """Raise InvalidTypeError unless ``key`` is a single jax random key, typed or of two 32-bit words, or traced."""
    if isinstance(key, jax.core.Tracer):
        return
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return
        if key.dtype == np.uint32 and key.ndim == 1:
            return
    raise wrong_type("key", key, "one jax random key, such as jax.random.key(0)")
