"""Every notebook runs from top to bottom as a script, and its .ipynb holds the same cells."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import jupytext
import matplotlib.pyplot as plt
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
STEADY = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


DOUBLE = 'jax.config.update("jax_enable_x64", True)'
# Smaller numbers: every cell runs all the same.
QUICK = {
    "01_certify_adam": {"max_steps=4000": "max_steps=1000"},
    "02_copositive": {"widths = (5, 10, 20, 50, 100)": "widths = (20,)", "steps = 6000": "steps = 1000"},
    "03_noise_annealing": {},
    "04_convex_layer": {"num_gates=32": "num_gates=8"},
    "05_sharding": {"n, d, c = 512, 16, 2": "n, d, c = 64, 4, 2"},
}


def test_there_are_five():
    assert [path.stem for path in SCRIPTS] == list(QUICK)


def quick(name):
    """The script with the numbers of ``QUICK``."""
    source = (FOLDER / f"{name}.py").read_text()
    for written, smaller in QUICK[name].items():
        assert source.count(written) == 1
        source = source.replace(written, smaller)
    return source


def run_alone(script, folder):
    flags = f"{os.environ.get('XLA_FLAGS', '')} {STEADY}"
    env = os.environ | {"MPLBACKEND": "Agg", "SECONDS": "3", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout


@pytest.mark.routine("01_certify_adam", "03_noise_annealing")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in QUICK if name != "05_sharding"])
def test_every_cell_runs(name, tmp_path, monkeypatch, capsys):
    """The scripts assert what they claim."""
    source = quick(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECONDS", "2")
    with plt.rc_context({"backend": "Agg"}), jax.enable_x64(DOUBLE in source):
        exec(compile(source.replace(DOUBLE, "pass"), name, "exec"), {"__name__": "__main__"})
    plt.close("all")
    assert capsys.readouterr().out


@pytest.mark.long
def test_every_cell_runs_on_eight_devices(tmp_path):
    """A running process can't add devices."""
    script = tmp_path / "05_sharding.py"
    script.write_text(quick("05_sharding"))
    run_alone(script, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(script, tmp_path):
    """With the numbers as written, each in its own process."""
    run_alone(script, tmp_path)


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
