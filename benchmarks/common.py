"""Shared parts of the benchmarks: the planted instance, independent objectives and gaps, timing, output."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Instance(NamedTuple):
    """A gated ReLU problem with one output, in numpy float64."""

    X: np.ndarray  # (n, d), columns standardised
    y: np.ndarray  # (n,), centred, unit standard deviation
    masks: np.ndarray  # (P, n) bool
    gates: np.ndarray  # (P, d)
    beta_max: float


def planted_instance(n: int, d: int, P: int, seed: int = 0, neurons: int = 5, noise: float = 0.1) -> Instance:
    """Draw Gaussian X, targets of a few ReLU neurons plus noise, and Gaussian gates without equal cells."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = np.maximum(X @ rng.standard_normal((d, neurons)), 0) @ rng.standard_normal(neurons)
    y = y + noise * y.std() * rng.standard_normal(n)
    y = (y - y.mean()) / y.std()
    gates = rng.standard_normal((P, d))
    masks = (gates @ X.T) >= 0
    first = np.sort(np.unique(masks, axis=0, return_index=True)[1])
    masks, gates = masks[first], gates[first]
    beta_max = np.linalg.norm((masks * y) @ X, axis=1).max()
    return Instance(X, y, masks, gates, float(beta_max))


def judge(instance: Instance, W: np.ndarray, beta: float) -> tuple[float, float]:
    """Compute the objective ``1/2 ||sum_i D_i X W_i - y||^2 + beta sum_i ||W_i||`` at W, and a lower bound.

    The code is plain numpy and uses nothing of the library. W is (P, d). The lower bound on the minimum is the dual
    value of the residual at its best feasible scaling.
    """
    X, y, masks = instance.X, instance.y, instance.masks
    R = y - np.einsum("pn,np->n", masks, X @ W.T)
    objective = 0.5 * R @ R + beta * np.linalg.norm(W, axis=1).sum()
    largest = np.linalg.norm((masks * R) @ X, axis=1).max()
    scale = np.clip(R @ y / (R @ R), -beta / largest, beta / largest)
    return float(objective), float(scale * (R @ y) - 0.5 * scale**2 * (R @ R))


def compare(instance: Instance, weights: dict[str, np.ndarray], beta: float) -> dict[str, dict[str, float | int]]:
    """Judge several answers to one problem.

    Returns:
      For each name: the objective; ``own_gap``, the relative gap by the bound from the residual of these weights only
      (a solver may know a better dual point); ``true_gap``, the relative gap by the best bound from any of the answers;
      the number of nonzero blocks.
    """
    judged = {name: judge(instance, W, beta) for name, W in weights.items()}
    best = max(bound for _, bound in judged.values())
    return {
        name: {
            "objective": objective,
            "own_gap": (objective - bound) / objective,
            "true_gap": (objective - best) / objective,
            "active_cells": int((np.linalg.norm(weights[name], axis=1) > 0).sum()),
        }
        for name, (objective, bound) in judged.items()
    }


def reference(instance: Instance, beta: float, tol: float = 1e-11) -> np.ndarray:
    """Compute weights (P, d) of an accurate solution. Only its bound is used. Call it with x64 enabled."""
    import jaxcvx

    return blocks(jaxcvx.solve(make_problem(instance, beta), jaxcvx.ProximalGradient(tol=tol)).params)


def blocks(params: Any) -> np.ndarray:
    """Convert params (P, d, 1) to weights (P, d) in numpy."""
    return np.asarray(params, np.float64)[:, :, 0]


def make_problem(instance: Instance, beta: float) -> Any:
    """Build the same problem for jaxcvx. Call it with x64 enabled."""
    import jax.numpy as jnp

    import jaxcvx

    cells = jaxcvx.Arrangements(jnp.asarray(instance.masks), jnp.asarray(instance.gates))
    return jaxcvx.make_problem(instance.X, instance.y, beta, arrangements=cells)


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Measure the wall time of a call, up to the moment when its result is ready."""
    import jax

    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def interleave(calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time each call ``repeats`` times, in turns. The first call of each is not counted.

    Returns:
      For each name: first, median, min, max and all counted seconds; and the last result.
    """
    first, times, results = {}, {name: [] for name in calls}, {}
    for name, call in calls.items():
        first[name], results[name] = seconds_of(call)
    for _ in range(repeats):
        for name, call in calls.items():
            seconds, results[name] = seconds_of(call)
            times[name].append(seconds)
    summary = {
        name: {"first": first[name], "median": statistics.median(t), "min": min(t), "max": max(t), "all": t}
        for name, t in times.items()
    }
    return summary, results


def device_name() -> str:
    """Name of the device on which jax runs."""
    import jax

    device = jax.devices()[0]
    return f"{os.cpu_count()}-core {platform.machine()} CPU" if device.platform == "cpu" else device.device_kind


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_json(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Write ``folder/name.json``, completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    temporary = folder / f"{name}.{secrets.token_hex(8)}.tmp"
    temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    os.replace(temporary, target)
    return target


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with rich, or in plain text without it. Nothing is printed if there are no rows."""
    if not rows:
        return
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(len(row[j]) for row in [header, *rows]) for j in range(len(header))]
        print(title)
        for row in [header, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        return
    table = Table(title=title, title_justify="left")
    for j, name in enumerate(header):
        table.add_column(name, justify="left" if j == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if os.isatty(1) else 120).print(table)
