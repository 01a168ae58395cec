"""How much memory a compiled program takes, and how much there is: asked before anything large is allocated."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from jaxcvx.errors import NotEnoughMemory

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_MEMINFO = pathlib.Path("/proc/meminfo")


def shapes_of(tree: Any, dtype: Any = None) -> Any:
    """Shapes and types of a pytree's arrays, floating ones as ``dtype`` if given: nothing is allocated for them."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        floating = dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype if floating else leaf.dtype)

    return jax.tree.map(shape, tree)


def tree_bytes(tree: Any) -> int:
    """Bytes of a pytree's arrays (or of arrays of these shapes)."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def program_bytes(program: Any, *args: Any) -> int:
    """Bytes of a jitted function's arguments, results and temporaries, as the compiler counts them; compiles it."""
    used = program.lower(*args).compile().memory_analysis()
    return used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes


def available_bytes() -> int | None:
    """Memory that this process can still get: of the device, or of the machine and its container; None if unknown."""
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = []
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return min(found) if found else None


def refuse_beyond(available: int, need: int, what: str) -> None:
    """Raise if a solve needs more than there is.

    Raises:
      NotEnoughMemory: with what helps.
    """
    if need > available:
        raise NotEnoughMemory(
            f"{what} needs about {need / 2**30:.1f} GiB, more than the {available / 2**30:.1f} GiB available: take "
            "fewer cells, float32 data, a smaller max_bytes in make_problem, or jaxcvx.parallel.solve_streamed, which "
            "reads rows in blocks."
        )
