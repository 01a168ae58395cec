"""Every case on eight simulated devices and on one: the differences, as JSON lines. Run it in its own process.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m tests.sharding.run_sharded
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.sharding.cases import ITERATIONS, OPERATIONS, Case

# Mesh shape, and the mesh axis that each kind of array axis is split over.
LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, str]]] = {
    "samples": ((8,), {"n": "n"}),
    "cells": ((4, 2), {"P": "n"}),
    "both": ((4, 2), {"n": "n", "P": "cells"}),
}


def make_mesh(shape: tuple[int, ...]) -> Mesh:
    """Devices in a grid whose axes the compiler manages."""
    return jax.make_mesh(shape, ("n", "cells")[: len(shape)], axis_types=(AxisType.Auto,) * len(shape))


def place(args: Any, axes: Any, layout: str) -> Any:
    """The arguments on the mesh, split as the layout says."""
    shape, rules = LAYOUTS[layout]
    mesh = make_mesh(shape)

    def put(array: jax.Array, word: str) -> jax.Array:
        assert len(word) == array.ndim
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*map(rules.get, word))))

    return jax.tree.map(put, args, axes)


def difference(got: Any, expected: Any) -> float:
    """Largest difference between the leaves, relative to the largest entry of each; inf where integers differ."""
    worst = 0.0
    for a, b in zip(map(np.asarray, jax.tree.leaves(got)), map(np.asarray, jax.tree.leaves(expected)), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if not np.issubdtype(b.dtype, np.floating):
            worst = max(worst, 0.0 if np.array_equal(a, b) else float("inf"))
            continue
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=False):
            return float("inf")
        scale = np.abs(b[finite]).max(initial=np.finfo(b.dtype).tiny)
        worst = max(worst, float(np.abs(a - b)[finite].max(initial=0.0) / scale))
    return worst


def compare(case: Case, layout: str, expected: Any) -> dict[str, Any]:
    """Run a case in a layout and say how far it is from the result on one device."""
    placed = place(case.args, case.axes, layout)
    leaves = jax.tree.leaves(placed)
    compiled = jax.jit(case.function).lower(*placed).compile()
    collectives = re.findall(r"\b(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\b", compiled.as_text())
    return {
        "difference": difference(compiled(*placed), expected),
        "devices": min(len(leaf.sharding.device_set) for leaf in leaves),
        "split": sum(not leaf.sharding.is_fully_replicated for leaf in leaves),
        "collectives": len(collectives),
    }


def main() -> None:
    assert jax.device_count() == 8
    only = sys.argv[1:]
    for name, build in (OPERATIONS | ITERATIONS).items():
        if only and name not in only: continue
        for x64 in (True, False):
            with jax.enable_x64(x64):
                t = time.time()
                case = build()
                expected = jax.jit(case.function)(*case.args)
                tim = [time.time() - t]
                for layout, (_, rules) in LAYOUTS.items():
                    if not any(set(rules) & set(word) for word in jax.tree.leaves(case.axes)):
                        continue
                    if layout == "cells" and name in ITERATIONS: continue
                    t = time.time()
                    measured = compare(case, layout, expected)
                    tim.append(time.time() - t)
                    print(json.dumps({"case": name, "x64": x64, "layout": layout, **measured}), flush=True)
                if isinstance(expected, dict): print(int(expected["num_steps"]), int(expected["status"]), expected["objective"], expected["lower_bound"], expected["upper_bound"])
                print([round(x, 1) for x in tim])


if __name__ == "__main__":
    main()
