"""Streaming gives the results of the whole data, and reads at most one block at a time."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.parallel import solve_streamed

N, D, P = 50, 4, 12


def data(c: int = 2):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    Y = np.maximum(X @ rng.standard_normal((D, 3)), 0) @ rng.standard_normal((3, c)) + 0.1 * rng.standard_normal((N, c))
    return X, Y, np.asarray(jaxcvx.sample_arrangements(jax.random.key(0), X, P).gates)


class Watched:
    """An array that records how many rows are read at a time."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.longest = array, array.shape, array.dtype, 0

    def __getitem__(self, key):
        rows = self.array[key]
        self.longest = max(self.longest, len(rows))
        return rows


@pytest.mark.routine(1)
@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("block_rows", [7, 1000])
def test_streamed_solution_equals_that_of_the_whole_data(c, block_rows):
    X, Y, gates = data(c)
    cells = jaxcvx.Arrangements(gates @ X.T >= 0, gates)
    whole = jaxcvx.solve(jaxcvx.make_problem(X, Y, 1.0, arrangements=cells), jaxcvx.ProximalGradient(tol=1e-8))
    watched = Watched(X)
    streamed = solve_streamed(watched, Y, 1.0, gates, block_rows=block_rows, tol=1e-8)
    assert watched.longest <= block_rows
    assert streamed.status == jaxcvx.Status.CONVERGED and streamed.program_gap <= 1.1e-8
    assert float(streamed.objective) == pytest.approx(float(whole.objective), rel=1e-8)
    assert float(streamed.lower_bound) == pytest.approx(float(whole.lower_bound), rel=1e-6)
    assert float(streamed.upper_bound) <= 1.02 * float(whole.upper_bound)
    assert streamed.lower_bound <= streamed.upper_bound and streamed.scope == "sampled-cells"
    exact = jaxcvx.training_objective(streamed.network, X, Y, 1.0)
    assert float(streamed.upper_bound) == pytest.approx(float(exact), rel=1e-10)
    assert np.all(np.diff(streamed.history.step) == 1)


def test_memory_maps_in_float32(tmp_path):
    X, Y, gates = data()
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    np.save(tmp_path / "Y.npy", Y.astype(np.float32))
    files = [np.load(tmp_path / name, mmap_mode="r") for name in ("X.npy", "Y.npy")]
    streamed = solve_streamed(*files, 1.0, gates, block_rows=16, tol=1e-4)
    exact = solve_streamed(X, Y, 1.0, gates, tol=1e-9)
    assert streamed.params.dtype == np.float32
    assert streamed.program_gap <= 2e-4
    assert float(streamed.lower_bound) <= float(exact.upper_bound) * (1 + 1e-6)
    assert float(streamed.objective) == pytest.approx(float(exact.objective), rel=2e-4)


def test_warm_start_callback_and_zero_solution():
    X, Y, gates = data()
    cold = solve_streamed(X, Y, 1.0, gates, tol=1e-8)
    warm = solve_streamed(X, Y, 1.0, gates, tol=1e-8, init=cold.params)
    assert warm.num_steps == 1
    seen = []

    def callback(info):
        seen.append(info.step)
        return info.step == 3

    stopped = solve_streamed(X, Y, 1.0, gates, tol=1e-12, callback=callback)
    assert stopped.status == jaxcvx.Status.STOPPED and seen == [1, 2, 3]
    zero = solve_streamed(X, Y, 1e6, gates)
    assert zero.status == jaxcvx.Status.CONVERGED
    assert zero.upper_bound == pytest.approx(0.5 * np.sum(Y**2)) == zero.lower_bound


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": [[1.0]]}, ["X", "list"]),
        ({"X": np.zeros((N, 2, 2))}, ["X", "two axes"]),
        ({"Y": np.zeros((3, 2))}, ["Y", "3 rows", str(N)]),
        ({"X": np.full((N, D), np.nan)}, ["X", "NaN"]),
        ({"gates": np.zeros((3, 9))}, ["gates", "(3, 9)"]),
        ({"beta": -1.0}, ["beta", "-1"]),
        ({"block_rows": 0}, ["block_rows", "0"]),
        ({"tol": float("nan")}, ["tol", "nan"]),
        ({"max_steps": 0}, ["max_steps", "0"]),
        ({"init": np.zeros((1, 1, 1))}, ["init", "(1, 1, 1)"]),
    ],
)
def test_refusals(changes, words):
    X, Y, gates = data()
    arguments = {"X": X, "Y": Y, "beta": 1.0, "gates": gates} | changes
    with pytest.raises(jaxcvx.JaxcvxError) as caught:
        solve_streamed(**arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)
