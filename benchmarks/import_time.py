"""Seconds to import jaxcvx and to import jax only, each in fresh interpreters, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import Any

_CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def _seconds(module: str) -> float:
    done = subprocess.run([sys.executable, "-c", _CODE.format(module)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def run(quick: bool = False) -> dict[str, Any]:
    """Measure medians over fresh processes, in turns."""
    times: dict[str, list[float]] = {"jax": [], "jaxcvx": []}
    for _ in range(3 if quick else 9):
        for module, column in times.items():
            column.append(_seconds(module))
    medians = {name: statistics.median(column) for name, column in times.items()}
    return {"seconds": times, "median": medians, "ratio": medians["jaxcvx"] / medians["jax"]}


def show(result: dict[str, Any]) -> None:
    """Print the medians and their ratio."""
    for name, value in result["median"].items():
        print(f"import {name}: {value:.3f} s")
    print(f"ratio: {result['ratio']:.2f}")
