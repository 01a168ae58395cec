"""Predicted against measured peak memory, each solve in a process of its own (Linux).

The measured value is the growth of the resident memory during the solve plus the data that are there before. The growth
includes the needs of the compiler. The compiler and numerical libraries reserve some 0.3 GiB. This is measured, but, as
the documentation of ``memory_estimate`` says, not part of the estimate.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.common import device_name, print_table, versions

# solver, (n, d, P, c), dtype, max_bytes
GRID: tuple[tuple[str, tuple[int, int, int, int], str, int], ...] = (
    ("ProximalGradient", (60_000, 100, 256, 1), "float32", 2**30),
    ("ProximalGradient", (60_000, 100, 512, 1), "float64", 2**30),
    ("ProximalGradient", (40_000, 100, 256, 10), "float64", 2**30),
    ("ProximalGradient", (40_000, 100, 256, 10), "float64", 2**27),
    ("ConeADMM", (3000, 10, 200, 1), "float64", 2**30),
    ("ConeADMM", (6000, 20, 100, 3), "float64", 2**30),
    ("GradientDescent", (200_000, 100, 16, 3), "float32", 2**30),
    ("NuclearProximalGradient", (40_000, 60, 128, 4), "float32", 2**30),
)

_CHILD = """
import json, sys
from pathlib import Path
import jax, numpy as np, jaxcvx
kind, (n, d, P, c), dtype, limit = json.loads(sys.argv[1])
jax.config.update("jax_enable_x64", dtype == "float64")
rng = np.random.default_rng(0)

def problem(n, d, P):
    X, Y = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((n, c)).astype(dtype)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, P)
    return jaxcvx.make_problem(X, Y, 1.0, arrangements=cells, max_bytes=limit)

solver = getattr(jaxcvx, kind)(max_steps=20, check_every=10)
key = jax.random.key(0)
jaxcvx.solve(problem(200, 5, 8), solver, key=key)
large = problem(n, d, P)
large = large.replace(beta=0.05 * float(jaxcvx.beta_max(large, "gated")))
estimate = large.memory_estimate(solver)
held = sum(leaf.nbytes for leaf in jax.tree.leaves(large))

def status(name):
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(name))
    return 1024 * int(line.split()[1])

Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = status("VmRSS")
jaxcvx.solve(large, solver, key=key)
print(json.dumps({"estimate": estimate, "measured": status("VmHWM") - before + held, "data": held}))
"""


def run(quick: bool = False, *, grid: Any = None) -> dict[str, Any]:
    """Run every case; ``quick``: only the first."""
    grid = grid or (GRID[:1] if quick else GRID)
    cases = []
    for case in grid:
        command = [sys.executable, "-c", _CHILD, json.dumps(case)]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        solver, size, dtype, limit = case
        row = {"solver": solver, "size": list(size), "dtype": dtype, "max_bytes": limit, **answer}
        cases.append(row | {"ratio": answer["measured"] / answer["estimate"]})
        print(cases[-1], file=sys.stderr, flush=True)
    return {
        "benchmark": "memory",
        "versions": versions("jaxcvx", "jax", "jaxlib"),
        "device": device_name(),
        "cases": cases,
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for case in result["cases"]:
        name = f"{case['solver']} {tuple(case['size'])}"
        amounts = (f"{case[key] / 2**30:.2f}" for key in ("data", "estimate", "measured"))
        rows.append((name, case["dtype"], f"{case['max_bytes'] / 2**20:.0f}", *amounts, f"{case['ratio']:.2f}"))
    header = ("solver, (n, d, P, c)", "dtype", "max_bytes, MiB", "data, GiB", "estimate", "measured", "ratio")
    print_table("Peak memory of a solve", header, rows)
