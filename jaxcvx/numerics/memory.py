"""The memory that a compiled program takes and the memory that is available, known before a large allocation."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import NotEnoughMemory

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_MEMINFO = pathlib.Path("/proc/meminfo")


def shapes_of(tree: Any, dtype: Any = None) -> Any:
    """Shapes and dtypes of a pytree's arrays, without allocating any. Floating arrays get ``dtype`` if it is given."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        floating = dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype if floating else leaf.dtype)

    return jax.tree.map(shape, tree)


def tree_bytes(tree: Any) -> int:
    """Bytes of a pytree's arrays. The leaves may be arrays or :func:`shapes_of` arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def program_bytes(program: Any, *args: Any) -> int:
    """Bytes of a jitted function's arguments, results and temporaries. The function is compiled to count them."""
    used = program.lower(*args).compile().memory_analysis()
    return used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes


def available_bytes() -> int | None:
    """Bytes that this process can still allocate, or None if unknown.

    On an accelerator it is the device's memory. On a CPU it is the smaller of what the machine and what its container
    leave free.
    """
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    limits = []
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        limits.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        limits.append(int(limit) - int(used))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(limits) if limits else None


def refuse_beyond(available: int, need: int, task: str) -> None:
    """Raise if a task needs more memory than is available.

    Args:
      available: bytes that are available.
      need: bytes that the task needs.
      task: the subject of the message, such as a solver's name.

    Raises:
      NotEnoughMemory: the message names the remedies.
    """
    if need > available:
        raise NotEnoughMemory(
            f"{task} needs about {need / 2**30:.1f} GiB, more than the {available / 2**30:.1f} GiB available: take "
            "fewer cells, float32 data, a smaller max_bytes in make_problem, or jaxcvx.parallel.solve_streamed, which "
            "reads rows in blocks."
        )
