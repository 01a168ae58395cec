"""Problems on several devices give the results of one device; problems that cannot be spread are refused."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxcvx
from jaxcvx import parallel
from tests.helpers import gaussian_data
from tests.parallel.run_meshes import CASES, N, P, one_device_mesh

ROOT = pathlib.Path(__file__).parents[2]
# Numbers with a tolerance above 1e-10, relative to the largest entry. The default phases multiply in float32 between
# checks, and Newton steps end where the objective is flat. For several outputs the rounded network has as many
# candidates as there are cells, so added cells can change it.
LOOSE = {
    "default phases": {"lower": 1e-8, "upper": 1e-8, "params": 1e-6},
    "cones, Newton": {"params": 1e-8},
    "softmax": {"upper": 1e-6},
}
FURTHER = ("softmax", "huber", "cones")  # as the logistic loss, and as the first steps of "cones, Newton"


@functools.cache
def measured(further: bool) -> list[dict[str, Any]]:
    """Results of a process with eight devices. A running process cannot add devices."""
    names = [name for name in CASES if (name in FURTHER) == further]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "tests.parallel.run_meshes", *names]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in FURTHER)) for n in CASES])
def test_equal_to_one_device(name):
    records = [record for record in measured(name in FURTHER) if record["case"] == name]
    assert len(records) == len(CASES[name][4])
    for record in records:
        samples, cells = record["mesh"]
        assert record["devices"] == 8
        assert record["samples"] == N + -N % samples and record["cells"] == P + -P % cells
        assert record["scope"][0] == record["scope"][1]
        assert record["status"] == [jaxcvx.Status.CONVERGED] * 2
        for number in ("objective", "lower", "upper", "params"):
            assert record[number] < LOOSE.get(name, {}).get(number, 1e-10), record
        assert record.get("outside", 0.0) < 1e-10  # the objective outside jit
        assert record["added"] == 0.0
        assert record["steps"][0] == record["steps"][1] < 1000  # both stopped early, at the same step


def test_one_all_reduce_per_product():
    records = [record for record in measured(False) if "collectives" in record]
    assert len(records) == 3
    for record in records:
        samples, cells = record["mesh"]
        over_cells = [["all-reduce", cells]] if cells > 1 else []
        assert record["collectives"] == {"forward": over_cells, "adjoint": [["all-reduce", samples]]}


def test_on_one_device_nothing_changes():
    X, Y = gaussian_data(0, 12, 3, 1)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5)
    problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=cells)
    placed = parallel.shard_problem(problem, one_device_mesh())
    assert jax.tree.structure(placed) == jax.tree.structure(problem)
    for a, b in zip(jax.tree.leaves(placed), jax.tree.leaves(problem), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: parallel.shard_problem(p, "mesh"), ["mesh", "Mesh"]),
        (lambda p: parallel.shard_problem("p", one_device_mesh()), ["problem", "make_problem"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(AxisType.Explicit)), ["mesh", "Explicit", "Auto"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(), samples="n"), ["samples", "'n'", "'rows'"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(), samples="rows", cells="rows"), ["cells", "another"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(), cells="rows"), ["cells", "only one"]),
        (lambda p: jax.jit(lambda q: parallel.shard_problem(q, one_device_mesh()))(p), ["problem", "traced"]),
        (lambda p: parallel.make_mesh(cells=99), ["cells", "99"]),
        (lambda p: parallel.make_mesh(samples=0), ["samples", "0"]),
    ],
)
def test_refusals(call, words):
    problem = jaxcvx.make_problem(*gaussian_data(0, 12, 3, 1), 0.5)
    with pytest.raises(jaxcvx.JaxcvxError) as caught:
        call(problem)
    assert all(word in str(caught.value) for word in words), str(caught.value)
