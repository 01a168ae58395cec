"""Compilation or growth of the path method in a process of its own: ``python path_cost.py '{"task": ..., ...}'``.

Tasks: {"task": "compile", "table": name, "method": name} and {"task": "growth", "n": rows, "method": name}. The
last line of the output is the answer in JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MARKED = (0.3, 0.1, 0.03, 0.01)
COLUMNS = 20
REPEAT_BELOW = 60.0  # seconds: a longer first call is not repeated


def grid(betas: int = 20, largest: float = 0.8, smallest: float = 0.01) -> np.ndarray:
    """Fractions of beta_max in equal ratios. Those nearest to the marked ones are moved there."""
    fractions = np.geomspace(largest, smallest, betas)
    for mark in MARKED:
        fractions[np.argmin(abs(np.log(fractions / mark)))] = mark
    return fractions


class Compilations:
    """Counts the programs that XLA compiles, and the seconds of tracing, lowering and compiling."""

    def __init__(self) -> None:
        import jax

        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self.listen)

    def listen(self, event: str, seconds: float, **_: Any) -> None:
        """Called by jax after each event."""
        if event.endswith("backend_compile_duration"):
            self.count += 1
        if event.startswith("/jax/core/compile/"):
            self.seconds += seconds

    def since(self, count: int, seconds: float) -> dict[str, Any]:
        """Number of programs and seconds after these."""
        return {"programs": self.count - count, "seconds": self.seconds - seconds}


def compile_task(table: str, method: str) -> dict[str, Any]:
    """Seconds of a first and of a second path; programs compiled for other data, of this shape and of fewer rows."""
    import jax

    from benchmarks.adam import beta_max
    from benchmarks.path_methods import METHODS
    from benchmarks.tables import load

    data = load(table)
    betas = grid() * beta_max(data)
    chosen, key = METHODS[method], jax.random.key(0)

    def fit(each: Any) -> float:
        problem = jax.block_until_ready(each.problem())
        start = time.perf_counter()
        jax.block_until_ready(chosen.fit_path(problem, betas, key))
        return time.perf_counter() - start

    fewer = data._replace(X_train=data.X_train[3:], Y_train=data.Y_train[3:])
    other = data._replace(X_train=np.roll(data.X_train, 1, axis=1)[::-1], Y_train=data.Y_train[::-1])
    for each in (data, fewer):
        each.problem()  # programs that only move data are not those of a path
    seen = Compilations()
    first, compiled, compiling = fit(data), seen.count, seen.seconds
    warm, again = fit(data), {}
    for name, each in (("same shape", other), ("fewer rows", fewer)):
        before = seen.count, seen.seconds
        fit(each)
        again[name] = seen.since(*before)
    return {
        "table": table,
        "first_seconds": first,
        "warm_seconds": warm,
        "compile_seconds": first - warm,
        "compile_seconds_by_jax": compiling,
        "compiled": compiled,
        "again": again,
    }


def resident(name: str) -> int:
    """Bytes of VmRSS or VmHWM of this process (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def growth_task(n: int, method: str) -> dict[str, Any]:
    """Seconds of a path without compilation where that is affordable, and peak memory of the process."""
    import jax

    from benchmarks.adam import beta_max
    from benchmarks.path_methods import METHODS
    from benchmarks.tables import Table, planted, standardised

    X, Y = planted(n, COLUMNS, 1)
    X, Y = standardised(X, X)[0], standardised(Y, Y)[0]
    sample = min(n, 1_000)  # beta_max grows with n; that of the first rows is near enough
    largest = beta_max(Table("planted", "squared", X[:sample], Y[:sample], X[:0], Y[:0])) * n / sample
    table = Table("planted", "squared", X, Y, X[:0], Y[:0])
    problem, key, chosen = table.problem(), jax.random.key(0), METHODS[method]
    seconds, before = [], resident("VmRSS")
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(chosen.fit_path(problem, grid() * largest, key))
        seconds.append(time.perf_counter() - start)
        print(f"n = {n}: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
        if seconds[-1] > REPEAT_BELOW:
            break
    return {
        "n": n,
        "d": COLUMNS,
        "seconds": min(seconds),
        "warm": len(seconds) > 1,
        "peak_bytes": resident("VmHWM"),
        "before_bytes": before,
        "load average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    tasks = {"compile": compile_task, "growth": growth_task}
    print(json.dumps(tasks[task.pop("task")](**task)))
