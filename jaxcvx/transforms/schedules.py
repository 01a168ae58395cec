"""Schedules that change from epoch to epoch, and radii for groups of leaves."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import invalid, wrong_type

Schedule = Callable[[Any], Any]  # step count -> value
Radius = float | Schedule | Mapping[str, float | Schedule]


def epochwise_geometric(init: float, decay: float, epoch_len: int) -> Schedule:
    """The schedule ``init * decay**s``, where ``s = count // epoch_len`` is the number of the epoch.

    Args:
      init: value in the first epoch.
      decay: factor from one epoch to the next.
      epoch_len: number of steps of an epoch.

    Raises:
      InvalidInputError: a number is negative or not finite, or ``epoch_len`` is not a positive integer.

    >>> import jaxcvx
    >>> schedule = jaxcvx.epochwise_geometric(8.0, 0.5, epoch_len=10)
    >>> [float(schedule(count)) for count in (0, 9, 10, 20)]
    [8.0, 8.0, 4.0, 2.0]
    """
    if not (isinstance(epoch_len, int) and epoch_len >= 1):
        raise invalid("epoch_len", epoch_len, "a positive integer")
    for name, value in (("init", init), ("decay", decay)):
        if not 0 <= value < float("inf"):
            raise invalid(name, value, "a finite number >= 0")
    return lambda count: init * decay ** jnp.asarray(count // epoch_len, jnp.result_type(float))


def outermost_names(params: Any) -> Any:
    """A pytree that holds for each leaf its outermost name (or index, as a string): "w" for ``{"w": ...}``."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path[0]) if path else "", params)


def _name(entry: Any) -> str:
    return str(next(getattr(entry, a) for a in ("name", "key", "idx") if hasattr(entry, a)))


def radius_tree(radius: Radius, labels: Any, params: Any, count: Any) -> Any:
    """The radius of every leaf at step ``count``, as a pytree like ``params``.

    Args:
      radius: a number, a schedule, or a mapping from labels to those.
      labels: a pytree of strings like ``params`` (or a prefix of it), or a function that returns it for params. None
        for :func:`outermost_names`.
      params: the pytree.
      count: number of steps so far.

    Raises:
      InvalidInputError: a label has no radius.
    """

    def at(value: Any) -> Any:
        return value(count) if callable(value) else value

    if not isinstance(radius, Mapping):
        return jax.tree.map(lambda leaf: at(radius), params)
    if labels is None:
        labels, radius = outermost_names, {str(name): value for name, value in radius.items()}  # 0 and "0" are the same
    names = labels(params) if callable(labels) else labels
    names = jax.tree.map(lambda name, part: jax.tree.map(lambda _: name, part), names, params)
    missing = {name for name in jax.tree.leaves(names) if name not in radius}
    if missing:
        raise invalid("radius", f"radii for {sorted(radius)}", f"one for each label, also {sorted(missing)}")
    return jax.tree.map(lambda name: at(radius[name]), names)


def check_radius(radius: Any, name: str = "radius") -> None:
    """Raise unless ``radius`` is a finite number >= 0, a schedule, or a mapping to those.

    Raises:
      InvalidInputError: a number is negative or not finite.
      InvalidTypeError: the radius has another type.
    """
    for value in radius.values() if isinstance(radius, Mapping) else (radius,):
        if callable(value) or isinstance(value, jax.core.Tracer):
            continue
        if not isinstance(value, numbers.Real) and getattr(value, "shape", None) != ():
            raise wrong_type(name, value, "a number, a schedule or a dict of those")
        if not 0 <= float(value) < float("inf"):
            raise invalid(name, value, "a finite number >= 0")
