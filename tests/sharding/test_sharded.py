"""Data split over eight simulated devices give what one device gives, in both precisions."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.sharding.cases import ITERATIONS, OPERATIONS

ROOT = pathlib.Path(__file__).parents[2]


# Whole solves by these are compared in tests/parallel/test_mesh.py by default.
FURTHER = ("gated-accelerated", "gated-logistic", "gated", "cone", "cone-admm")
NAMES = (*OPERATIONS, *ITERATIONS)


@functools.cache
def measured(precision: str, further: bool) -> list[dict[str, Any]]:
    """What one process with eight devices has measured; devices can't be added to a running one."""
    names = [name for name in NAMES if (name in FURTHER) == further]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "tests.sharding.run_sharded", precision, *names]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in FURTHER)) for n in NAMES])
def test_equal_to_one_device(name, precision):
    x64 = precision == "float64"
    found = [record for record in measured(precision, name in FURTHER) if record["case"] == name]
    assert found
    exact = 1e-10 if name in OPERATIONS else 1e-7
    for record in found:
        assert record["devices"] == 8 and record["split"] > 0
        assert record["collectives"] > 0, "every device has computed everything"
        assert record["difference"] < (exact if x64 else 1e-4), record
        # Objectives are flat at the optimum: rounding e in one leaves the root of e in the weights.
        assert record["params_difference"] < (exact if x64 else 5e-3), record
