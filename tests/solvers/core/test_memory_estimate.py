"""Memory is predicted before it is allocated, and what does not fit is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.numerics import memory
from jaxcvx.solvers.core import memory_estimate as estimate_module

SHAPE = jax.ShapeDtypeStruct


def shapes(n, d, P, c, dtype=jnp.float32, **options):
    """A problem without numbers."""
    cells = jaxcvx.Arrangements(SHAPE((P, n), bool), SHAPE((P, d), dtype))
    return jaxcvx.Problem(SHAPE((n, d), dtype), SHAPE((n, c), dtype), SHAPE((), dtype), cells, **options)


def small_problem(**options):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 10)
    return jaxcvx.make_problem(X, rng.standard_normal(40), 0.5, arrangements=cells, **options)


def test_an_estimate_needs_no_memory_and_counts_data_and_intermediates():
    """A problem of a terabyte, whose numbers could not be allocated."""
    n, d, P, c = 10**8, 784, 256, 10
    solver = jaxcvx.ProximalGradient(phases="accelerated")
    whole = shapes(n, d, P, c, max_bytes=None).memory_estimate(solver)
    data = 4 * n * (d + c) + P * n
    assert whole > data + 4 * n * d * c
    assert data < shapes(n, d, P, c).memory_estimate(solver) < 0.6 * whole


@pytest.mark.routine(1)
@pytest.mark.parametrize("kind", [jaxcvx.ProximalGradient, jaxcvx.GradientDescent])
def test_estimates_grow_with_the_data(kind):
    few, many = (shapes(n, 5, 8, 1).memory_estimate(kind()) for n in (10_000, 40_000))
    assert 2.5 < many / few < 4.1


def test_smooth_problems_too():
    measurements, operators = jnp.ones(2000), jnp.ones((2000, 10, 10))
    problem = jaxcvx.MatrixSensing(operators, measurements, 2)
    estimate = problem.memory_estimate(jaxcvx.GradientDescent())
    assert 8 * 202_000 < estimate < 10 * 8 * 202_000


def test_solvers_on_the_host_are_refused():
    with pytest.raises(jaxcvx.InvalidInputError, match="solver: got ColumnGeneration"):
        small_problem().memory_estimate(jaxcvx.ColumnGeneration())


def test_what_does_not_fit_is_refused_with_advice(monkeypatch):
    problem, solver = small_problem(), jaxcvx.ProximalGradient(tol=1e-3, phases="accelerated")
    need = problem.memory_estimate(solver)
    held = memory.tree_bytes(problem)  # in memory already, so not needed again
    monkeypatch.setattr(estimate_module, "available_bytes", lambda: need - held - 1)
    with pytest.raises(jaxcvx.NotEnoughMemory, match="ProximalGradient needs .*fewer cells") as caught:
        jaxcvx.solve(problem, solver)
    assert isinstance(caught.value, MemoryError)
    monkeypatch.setattr(estimate_module, "available_bytes", lambda: need - held)
    assert jaxcvx.solve(problem, solver).converged
    monkeypatch.setattr(estimate_module, "available_bytes", lambda: None)  # unknown: nothing is refused
    assert jaxcvx.solve(problem, solver).converged


@pytest.mark.routine(2)
@pytest.mark.parametrize(
    "solver",
    [
        jaxcvx.ProximalGradient(tol=1e-10, phases="accelerated"),
        pytest.param(jaxcvx.ProximalGradient(tol=1e-10), marks=pytest.mark.soak),
        pytest.param(jaxcvx.ConeADMM(tol=1e-8), marks=pytest.mark.soak),
    ],
)
def test_blocks_change_no_solution(solver):
    whole = jaxcvx.solve(small_problem(max_bytes=None), solver)
    blocked = jaxcvx.solve(small_problem(max_bytes=200), solver)
    np.testing.assert_allclose(blocked.objective, whole.objective, rtol=1e-7)
    assert blocked.converged and blocked.lower_bound <= whole.upper_bound


def test_bad_max_bytes():
    for wrong in (0, -5, 1.5, "1 GiB"):
        with pytest.raises(jaxcvx.InvalidInputError, match="max_bytes: got"):
            small_problem(max_bytes=wrong)


def test_available_memory_is_that_of_machine_and_container(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes() == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.available_bytes() == 4000 * 1024
    (tmp_path / "memory.max").write_text("50000\n")
    assert memory.available_bytes() == 49_000
    (tmp_path / "meminfo").unlink()
    (tmp_path / "memory.max").unlink()
    assert memory.available_bytes() is None
