"""Problems spread over devices and processes give what one device gives; what can't be spread is refused."""

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
from jaxcvx.parallel import demo
from tests.helpers import gaussian_data
from tests.parallel.run_meshes import CASES, N, P

ROOT = pathlib.Path(__file__).parents[2]
EXACT = ("squared", "logistic", "softmax", "huber")  # cells are added, which only the default phases notice


@functools.cache
def measured() -> list[dict[str, Any]]:
    """What one process with eight devices has measured; devices can't be added to a running one."""
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "tests.parallel.run_meshes"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_equal_to_one_device(name):
    found = [record for record in measured() if record["case"] == name]
    assert len(found) == len(CASES[name][3])
    for record in found:
        samples, cells = record["mesh"]
        assert record["devices"] == 8
        assert record["samples"] == N + -N % samples and record["cells"] == P + -P % cells
        assert record["scope"][0] == record["scope"][1]
        assert record["status"] == [jaxcvx.Status.CONVERGED] * 2
        tolerance = 1e-10 if name in EXACT else 2e-6
        assert record["objective"] < tolerance and record["bound"] < tolerance, record
        assert record.get("outside", 0.0) < tolerance  # outside jit
        if name in EXACT:
            assert record["steps"][0] == record["steps"][1] < 20_000  # it stopped early, at the same step
            assert record["params"] < 1e-9, record


def test_one_all_reduce_per_product():
    for record in (record for record in measured() if "collectives" in record):
        for counts in record["collectives"].values():
            assert counts == {"all-reduce": 1, "all-gather": 0, "all-to-all": 0, "collective-permute": 0}


def test_two_processes(capfd):
    assert demo.main(["--processes", "2"]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    reports = [json.loads(line) for line in lines]
    assert sorted(report["process"] for report in reports) == [0, 1]
    assert all(report["devices"] == 2 * demo.DEVICES for report in reports)
    assert all(report["lower_bound"] <= report["objective"] for report in reports)


def one_device_mesh(kind: AxisType = AxisType.Auto):
    return jax.make_mesh((1,), ("rows",), (kind,), devices=jax.devices()[:1])


def test_on_one_device_nothing_changes():
    X, Y = gaussian_data(0, 12, 3, 1)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5)
    problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=cells)
    placed = parallel.shard_problem(problem, one_device_mesh())
    assert jax.tree.structure(placed) == jax.tree.structure(problem)
    for a, b in zip(jax.tree.leaves(placed), jax.tree.leaves(problem), strict=True):
        np.testing.assert_array_equal(a, b)
    local = parallel.problem_from_local_rows(X, Y, 0.5, one_device_mesh(), gates=cells.gates)
    np.testing.assert_array_equal(local.arrangements.masks, cells.masks)
    np.testing.assert_array_equal(local.X, problem.X)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: parallel.shard_problem(p, "mesh"), ["mesh", "Mesh"]),
        (lambda p: parallel.shard_problem("p", one_device_mesh()), ["problem", "make_problem"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(AxisType.Explicit)), ["mesh", "Explicit", "Auto"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(), samples="n"), ["samples", "'n'", "'rows'"]),
        (lambda p: parallel.shard_problem(p, one_device_mesh(), samples="rows", cells="rows"), ["cells", "another"]),
        (lambda p: parallel.make_mesh(cells=99), ["cells", "99"]),
        (lambda p: parallel.make_mesh(samples=0), ["samples", "0"]),
        (lambda p: parallel.initialize("localhost:1"), ["coordinator", "all of them"]),
        (lambda p: parallel.initialize("localhost:1", 2, 2), ["process_id", "2"]),
        (
            lambda p: parallel.problem_from_local_rows(p.X, p.Y, 1.0, one_device_mesh(), gates=np.ones((2, 9))),
            ["gates", "(2, 9)", "(P, 3)"],
        ),
        (
            lambda p: parallel.problem_from_local_rows(p.X, [0, 1] * 6, 1.0, one_device_mesh(), loss="softmax"),
            ["Y", "one-hot"],
        ),
    ],
)
def test_refusals(call, words):
    problem = jaxcvx.make_problem(*gaussian_data(0, 12, 3, 1), 0.5)
    with pytest.raises(jaxcvx.JaxcvxError) as caught:
        call(problem)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"loss": "hinge"}, ["hinge", "divide"]), ({"features": jaxcvx.Dense(bias=True)}, ["features", "bias"])],
)
def test_rows_that_would_count_are_not_added(options, words):
    from jaxcvx.parallel.padding import padded_rows

    X, Y = gaussian_data(0, 12, 3, 1)
    problem = jaxcvx.make_problem(X, np.sign(Y), 0.5, **options)
    assert padded_rows(problem, 0) is problem
    with pytest.raises(jaxcvx.InvalidInputError) as caught:
        padded_rows(problem, 4)
    assert all(word in str(caught.value) for word in words)


def test_rows_of_weight_zero_may_have_a_bias():
    from jaxcvx.parallel.padding import padded_rows

    X, Y = gaussian_data(0, 12, 3, 1)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5, features=jaxcvx.Dense(bias=True))
    problem = jaxcvx.make_problem(
        X, np.sign(Y), 0.5, loss="logistic", features=jaxcvx.Dense(bias=True), arrangements=cells
    )
    more = padded_rows(problem, 4)
    assert more.num_samples == 16
    a, b = (jaxcvx.solve(p, jaxcvx.ProximalGradient(tol=1e-9)) for p in (problem, more))
    assert float(b.objective) == pytest.approx(float(a.objective), rel=1e-8)
    assert float(b.lower_bound) == pytest.approx(float(a.lower_bound), rel=1e-8)
