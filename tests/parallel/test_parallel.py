"""Problems spread over devices and processes give what one device gives; what can't be spread is refused."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxcvx
from jaxcvx import parallel
from jaxcvx.parallel import demo, multihost
from jaxcvx.parallel.padding import padded_cells, padded_rows
from tests.helpers import gaussian_data
from tests.parallel.run_meshes import CASES, N, P
from tests.sharding.run_sharded import fast_options

ROOT = pathlib.Path(__file__).parents[2]
# What agrees less well than to 1e-10, relative to the largest entry. The default phases multiply in float32 between
# checks, and Newton steps end where the objective is flat. A rounded network of several outputs has as many
# candidates as there are cells, so added cells can change it.
LOOSE = {
    "default phases": {"lower": 1e-8, "upper": 1e-8, "params": 1e-6},
    "cones, Newton": {"params": 1e-8},
    "softmax": {"upper": 1e-6},
}


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
    assert len(found) == len(CASES[name][4])
    for record in found:
        samples, cells = record["mesh"]
        assert record["devices"] == 8
        assert record["samples"] == N + -N % samples and record["cells"] == P + -P % cells
        assert record["scope"][0] == record["scope"][1]
        assert record["status"] == [jaxcvx.Status.CONVERGED] * 2
        for number in ("objective", "lower", "upper", "params"):
            assert record[number] < LOOSE.get(name, {}).get(number, 1e-10), record
        assert record.get("outside", 0.0) < 1e-10  # the objective outside jit
        assert record["added"] == 0.0
        assert record["steps"][0] == record["steps"][1] < 1000  # it stopped early, at the same step


def test_one_all_reduce_per_product():
    found = [record for record in measured() if "collectives" in record]
    assert len(found) == 3
    for record in found:
        samples, cells = record["mesh"]
        over_cells = [["all-reduce", cells]] if cells > 1 else []
        assert record["collectives"] == {"forward": over_cells, "adjoint": [["all-reduce", samples]]}


def can_listen() -> bool:
    try:
        return demo.free_port() > 0
    except OSError:
        return False


@pytest.mark.skipif(not can_listen(), reason="no sockets here")
def test_two_processes(capfd):
    assert demo.main(["--processes", "2"]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    reports = [json.loads(line) for line in lines]
    assert sorted(report["process"] for report in reports) == [0, 1]
    assert len({report["rows"] for report in reports}) == 2
    for report in reports:
        assert report["devices"] == 2 * demo.DEVICES
        assert report["status"] == [jaxcvx.Status.CONVERGED] * 2
        assert report["steps"][0] == report["steps"][1] < 1000
        assert report["objective_difference"] < 1e-10 and report["params_difference"] < 1e-10
        assert report["lower_bound"] <= report["objective"]


COMMON = {"X": ((3,), "float64"), "beta": 1.0}


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([[1, 5, 7, 8], [0, 0, 7, 8]], ["X", "process 1"]),
        ([[1, 5, 7, 8], [1, 6, 9, 8]], ["X", "(3,)", "same on all"]),
        ([[1, 5, 7, 8], [1, 6, 7, 9]], ["beta", "1.0", "same on all"]),
    ],
)
def test_processes_that_differ(reports, words):
    multihost.check_reports(np.asarray([[1, 5, 7, 8], [1, 6, 7, 8]]), COMMON)  # in rows they may
    with pytest.raises(jaxcvx.InvalidInputError) as caught:
        multihost.check_reports(np.asarray(reports), COMMON)
    assert all(word in str(caught.value) for word in words), str(caught.value)


class Grid(NamedTuple):
    """As much of a mesh as the check of processes looks at."""

    devices: np.ndarray
    axis_names: tuple[str, ...] = ("samples", "cells")

    @property
    def shape(self):
        return dict(zip(self.axis_names, self.devices.shape, strict=True))


def grid(processes: list[list[int]]) -> Any:
    return Grid(np.asarray([[SimpleNamespace(process_index=p) for p in row] for row in processes]))


def test_samples_run_over_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert multihost.devices_per_process(grid([[0, 0], [1, 1]]), "samples") == 1
    assert multihost.devices_per_process(grid([[1], [0], [1], [0]]), "samples") == 2
    for processes in ([[0, 1], [0, 1]], [[0, 0]], [[0], [0], [1]]):
        with pytest.raises(jaxcvx.InvalidInputError, match="each place there on one process"):
            multihost.devices_per_process(grid(processes), "samples")


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
        (lambda p: parallel.shard_problem(p, one_device_mesh(), cells="rows"), ["cells", "only one"]),
        (lambda p: jax.jit(lambda q: parallel.shard_problem(q, one_device_mesh()))(p), ["problem", "traced"]),
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
    [
        ({"loss": "hinge"}, ["hinge", "divide", "16"]),
        *[
            ({"loss": loss, "features": features}, ["features", "bias", "divide", "16"])
            for loss, features in (
                ("squared", jaxcvx.Dense(bias=True)),
                ("huber", jaxcvx.FreeBias()),
                ("interpolation", jaxcvx.ConvPool(2, bias=True)),
            )
        ],
    ],
)
def test_rows_that_would_count_are_not_added(options, words):
    X, Y = gaussian_data(0, 12, 3, 1)
    problem = jaxcvx.make_problem(X, np.sign(Y), 0.5, **options)
    assert padded_rows(problem, 0) is problem
    with pytest.raises(jaxcvx.InvalidInputError) as caught:
        padded_rows(problem, 4)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("loss", ["squared", "huber", "interpolation", "logistic", "softmax"])
def test_zero_rows_change_no_value(loss):
    X, Y = gaussian_data(0, 12, 3, 2)
    Y = {"logistic": np.sign(Y), "softmax": np.eye(2)[Y.argmax(axis=1)]}.get(loss, Y)
    problem = jaxcvx.make_problem(X, Y, 0.5, loss=loss)
    more = padded_rows(problem, 4)
    F = np.random.default_rng(1).standard_normal((12, 2))
    longer = np.concatenate([F, np.zeros((4, 2))])
    R = -problem.loss.grad(F, problem.Y)
    longer_R = -more.loss.grad(longer, more.Y)
    np.testing.assert_allclose(longer_R, np.concatenate([R, np.zeros((4, 2))]), atol=1e-15)
    for scale in (1.0, 0.5):
        a, b = problem.loss.dual_value(scale * R, problem.Y), more.loss.dual_value(scale * longer_R, more.Y)
        assert float(b) == pytest.approx(float(a), rel=1e-12)
    assert float(more.loss.value(longer, more.Y)) == pytest.approx(float(problem.loss.value(F, problem.Y)), rel=1e-12)
    scaling = problem.loss.max_scaling(R, problem.Y), more.loss.max_scaling(longer_R, more.Y)
    assert float(scaling[1]) == pytest.approx(float(scaling[0]), rel=1e-12)


def test_added_cells_keep_what_is_proved():
    X, Y = gaussian_data(0, 8, 2, 1)
    problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=jaxcvx.enumerate_arrangements(X))
    more = padded_cells(problem, 3)
    assert problem.arrangements.complete and more.arrangements.complete
    assert len(more.arrangements) == len(problem.arrangements) + 3 and not more.arrangements.masks[-3:].any()
    for program in ("gated", "network"):
        assert float(more.beta_max(program)) == pytest.approx(float(problem.beta_max(program)), rel=1e-12)


def test_rows_of_weight_zero_may_have_a_bias():
    X, Y = gaussian_data(0, 12, 3, 1)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5, features=jaxcvx.Dense(bias=True))
    problem = jaxcvx.make_problem(
        X, np.sign(Y), 0.5, loss="logistic", features=jaxcvx.Dense(bias=True), arrangements=cells
    )
    more = padded_rows(problem, 4)
    assert more.num_samples == 16
    solver = jaxcvx.ProximalGradient(tol=1e-9, phases="accelerated")
    run = jax.jit(lambda p: jaxcvx.solve(p, solver), compiler_options=fast_options())
    a, b = run(problem), run(more)
    assert float(b.objective) == pytest.approx(float(a.objective), rel=1e-8)
    assert float(b.lower_bound) == pytest.approx(float(a.lower_bound), rel=1e-8)
