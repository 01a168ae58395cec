"""Outputs of a frozen flax module, or of any callable, over data of any size."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid, require_extra
from jaxcvx.numerics.validation import as_real_matrix

require_extra("flax", "flax")

from flax import nnx  # noqa: E402


def extract_features(model: Any, inputs: Any, *, batch_size: int = 256) -> Float[Array, "n d"]:
    """Features of all inputs, batch by batch.

    An ``nnx.Module`` is run compiled, as a copy in evaluation mode (no dropout, running averages), so neither its modes
    nor its state change. Another callable, such as a method, is called as it is.

    Args:
      model: from inputs (m, ...) to features (m, d), for any m up to the batch size.
      inputs: (n, ...) array.
      batch_size: inputs at a time.

    Raises:
      InvalidTypeError: a model that cannot be called, or outputs that are not numbers.
      InvalidInputError: no inputs, a bad batch size, or outputs that are not finite, not of two axes, or not one
        row per input.
    """
    return as_real_matrix("model's outputs", run_in_batches(model, inputs, batch_size))


def run_in_batches(model: Any, inputs: Any, batch_size: int) -> np.ndarray:
    """What :func:`extract_features` does, but for the test that outputs are finite."""
    if not callable(model):
        raise InvalidTypeError(f"model: got {type(model).__name__}, expected an nnx.Module or a callable.")
    check_count("batch_size", batch_size)
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs)
    if inputs.ndim == 0 or inputs.shape[0] == 0:
        raise invalid("inputs", f"shape {inputs.shape}", "at least one sample")
    n = inputs.shape[0]
    apply, padded = model, False
    if isinstance(model, nnx.Module):
        frozen = nnx.merge(*nnx.split(model))
        frozen.eval()
        apply, padded = functools.partial(_apply, *nnx.split(frozen)), n > batch_size
    outputs = []
    for start in range(0, n, batch_size):
        batch = inputs[start : start + batch_size]
        rows = len(batch)
        if padded and rows < batch_size:  # so that one program does
            fill = jnp.broadcast_to(batch[-1:], (batch_size - rows, *batch.shape[1:]))
            batch = jnp.concatenate([batch, fill])
        output = apply(batch)
        shape = jnp.shape(output)
        if len(shape) != 2 or shape[0] != len(batch):
            raise invalid("model", f"outputs of shape {shape}", f"({len(batch)}, d) for {len(batch)} inputs")
        outputs.append(np.asarray(output[:rows]))
    return np.concatenate(outputs)


@functools.partial(jax.jit, static_argnums=0)
def _apply(graph: Any, state: Any, batch: Any) -> Any:
    return nnx.merge(graph, state)(batch)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is not an integer of at least ``least``.

    Raises:
      InvalidInputError: naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise invalid(name, repr(value), f"an integer >= {least}")
