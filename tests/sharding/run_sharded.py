r"""Every case on eight simulated devices and on one: the differences, as JSON lines. Run it in its own process.

XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \
  python -m tests.sharding.run_sharded [CASE ...] [float64]
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tests.sharding.cases import ITERATIONS, OPERATIONS, Case

# Mesh shape of the eight devices, and the mesh axis that each kind of array axis is split over.
LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, str]]] = {
    "samples": ((8,), {"n": "n"}),
    "cells": ((4, 2), {"P": "n"}),  # and copied along the mesh's other axis
    "both": ((4, 2), {"n": "n", "P": "cells"}),
}

_COLLECTIVE = re.compile(r"\b(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\b")


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
        worst = max(worst, float(np.abs(a[finite] - b[finite]).max(initial=0.0) / scale))
    return worst


def fast_options() -> dict[str, Any] | None:
    """Options that halve the time of compilation, if this version of XLA knows them."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return None
    return options


def layouts_of(name: str, case: Case, x64: bool) -> list[str]:
    """The layouts that split something: all for operations in float64; else one, as compilation takes long."""
    words = "".join(jax.tree.leaves(case.axes))
    able = [layout for layout, (_, rules) in LAYOUTS.items() if set(rules) <= set(words)]
    if name in OPERATIONS and x64:
        return able
    return able[:1] if x64 else able[-1:]


def compare(case: Case, layout: str, expected: Any, options: dict[str, Any] | None) -> dict[str, Any]:
    """Run a case in a layout and say how far it is from the result on one device."""
    placed = place(case.args, case.axes, layout)
    leaves = jax.tree.leaves(placed)
    compiled = jax.jit(case.function, compiler_options=options).lower(*placed).compile()
    got, params = compiled(*placed), 0.0
    if isinstance(expected, dict):  # of a solve: its params apart
        params = difference(got["params"], expected["params"])
        got, expected = ({**report, "params": ()} for report in (got, expected))
    return {
        "difference": difference(got, expected),
        "params_difference": params,
        "devices": min(len(leaf.sharding.device_set) for leaf in leaves),
        "split": sum(not leaf.sharding.is_fully_replicated for leaf in leaves),
        "collectives": len(_COLLECTIVE.findall(compiled.as_text())),
    }


def main() -> None:
    assert jax.device_count() == 8
    options = fast_options()
    cases = OPERATIONS | ITERATIONS
    precisions = [word for word in sys.argv[1:] if word.startswith("float")] or ["float64", "float32"]
    for name in [word for word in sys.argv[1:] if word not in precisions] or cases:
        for x64 in (word == "float64" for word in precisions):
            with jax.enable_x64(x64):
                case = cases[name]()
                expected = jax.jit(case.function, compiler_options=options)(*case.args)
                for layout in layouts_of(name, case, x64):
                    record = compare(case, layout, expected, options)
                    print(json.dumps({"case": name, "x64": x64, "layout": layout, **record}), flush=True)


if __name__ == "__main__":
    main()
