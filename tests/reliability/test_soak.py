"""Thousands of solves in one process: memory and the number of compiled programs stay where they are."""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcvx

SHAPES = ((30, 3, 12, 1), (50, 4, 16, 2), (64, 2, 8, 1))  # n, d, cells, outputs
SOLVERS = (
    jaxcvx.ProximalGradient(tol=1e-4),
    jaxcvx.ConeADMM(tol=1e-3, phases="admm", max_steps=200),
    jaxcvx.GradientDescent(width=8, max_steps=40),
    jaxcvx.NuclearProximalGradient(tol=1e-3, max_steps=200),
)


@contextlib.contextmanager
def compiled_programs() -> Iterator[list[str]]:
    """Names of the programs that are compiled inside, but for copies of numpy arrays."""
    names: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            copy = "jit(stage)" in message  # of a numpy array to the device, one for each shape
            if message.startswith("Finished XLA compilation") and not copy:
                names.append(message.split()[4])

    listener, logger = Listener(), logging.getLogger("jax._src.dispatch")
    logger.addHandler(listener)
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.removeHandler(listener)


def resident_bytes() -> int:
    """Memory of this process, of Linux."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def random_solve(rng: np.random.Generator, shape: tuple[int, int, int, int], solver) -> jaxcvx.Solution:
    n, d, cells, c = shape
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    gates = rng.standard_normal((cells, d))
    cells = jaxcvx.Arrangements(gates @ X.T >= 0, gates)
    problem = jaxcvx.make_problem(X, Y, 10 ** rng.uniform(-2, 1), arrangements=cells)
    solution = jaxcvx.solve(problem, solver, key=jax.random.key(int(rng.integers(2**31))))
    assert np.isfinite(solution.upper_bound) and solution.lower_bound <= solution.upper_bound
    assert int(solution.status) in (jaxcvx.Status.CONVERGED, jaxcvx.Status.MAX_STEPS)
    return solution


def solve_many(count: int, shapes: tuple = SHAPES, solvers: tuple = SOLVERS) -> None:
    rng = np.random.default_rng(0)
    pairs = [(shape, solver) for shape in shapes for solver in solvers]
    for pair in pairs * 3:  # compiles; rounding takes a few sizes, so not all the first time
        random_solve(rng, *pair)
    before, objects = resident_bytes(), len(gc.get_objects())
    began = time.perf_counter()
    with compiled_programs() as compiled:
        for k in range(count):
            random_solve(rng, *pairs[k % len(pairs)])
    grown = resident_bytes() - before
    print(
        f"{count} solves in {time.perf_counter() - began:.0f} s: {grown / 2**20:.1f} MiB more, "
        f"{len(gc.get_objects()) - objects} objects more, {len(compiled)} programs compiled"
    )
    assert len(compiled) <= 2 * len(pairs)
    assert grown < 64 * 2**20 + 4096 * count
    assert len(gc.get_objects()) - objects < 20_000 + 2 * count


def fit_many(count: int) -> None:
    """Estimators pad their data, so that all sizes within a factor share a program."""
    from jaxcvx.estimators import ConvexReLURegressor

    rng = np.random.default_rng(0)

    def fit() -> None:
        n, d = int(rng.integers(20, 250)), int(rng.integers(1, 15))
        X = rng.standard_normal((n, d))
        model = ConvexReLURegressor(beta=0.3, beta_scale="relative", max_iter=50).fit(
            X, X[:, 0] + rng.standard_normal(n)
        )
        assert np.isfinite(model.predict(X[:3])).all() and model.lower_bound_ <= model.objective_

    fit()
    before = resident_bytes()
    with compiled_programs() as compiled:
        for _ in range(count):
            fit()
    grown = resident_bytes() - before
    print(f"{count} fits of other shapes: {grown / 2**20:.1f} MiB more, {len(compiled)} programs compiled")
    assert len(compiled) <= 10 + count // 20
    assert grown < 128 * 2**20


@pytest.mark.long
def test_some_solves_and_fits() -> None:
    solve_many(48, SHAPES[1:2], (SOLVERS[0], SOLVERS[2]))
    fit_many(5)


@pytest.mark.soak
def test_two_thousand_solves() -> None:
    solve_many(2000)


@pytest.mark.soak
def test_two_hundred_fits() -> None:
    fit_many(200)
