"""Shared parts of the experiments: Adam runs, the record of a solve, the record of a whole run.

Times are CPU seconds of all threads together. Unlike wall time they do not depend on other programs on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcvx
from benchmarks.common import versions
from jaxcvx.networks.network import Network


def cpu_seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Measure the CPU time of a call, up to the moment when its result is ready."""
    start = time.process_time()
    result = jax.block_until_ready(call())
    return time.process_time() - start, result


class AdamRuns(NamedTuple):
    """Independent runs of Adam on one training problem, computed together."""

    objectives: list[float]
    networks: Network  # stacked along a first axis
    seconds: float  # of all runs together, compilation not counted
    steps: list[int]  # of the checks
    traces: list[list[float]]  # best objective so far at each check, for each run


def adam_runs(
    problem: Any, width: int, *, runs: int = 5, steps: int = 8000, rate: float = 1e-2, seed: int = 0
) -> AdamRuns:
    """Run full-batch Adam with a cosine schedule from ``runs`` random keys, under one vmap."""
    solver = jaxcvx.GradientDescent(
        width=width, max_steps=steps, check_every=100, learning_rate=rate, schedule="cosine"
    )

    def train(problem: Any, key: Any) -> tuple[Any, Network, Any]:
        solution = jaxcvx.solve(problem, solver, key=key)
        return solution.upper_bound, solution.network, solution.history

    arguments = (problem.replace(arrangements=None), jax.random.split(jax.random.key(seed), runs))
    compiled = jax.jit(jax.vmap(train, in_axes=(None, 0))).lower(*arguments).compile()
    seconds, (values, networks, history) = cpu_seconds_of(lambda: compiled(*arguments))
    checks = np.asarray(history.step[0])[: int(history.count[0])].tolist()
    traces = np.asarray(history.objective)[:, : len(checks)].tolist()
    return AdamRuns([float(v) for v in values], networks, seconds, checks, traces)


def timed_solve(problem: Any, solver: Any, repeat: bool = False) -> tuple[Any, float]:
    """Return a solution and its CPU time. With ``repeat`` it is the time of a second solve, without compilation."""
    seconds, solution = cpu_seconds_of(lambda: jaxcvx.solve(problem, solver))
    if repeat:
        seconds, solution = cpu_seconds_of(lambda: jaxcvx.solve(problem, solver))
    return solution, seconds


def describe(solution: Any) -> dict[str, Any]:
    """Return the numbers of a solution, for JSON."""
    return {
        "objective": float(solution.objective),
        "program_gap": float(solution.program_gap),
        "upper_bound": float(solution.upper_bound),
        "lower_bound": float(solution.lower_bound),
        "gap": float(solution.gap),
        "scope": solution.scope,
        "width": solution.network.width,
        "status": jaxcvx.Status(int(solution.status)).name,
        "steps": int(solution.num_steps),
    }


def slope(x: Any, y: Any) -> float:
    """Exponent of the power law through the last two points."""
    x, y = np.log(np.asarray(x, float)[-2:]), np.log(np.asarray(y, float)[-2:])
    return float((y[1] - y[0]) / (x[1] - x[0]))


def wilson(wins: int, runs: int, z: float = 1.96) -> list[float]:
    """Wilson's confidence interval for a success rate."""
    rate, spread = wins / runs, z * z / runs
    centre = (rate + spread / 2) / (1 + spread)
    half = z * (rate * (1 - rate) / runs + spread / (4 * runs)) ** 0.5 / (1 + spread)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def difference_interval(wins: int, runs: int, others: int, other_runs: int, z: float = 2.968) -> list[float]:
    """Newcombe's interval for the difference of two success rates (99.7% by default), from two Wilson intervals."""
    p, q = wins / runs, others / other_runs
    (low, high), (lower, upper) = wilson(wins, runs, z), wilson(others, other_runs, z)
    down, up = ((p - low) ** 2 + (upper - q) ** 2) ** 0.5, ((high - p) ** 2 + (q - lower) ** 2) ** 0.5
    return [p - q - down, p - q + up]


def record(name: str, claim: str, quick: bool, settings: dict[str, Any], **found: Any) -> dict[str, Any]:
    """Build the JSON of an experiment: the claim, the settings of the run, and the results."""
    return {
        "experiment": name,
        "claim": claim,
        "quick": quick,
        "versions": versions("jaxcvx", "jax", "jaxlib", "numpy", "scipy", "scikit-learn"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "settings": settings,
        **found,
    }


def track(items: Any, label: str) -> Any:
    """Yield the items, with a progress bar on a terminal if rich is installed."""
    try:
        from rich.console import Console
        from rich.progress import track as bar
    except ImportError:
        return items
    return bar(items, description=label, console=Console(stderr=True), transient=True)
