"""Hostile files: models load as they were saved or are refused, tables are read right or refused; no code runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *args: object) -> dict[str, float]:
    """What a script of this folder reports: in a process of its own, where peak memory is its own."""
    command = [sys.executable, "-m", f"tests.reliability.{script}", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
def test_mutated_model_files(tmp_path: Path, count: int) -> None:
    """Byte flips to zip bombs: refused, or loaded equal; never memory, time, or another exception."""
    found = run("mutate_files", tmp_path, count)
    print(found)
    assert found["files"] == count == found["refused"] + found["equal"] + found["forged"]
    assert found["equal"] >= 1 and found["refused"] > 0.7 * count
    assert found["slowest_seconds"] < 20 and found["grown_megabytes"] < 300
    assert sorted(os.listdir(tmp_path)) == ["mutated.npz"]  # nothing else was written: no code ran


def test_hostile_tables(tmp_path: Path) -> None:
    """Huge fields, binary, unclosed quotes, a million columns: read if right, else refused with the place."""
    found = run("hostile_tables", tmp_path)
    print(found)
    assert found["inputs"] >= 40 and found["inputs"] == found["read"] + found["refused"]
    assert found["slowest_seconds"] < 60 and found["grown_megabytes"] < 400
