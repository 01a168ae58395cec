"""gated nuclear <= doubly non-negative relaxation <= exact <= every gradient-descent run, on random problems.

Two shapes, 100 problems each, all links on all 200: eight points in the plane with three outputs (16 cells, where the
relaxation is exact) and six points in space with two outputs (32 cells, some with five or six facets, where it is not).
Everything is compiled once per shape: complete arrangements of generic rows have equally many cells, and the facets
are padded to the number of rows. Column generation alone runs problem by problem.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    ColumnGeneration,
    CopositiveADMM,
    GradientDescent,
    NuclearProximalGradient,
    Problem,
    Solution,
    Status,
    enumerate_arrangements,
    make_problem,
    solve,
)
from jaxcvx.solvers.copositive.program import CellFacets, with_facets
from tests.helpers import gaussian_data

pytestmark = pytest.mark.long

SEEDS, RUNS = 100, 4
TOL = 1e-7
SHAPES = {"plane": (8, 2, 3, 16), "space": (6, 3, 2, 32)}  # n, d, c, cells


class Chain(NamedTuple):
    """Solutions of all problems of a shape, stacked; the exact ones in a list."""

    nuclear: Solution
    relaxed: Solution
    exact: list[Solution]
    descent: Solution  # (SEEDS, RUNS)


def random_problem(seed: int, n: int, d: int, c: int, cells: int) -> Problem:
    X, Y = gaussian_data(seed, n, d, c)
    arrangements = enumerate_arrangements(X)
    assert arrangements.masks.shape == (cells, n)
    beta = 10 ** np.random.default_rng(seed).uniform(-1.5, 0.3)
    return make_problem(X, Y, beta, arrangements=arrangements)


def prepared(problem: Problem) -> Problem:
    """With facets, padded to one shape; without faces, so that the lower bound is the relaxation's own."""
    problem = with_facets(problem)
    extra = problem.num_samples - problem.facets.index.shape[1]
    pad = [(0, 0), (0, extra)]
    index, scale = jnp.pad(problem.facets.index, pad), jnp.pad(problem.facets.scale, pad)
    facets = CellFacets(index, scale, jnp.pad(problem.facets.rays, [*pad, (0, 0)]))
    return dataclasses.replace(problem, facets=facets, faces=None)


def stack(problems: list[Problem]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)


@pytest.fixture(scope="module", params=SHAPES)
def chain(request: pytest.FixtureRequest) -> Chain:
    with jax.enable_x64(True):
        problems = [random_problem(seed, *SHAPES[request.param]) for seed in range(SEEDS)]
        batch = stack(problems)
        # Waited for: XLA on two cores can stall if small programs are sent behind a batch of decompositions.
        nuclear = jax.block_until_ready(jax.jit(jax.vmap(lambda p: solve(p, NuclearProximalGradient(tol=TOL))))(batch))
        relaxed = jax.jit(jax.vmap(lambda p: solve(p, CopositiveADMM(tol=TOL))))(stack(list(map(prepared, problems))))
        adam = GradientDescent(width=20, max_steps=1000, check_every=100, schedule="cosine", learning_rate=0.03)
        keys = jax.random.split(jax.random.key(0), (SEEDS, RUNS))
        descent = jax.jit(jax.vmap(lambda p, own: jax.vmap(lambda key: solve(p, adam, key=key))(own)))(batch, keys)
        generate = ColumnGeneration(tol=TOL, width=10, new_neurons=20, move_steps=0)
        exact = [solve(problem, generate) for problem in problems]
        return jax.device_get(Chain(nuclear, relaxed, exact, descent))


def exact_values(chain: Chain, name: str = "objective") -> np.ndarray:
    return np.array([getattr(solution, name) for solution in chain.exact])


@pytest.mark.slow
def test_objectives_are_ordered(chain: Chain) -> None:
    """Each is within TOL of its own optimum from above, the exact one from both sides."""
    exact = exact_values(chain)
    assert all(np.all(solution.status == Status.CONVERGED) for solution in (chain.nuclear, chain.relaxed, *chain.exact))
    assert all(solution.scope == "global" for solution in chain.exact)
    slack = 2 * TOL * exact
    assert np.all(chain.nuclear.objective <= chain.relaxed.objective + slack)
    assert np.all(chain.relaxed.objective <= exact + slack)
    assert np.all(exact <= chain.descent.objective.min(axis=1) + slack)


@pytest.mark.slow
def test_every_lower_bound_is_below_every_upper_bound(chain: Chain) -> None:
    relaxations = (chain.nuclear, chain.relaxed)
    lower = np.stack([s.lower_bound for s in relaxations] + [exact_values(chain, "lower_bound")])
    upper = np.stack([s.upper_bound for s in relaxations] + [exact_values(chain, "upper_bound")])
    largest = np.maximum(lower.max(axis=0), chain.descent.lower_bound.max(axis=1))
    least = np.minimum(upper.min(axis=0), chain.descent.upper_bound.min(axis=1))
    assert np.all(largest <= least * (1 + 1e-12)) and np.all(np.isfinite(lower)) and np.all(np.isfinite(upper))


@pytest.mark.slow
def test_links_are_strict_where_they_may_be(chain: Chain, request: pytest.FixtureRequest) -> None:
    exact = exact_values(chain)
    assert np.median((exact - chain.nuclear.objective) / exact) > 0.1
    assert np.max((chain.descent.objective.min(axis=1) - exact) / exact) > 1e-3
    lost = (exact - chain.relaxed.objective) / exact
    if request.node.callspec.params["chain"] == "plane":  # two facets: doubly non-negative is completely positive
        assert np.max(np.abs(lost)) <= 2 * TOL
    else:
        assert np.max(lost) > 1e-6
