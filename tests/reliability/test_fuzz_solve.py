"""Whatever finite data and whatever beta a problem has: every solver returns what it can prove, or refuses by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import jaxcvx
from jaxcvx import Arrangements, Status
from tests.helpers import cone_optimum
from tests.reliability.inputs import FLAWS, Counts, check_solution, flawed, good_betas, objective, seeds

SOLVERS: dict[str, Any] = {
    "gated": jaxcvx.ProximalGradient(max_steps=60),
    "nuclear": jaxcvx.NuclearProximalGradient(max_steps=60),
    "cone": jaxcvx.ConeADMM(max_steps=60),
    "cone per output": jaxcvx.ConeADMM(max_steps=60, grouping="per-output"),
    "copositive": jaxcvx.CopositiveADMM(max_steps=50),
    "frank-wolfe": jaxcvx.FrankWolfe(max_steps=100, radius=1.0),
    "frank-wolfe of a network": jaxcvx.FrankWolfe(max_steps=100),
    "columns": jaxcvx.ColumnGeneration(max_steps=5, width=8),
    "columns by multi-start": jaxcvx.ColumnGeneration(
        max_steps=2, width=8, pricing="multistart", num_starts=64, final_starts=64
    ),
    "cuts": jaxcvx.CuttingPlane(max_steps=10),
    "cuts by multi-start": jaxcvx.CuttingPlane(max_steps=3, oracle="multistart", num_starts=64, final_starts=64),
    "descent": jaxcvx.GradientDescent(max_steps=50, width=6),
    "noise": jaxcvx.AnnealedNoise(max_steps=50, width=6),
    "svd": jaxcvx.SoftThresholdedSVD(),
}
DEFAULT = ("gated", "nuclear", "frank-wolfe", "cuts", "descent", "svd")
FINITE = tuple(flaw for flaw in FLAWS if flaw not in ("nan", "inf", "-inf"))
SCALES = (1.0, 1.0, 1.0, 1e-8, 1e8, 1e-150, 1e150)
SCALES_OF_SINGLE = (1.0, 1.0, 1.0, 1e-8, 1e8, 1e-30, 1e30)


@pytest.fixture(autouse=True)
def programs_are_dropped_after_each_long_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A solver's programs for all losses and precisions hold many of the memory maps that a process may have."""
    yield
    if request.node.get_closest_marker("soak"):
        jax.clear_caches()


@functools.cache
def optimum(seed: int, flaw: str, beta: float) -> float:
    """Of the data below with one output and unscaled, by Clarabel."""
    X, Y = data(seed, flaw, 1)
    cells = jaxcvx.enumerate_arrangements(X)
    return cone_optimum(X, cells.masks, Y, beta)


def data(seed: int, flaw: str, c: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return flawed(rng, (6, 2), flaw), rng.standard_normal((6, c))


def twelve(cells: Arrangements) -> Arrangements:
    """The cells, the first ones again until there are twelve: one shape for all data in the plane."""
    again = np.arange(max(12, len(cells))) % len(cells)
    return Arrangements(cells.masks[again], cells.gates[again], cells.complete)


def targets(loss: str, Y: np.ndarray, one_class: bool) -> Any:
    if loss in ("logistic", "hinge"):
        return np.where(Y > 0, 1.0, -1.0) * 0 + 1 if one_class else np.where(Y > 0, 1.0, -1.0)
    if loss == "softmax":
        return (Y[:, 0] > 0).astype(int) + int(one_class)
    return np.zeros_like(Y) if one_class else Y


def solve_one(
    counts: Counts, name: str, loss: str, c: int, seed: int, flaw: str, scales: tuple[float, float], beta: float
) -> None:
    solver, rng = SOLVERS[name], np.random.default_rng(seed)
    X, Y = data(seed, flaw, c)
    single = jnp.result_type(float) == jnp.float32
    dtype = np.float32 if single else np.float64
    with np.errstate(over="ignore", under="ignore"):
        X, plain = (scales[0] * X).astype(dtype), targets(loss, Y, seed % 7 == 0)
        Y = (scales[1] * plain).astype(dtype) if loss in ("squared", "huber") else plain
    problem = counts.call(jaxcvx.make_problem, X, Y, beta, loss=loss)
    cells = counts.call(jaxcvx.enumerate_arrangements, X, max_cells=500)
    if problem is None or cells is None:
        return
    problem = problem.replace(arrangements=twelve(cells))
    if name == "svd":
        white = counts.call(jaxcvx.fit_whitening, X[:2])
        if white is None:
            return
        problem = counts.call(jaxcvx.make_problem, white(X[:2]), Y[:2], beta, loss=loss)
    solution = counts.call(jaxcvx.solve, problem, solver, key=jax.random.key(seed))
    if solution is None:
        return
    counts[Status(int(solution.status)).name.lower()] += 1
    own = float(problem.beta)
    check_claims(problem, solution, X[: len(problem.X)], Y[: len(problem.Y)], own, loss)
    if loss == "squared" and c == 1 and scales == (1.0, 1.0) and name != "svd" and flaw in ("none", "duplicate row"):
        if seed % 7 and own < 1e6 and solution.scope in ("global", "relaxation"):
            best = optimum(seed, flaw, own)
            tolerance = 1e-6 if single else 1e-7
            assert float(solution.lower_bound) <= best + tolerance * (1 + abs(best)), (name, seed)
            counts["compared with Clarabel"] += 1
    if rng.integers(4) == 0:
        method = ("auto", "exact", "relaxed")[seed % 3]
        found = counts.call(
            jaxcvx.certify, solution.network, problem.X, Y[: len(problem.Y)], own, loss=loss, method=method
        )
        if found is not None:
            numbers = [float(a) for a in (found.upper, found.lower, found.gap)]
            assert not np.isnan(numbers).any() and numbers[1] <= numbers[0]
            counts["certified again"] += 1


def check_claims(problem: Any, solution: Any, X: Any, Y: Any, beta: float, loss: str) -> None:
    for leaf in jax.tree.leaves(solution.network):
        assert not np.isnan(np.asarray(leaf)).any()
    if loss == "squared":
        check_solution(solution, np.asarray(problem.X), np.asarray(problem.Y), beta)
        return
    numbers = [float(a) for a in (solution.upper_bound, solution.lower_bound, solution.objective, solution.gap)]
    assert not np.isnan(numbers).any() and numbers[1] <= numbers[0]
    zero = float(problem.loss.value(jnp.zeros_like(problem.Y), problem.Y))
    if np.isfinite(zero) and solution.scope in ("global", "relaxation", "sampled-cells"):
        assert numbers[1] <= zero * (1 + 1e-5)


def fuzz(name: str, examples: int, losses: tuple[str, ...], columns: tuple[int, ...], single: bool) -> None:
    counts = Counts()
    scale = st.sampled_from(SCALES_OF_SINGLE if single else SCALES)

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
    @given(
        seeds, st.sampled_from(FINITE), st.tuples(scale, scale), good_betas, st.booleans(),
        st.sampled_from(losses), st.sampled_from(columns),
    )  # fmt: skip
    def one(seed, flaw, scales, beta, relative, loss, c):
        c = 1 if loss in ("logistic", "hinge") else c
        with np.errstate(over="ignore", under="ignore"):
            beta = beta * scales[0] * scales[1] if relative else beta
        solve_one(counts, name, loss, c, seed, flaw, scales, beta)

    one()
    counts.report(f"{name} ({'float32' if single else 'float64'})")


@pytest.mark.rare("frank-wolfe")
@pytest.mark.parametrize("name", DEFAULT)
def test_extreme_problems(name):
    fuzz(name, 12, ("squared",), (1,), False)


@pytest.mark.float32
@pytest.mark.parametrize("name", ["gated", "descent"])
def test_extreme_problems_in_float32(name):
    fuzz(name, 12, ("squared",), (1,), True)


@pytest.mark.soak
@pytest.mark.parametrize("name", SOLVERS)
def test_many_extreme_problems(name):
    losses = ("squared", "squared", "squared", "logistic", "softmax", "huber", "hinge")
    fuzz(name, 120, losses, (1, 2), False)


@pytest.mark.soak
@pytest.mark.float32
@pytest.mark.parametrize("name", SOLVERS)
def test_many_extreme_problems_in_float32(name):
    fuzz(name, 80, ("squared",), (1, 2), True)


@pytest.mark.long
@pytest.mark.parametrize("loss", ["squared"])
def test_polish_never_makes_extreme_networks_worse(loss):
    counts = Counts()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, Y = data(seed, FINITE[seed % len(FINITE)], 1)
        size = (1.0, 1e-8, 1e8)[seed % 3]
        network = jaxcvx.Network(size * rng.standard_normal((4, 2)), rng.standard_normal((4, 1)) / size)
        better = counts.call(jaxcvx.polish, network, X, Y, 0.1, loss=loss)
        assert objective(better, X, Y, 0.1) <= objective(network, X, Y, 0.1) * (1 + 1e-9)
    counts.report("polish")
