"""The baseline of ``benchmarks path``: Adam on networks of width 100, the best of five starts.

``python -m benchmarks.adam [TABLE ...] [--cache DIR]`` fills the cache: one JSON file for each table, and the
weights of each run beside it. The answers never change, so later runs read them. Seconds are those of one warm call of
``jaxcvx.solve``, measured when the run was made; ``benchmarks path`` measures them again.

The betas are fractions of beta_max of the training problem over all networks, ``max_u ||R^T (Z u)_+||`` over ||u|| = 1
with R the dual residual at zero. It is found by many ascents in float64.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import write_json
from benchmarks.tables import SOURCES, Table, available, load, merged_width, objective

FRACTIONS = (0.3, 0.1, 0.03, 0.01)  # of beta_max
KEYS = 5
WIDTH, STEPS, RATE = 100, 5_000, 1e-2
# Ascents for beta_max: SHORT steps from STARTS places, then LONG ones from the best KEPT.
# Ascents for beta_max: SHORT steps from STARTS places, then LONG ones from the best KEPT.
STARTS, SHORT, KEPT, LONG = 1024, 30, 64, 400


def default_cache() -> Path:
    """The user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxcvx-benchmarks"


def solver(width: int = WIDTH, steps: int = STEPS) -> Any:
    """Adam in full batches, with a cosine decay to zero at the last step. It never stops before."""
    import jaxcvx

    return jaxcvx.GradientDescent(
        tol=0.0, width=width, max_steps=steps, learning_rate=RATE, schedule="cosine", check_every=min(500, steps)
    )


@functools.cache
def _ascents() -> Any:
    """The compiled ascents: u <- unit(u + g / ||g||), g the gradient of ||R^T (Z u)_+||, with unit rows u."""
    import jax
    import jax.numpy as jnp

    def unit(U):
        return U / jnp.maximum(jnp.linalg.norm(U, axis=1, keepdims=True), 1e-300)

    @functools.partial(jax.jit, static_argnames="steps")
    def ascend(Z, R, U, steps):
        def step(_, U):
            inner = U @ Z.T
            V = unit(jnp.maximum(inner, 0) @ R)
            return unit(U + unit(((V @ R.T) * (inner > 0)) @ Z))

        U = jax.lax.fori_loop(0, steps, step, unit(U))
        return U, jnp.linalg.norm(jnp.maximum(U @ Z.T, 0) @ R, axis=1)

    return ascend


def beta_max(table: Table) -> float:
    """Find the smallest beta whose solution is zero, by ascents from random directions and from training rows."""
    import jax

    with jax.enable_x64(True):
        problem = table.problem(dtype=np.float64)
        Z, R = problem.rows, -problem.loss.grad(0 * problem.Y, problem.Y)
        rng = np.random.default_rng(0)
        starts = rng.standard_normal((STARTS, Z.shape[1]))
        starts[: STARTS // 4] = np.asarray(Z)[rng.integers(0, len(Z), STARTS // 4)]
        U, values = _ascents()(Z, R, starts, SHORT)
        best = U[np.argsort(-np.asarray(values))[:KEPT]]
        return float(_ascents()(Z, R, best, LONG)[1].max())


class Baseline:
    """Adam's runs on one table, from the cache where they are there.

    Args:
      table: the data.
      cache: folder of the cached runs.
      width: number of neurons.
      steps: number of steps.
    """

    def __init__(self, table: Table, cache: Path | None = None, width: int = WIDTH, steps: int = STEPS) -> None:
        self.table, self.width, self.steps = table, width, steps
        self.folder = default_cache() if cache is None else Path(cache)
        self.name = f"adam-{table.name}-{table.digest}"
        self.path = self.folder / f"{self.name}.json"
        self.record: dict[str, Any] = {"table": table.name, "size": table.size, "loss": table.loss, "runs": {}}
        if self.path.exists():
            self.record = json.loads(self.path.read_text())

    @property
    def beta_max(self) -> float:
        """beta_max of the training problem over all networks."""
        if "beta_max" not in self.record:
            self.record["beta_max"] = beta_max(self.table)
            write_json(self.folder, self.name, self.record)
        return self.record["beta_max"]

    def solve(self, fraction: float, key: int) -> Any:
        """One run, in float32."""
        import jax

        import jaxcvx

        problem = self.table.problem(fraction * self.beta_max)
        return jaxcvx.solve(problem, solver(self.width, self.steps), key=jax.random.key(key))

    def run(self, fraction: float, key: int) -> dict[str, Any]:
        """Objective in float64, neurons after merging and seconds of one run, and the file of its weights."""
        name = f"{fraction:g} of beta_max, key {key}, width {self.width}, {self.steps} steps, rate {RATE:g}"
        if name not in self.record["runs"]:
            start = time.perf_counter()
            network = self.solve(fraction, key).network
            seconds = time.perf_counter() - start
            hidden, output = np.asarray(network.hidden), np.asarray(network.output)
            file = f"{self.name}-{fraction:g}-{key}-{self.width}-{self.steps}.npz"
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(self.folder / file, hidden=hidden, output=output)
            self.record["runs"][name] = {
                "objective": objective(self.table, hidden, output, fraction * self.beta_max),
                "neurons": merged_width(self.table, hidden, output),
                "seconds": seconds,
                "weights": file,
            }
            write_json(self.folder, self.name, self.record)
        return self.record["runs"][name]

    def best(self, fraction: float, keys: int = KEYS) -> dict[str, Any]:
        """The run of the smallest objective, with the objectives of all."""
        runs = [self.run(fraction, key) for key in range(keys)]
        best = min(runs, key=lambda run: run["objective"])
        return best | {"all": [run["objective"] for run in runs]}


def main(arguments: list[str] | None = None) -> None:
    """Fill the cache and print one line for each table and beta."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adam", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(SOURCES)}; all by default")
    parser.add_argument("--cache", type=Path, help=f"folder of the cached runs; {default_cache()} by default")
    options = parser.parse_args(arguments)
    for name in available(options.tables or None):
        baseline = Baseline(load(name), options.cache)
        baseline.solve(FRACTIONS[0], 0)  # compiles
        for fraction in FRACTIONS:
            best = baseline.best(fraction)
            others = ", ".join(f"{value:.6f}" for value in sorted(best["all"]))
            text = f"{name} {baseline.table.size} beta {fraction:g} x {baseline.beta_max:.6g}: {others}"
            print(f"{text}; {best['neurons']} neurons, {best['seconds']:.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
