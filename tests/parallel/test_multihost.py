"""Rows of several processes as one problem: checks that the processes agree, and refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx import parallel
from jaxcvx.parallel import multihost
from tests.helpers import gaussian_data
from tests.parallel.run_meshes import one_device_mesh

COMMON = {"X": ((3,), "float64"), "beta": 1.0}


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ([[1, 5, 7, 8], [0, 0, 7, 8]], ["X", "process 1"]),
        ([[1, 5, 7, 8], [1, 6, 9, 8]], ["X", "(3,)", "same on all"]),
        ([[1, 5, 7, 8], [1, 6, 7, 9]], ["beta", "1.0", "same on all"]),
    ],
)
def test_processes_that_disagree_are_refused(reports, words):
    multihost.check_reports(np.asarray([[1, 5, 7, 8], [1, 6, 7, 8]]), COMMON)  # numbers of rows may differ
    with pytest.raises(jaxcvx.InvalidInputError) as caught:
        multihost.check_reports(np.asarray(reports), COMMON)
    assert all(word in str(caught.value) for word in words), str(caught.value)


class Grid(NamedTuple):
    """The part of a mesh that the check of processes uses."""

    devices: np.ndarray
    axis_names: tuple[str, ...] = ("samples", "cells")

    @property
    def shape(self):
        return dict(zip(self.axis_names, self.devices.shape, strict=True))


def grid(processes: list[list[int]]) -> Any:
    return Grid(np.asarray([[SimpleNamespace(process_index=p) for p in row] for row in processes]))


def test_the_samples_axis_must_run_over_processes(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert multihost.devices_per_process(grid([[0, 0], [1, 1]]), "samples") == 1
    assert multihost.devices_per_process(grid([[1], [0], [1], [0]]), "samples") == 2
    for processes in ([[0, 1], [0, 1]], [[0, 0]], [[0], [0], [1]]):
        with pytest.raises(jaxcvx.InvalidInputError, match="each place there on one process"):
            multihost.devices_per_process(grid(processes), "samples")


def test_one_process_gives_the_problem_of_make_problem():
    X, Y = gaussian_data(0, 12, 3, 1)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5)
    problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=cells)
    local = parallel.problem_from_local_rows(X, Y, 0.5, one_device_mesh(), gates=cells.gates)
    np.testing.assert_array_equal(local.arrangements.masks, cells.masks)
    np.testing.assert_array_equal(local.X, problem.X)


@pytest.mark.parametrize(
    ("call", "words"),
    [
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
