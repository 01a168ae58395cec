"""The last rounds of column generation: proved bounds, fresh starts where ascents stall, deadlines and room."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.pricing.oracles import choose_pricer
from jaxcvx.solvers.core.solution import Status
from jaxcvx.solvers.semi_infinite.final_rounds import ascent_rounds, exact_rounds, with_far, with_room
from jaxcvx.solvers.semi_infinite.neuron_path import empty_start
from jaxcvx.solvers.semi_infinite.sliding import Settings
from tests.helpers import gaussian_data

SETTINGS = Settings(new_neurons=8, starts=16, ascent_rounds=2, ascent_steps=4)


def problem_of(d=2):
    return jaxcvx.make_problem(*gaussian_data(0, 20, d), 0.5)


@pytest.mark.parametrize("limit", [0, 50])
def test_exact_rounds_prove_the_optimum_or_end_at_the_limit(limit):
    problem = problem_of()
    seen: list[tuple[float, ...]] = []
    done = exact_rounds(
        problem,
        empty_start(problem, 4, SETTINGS).pool,
        choose_pricer(problem, "exact", 1),
        tol=1e-9,
        limit=limit,
        deadline=np.inf,
        num=8,
        report=lambda step, value, bound, gap, pool: bool(seen.append((step, value, bound, gap))),
    )
    assert done.steps == len(seen) - 1
    if limit == 0:
        assert done.status == Status.MAX_STEPS and seen[0][3] > 1e-3
        return
    assert done.status == Status.CONVERGED and seen[-1][3] <= 1e-9
    assert np.all(np.diff([each[1] for each in seen]) <= 1e-12) and np.all(np.diff([each[2] for each in seen]) >= 0)


def test_ascents_take_neurons_from_fresh_starts_and_stop_at_the_deadline():
    problem = problem_of(3)
    start = empty_start(problem, 16, SETTINGS)
    limits = {"tol": 1e-8, "limit": 40, "report": lambda *_: False}
    done = ascent_rounds(problem, start, jax.random.key(0), SETTINGS, 128, deadline=np.inf, **limits)
    exact = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(pricing="exact", width=16, move_steps=0, tol=1e-9))
    value = float(jnp.sum(jnp.linalg.norm(done.pool.weights, axis=1)) * problem.beta + 0.5 * jnp.sum(done.dual**2))
    assert done.status == Status.CONVERGED
    assert value == pytest.approx(float(exact.upper_bound), rel=1e-5)
    late = ascent_rounds(problem, start, jax.random.key(0), SETTINGS, 128, deadline=time.perf_counter(), **limits)
    assert late.status == Status.MAX_STEPS and late.steps == 0


def test_far_neurons_replace_candidates_that_pay_less():
    problem = problem_of(3)
    start = empty_start(problem, 16, SETTINGS)
    found = with_far(problem, start, jax.random.key(0), 64)
    assert found.candidates.prices[0] > 0 and found.candidates.directions.shape == start.candidates.directions.shape
    high = start._replace(candidates=start.candidates._replace(prices=jnp.full(8, 1e9)))
    assert with_far(problem, high, jax.random.key(0), 64) is high


def test_room_doubles():
    pool = empty_start(problem_of(), 4, SETTINGS).pool
    assert len(with_room(pool, 3).weights) == 4 and len(with_room(pool, 9).weights) == 16
