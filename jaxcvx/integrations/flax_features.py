"""Compute the outputs of a frozen flax module, or of any callable, batch by batch."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid, require_extra, wrong_type
from jaxcvx.numerics.arrays import plain_array
from jaxcvx.numerics.validation import as_real_matrix

require_extra("flax", "flax")

from flax import nnx  # noqa: E402


def extract_features(model: Any, inputs: Any, *, batch_size: int = 256) -> Float[Array, "n d"]:
    """Compute the features of all inputs, batch by batch.

    A compiled copy of an ``nnx.Module`` runs in evaluation mode (no dropout, running averages). Neither the modes nor
    the state of the module change. Any other callable, such as a method, is called directly.

    Args:
      model: function from inputs (m, ...) to features (m, d), for any m up to the batch size.
      inputs: (n, ...) array.
      batch_size: number of inputs at a time.

    Raises:
      InvalidTypeError: the model cannot be called, or its outputs are not numbers.
      InvalidInputError: there are no inputs, the batch size is bad, or the outputs are not finite, do not have two
        axes, or do not have one row per input.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcvx.flax import extract_features
      >>> extract_features(lambda x: 2 * x, jnp.array([[1.0], [2.0], [3.0]]), batch_size=2).tolist()
      [[2.0], [4.0], [6.0]]
    """
    return as_real_matrix("model's outputs", run_in_batches(model, inputs, batch_size))


def run_in_batches(model: Any, inputs: Any, batch_size: int) -> np.ndarray:
    """Compute features as :func:`extract_features` does, without the test for finite outputs."""
    if not callable(model):
        raise wrong_type("model", model, "an nnx.Module or a callable")
    check_count("batch_size", batch_size)
    inputs = inputs if isinstance(inputs, jax.Array) else plain_array("inputs", inputs)
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
        if padded and rows < batch_size:  # equal shapes: one compiled program serves all batches
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
    """Check that ``value`` is an integer of at least ``least``.

    Raises:
      InvalidInputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise invalid(name, repr(value), f"an integer >= {least}")
