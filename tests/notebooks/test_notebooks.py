"""Every notebook runs from top to bottom as a script, and its .ipynb holds the same cells."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jupytext
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
STEADY = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def test_there_are_five():
    assert len(SCRIPTS) == 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(script, tmp_path):
    """The scripts assert what they claim."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {STEADY}"
    env = os.environ | {"MPLBACKEND": "Agg", "SECONDS": "3", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_is_the_pair_of_its_script(script):
    def cells(path):
        return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]

    notebook = script.with_suffix(".ipynb")
    assert cells(notebook) == cells(script), "run: make notebooks"
    assert notebook.stat().st_size < 600_000
    outputs = [o for cell in jupytext.read(notebook).cells for o in cell.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs), "executed, with pictures"
    assert not any(o.output_type == "error" for o in outputs)
