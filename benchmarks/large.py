"""A gated problem of MNIST's size in float32 to a certified gap of 1 %, with its peak memory."""

from __future__ import annotations

import resource
import time
from typing import Any

import jax
import numpy as np

from benchmarks.common import device_name, print_table, versions

TOL = 1e-2


def run(
    quick: bool = False,
    *,
    size: tuple[int, int, int, int] = (60_000, 784, 256, 10),
    fraction: float = 0.01,
) -> dict[str, Any]:
    """Solve one synthetic problem with a progress bar. The certificate is computed in float64 on the host.

    Args:
      quick: a sixtieth of the samples.
      size: (n, d, P, c): samples, features, random cells, one-hot classes of a planted network.
      fraction: beta as a fraction of the gated beta_max.
    """
    import jaxcvx

    n, d, P, c = size
    n = n // 60 if quick else n
    rng = np.random.default_rng(0)
    rank = min(40, d)  # images are of low rank, roughly
    X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) / rank**0.5 + 0.1 * rng.standard_normal((n, d))
    scores = np.maximum(X @ rng.standard_normal((d, 50)), 0) @ rng.standard_normal((50, c))
    Y = np.eye(c)[np.argmax(scores - scores.mean(axis=0), axis=1)]
    with jax.enable_x64(False):
        X32, Y32 = X.astype(np.float32), Y.astype(np.float32)
        start = time.perf_counter()
        cells = jaxcvx.sample_arrangements(jax.random.key(0), X32, P)
        problem = jaxcvx.make_problem(X32, Y32, 1.0, arrangements=cells)
        problem = problem.replace(beta=fraction * float(jaxcvx.beta_max(problem)))
        prepared = time.perf_counter()
        solver = jaxcvx.ProximalGradient(tol=TOL)
        stamps: list[tuple[float, int]] = []

        def stamp(info: Any) -> bool:
            stamps.append((time.perf_counter(), info.step))
            return False

        solution = jaxcvx.solve(problem, solver, callback=[jaxcvx.Progress(), stamp])
        done = time.perf_counter()
    per_step = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in zip(stamps[1:], stamps[2:], strict=False) if b[1] > a[1]]
    return {
        "benchmark": "large",
        "versions": versions("jaxcvx", "jax", "jaxlib"),
        "device": device_name(),
        "dtype": "float32",
        "size": [n, d, P, c],
        "beta_over_beta_max": fraction,
        "seconds": {
            "cells and beta_max": prepared - start,
            "solve, with compilation": stamps[-1][0] - prepared,
            "network and certificate": done - stamps[-1][0],
        },
        "seconds_per_step": float(np.median(per_step)) if per_step else None,
        "steps": int(solution.num_steps),
        "status": int(solution.status),
        "program_gap": float(solution.program_gap),
        "objective": float(solution.objective),
        "upper_bound": float(solution.upper_bound),
        "lower_bound": float(solution.lower_bound),
        "scope": solution.scope,
        "peak_host_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "peak_device_GiB": _device_peak(),
    }


def _device_peak() -> float | None:
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**30 if stats else None


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = [(name, f"{value:.1f} s") for name, value in result["seconds"].items()]
    if result["seconds_per_step"] is not None:
        rows.append(("per step", f"{1e3 * result['seconds_per_step']:.1f} ms"))
    rows += [("steps", str(result["steps"])), ("program gap, certified", f"{result['program_gap']:.2e}")]
    rows.append(("peak memory of the host", f"{result['peak_host_GiB']:.1f} GiB"))
    if result["peak_device_GiB"] is not None:
        rows.append(("peak memory of the device", f"{result['peak_device_GiB']:.1f} GiB"))
    title = f"(n, d, P, c) = {tuple(result['size'])}, float32, gap {TOL:g}, on {result['device']}"
    print_table(title, ("", ""), rows)
