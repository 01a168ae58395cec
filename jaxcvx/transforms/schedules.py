"""Schedules by epochs, and one radius for each group of leaves."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import InvalidTypeError, invalid

Schedule = Callable[[Any], Any]  # step count -> value
Radius = float | Schedule | Mapping[str, float | Schedule]


def epochwise_geometric(init: float, decay: float, epoch_len: int) -> Schedule:
    """``init * decay**s`` in epoch ``s = count // epoch_len``: constant within an epoch of ``epoch_len`` steps."""
    if not (isinstance(epoch_len, int) and epoch_len >= 1):
        raise invalid("epoch_len", epoch_len, "a positive integer")
    for name, value in (("init", init), ("decay", decay)):
        if not 0 <= value < float("inf"):
            raise invalid(name, value, "a finite number >= 0")
    return lambda count: init * decay ** jnp.asarray(count // epoch_len, jnp.result_type(float))


def outermost_names(params: Any) -> Any:
    """For every leaf the outermost name (or index, as a string) that leads to it: "w" for ``{"w": ...}``."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path[0]) if path else "", params)


def _name(entry: Any) -> str:
    return str(next(getattr(entry, a) for a in ("name", "key", "idx") if hasattr(entry, a)))


def radius_tree(radius: Radius, labels: Any, params: Any, count: Any) -> Any:
    """The radius of every leaf at step ``count``, a pytree like ``params``.

    Args:
      radius: a number, a schedule, or a mapping from labels to those.
      labels: a pytree of strings like ``params`` (or a prefix), a function from params to one, or None for
        :func:`outermost_names`.

    Raises:
      InvalidInputError: a label without a radius.
    """

    def at(value: Any) -> Any:
        return value(count) if callable(value) else value

    if not isinstance(radius, Mapping):
        return jax.tree.map(lambda leaf: at(radius), params)
    if labels is None:
        labels = outermost_names
    names = labels(params) if callable(labels) else labels
    names = jax.tree.map(lambda name, part: jax.tree.map(lambda _: name, part), names, params)
    missing = {name for name in jax.tree.leaves(names) if name not in radius}
    if missing:
        raise invalid("radius", f"radii for {sorted(radius)}", f"one for each label, also {sorted(missing)}")
    return jax.tree.map(lambda name: at(radius[name]), names)


def check_radius(radius: Any, name: str = "radius") -> None:
    """Raise unless ``radius`` is what :func:`radius_tree` takes; numbers must be finite and >= 0."""
    for value in radius.values() if isinstance(radius, Mapping) else (radius,):
        if callable(value) or isinstance(value, jax.core.Tracer):
            continue
        if not isinstance(value, numbers.Real) and getattr(value, "shape", None) != ():
            raise InvalidTypeError(f"{name}: got {value!r}, expected a number, a schedule or a dict of those.")
        if not 0 <= float(value) < float("inf"):
            raise invalid(name, value, "a finite number >= 0")
