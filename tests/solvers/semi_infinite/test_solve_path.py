"""Paths as solutions: the largest beta, and networks that are finished or stay as they are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import regularization_path
from jaxcvx.errors import InvalidInputError
from tests.solvers.semi_infinite.test_neuron_path import FRACTIONS, SMALL, entry, problem_of


@pytest.fixture(scope="module")
def plain():
    with jax.enable_x64(True):
        problem = problem_of()
        top = float(SMALL.largest_beta(problem, None))
        return problem, regularization_path(problem, top * FRACTIONS, SMALL)


def test_the_largest_beta_is_that_of_the_exact_one():
    problem = problem_of(output_bias=True)
    cells = jaxcvx.enumerate_arrangements(problem.X, features=problem.features)
    exact = float(problem.replace(arrangements=cells).beta_max("network"))
    assert float(SMALL.largest_beta(problem, None)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_only_the_chosen_networks_are_finished(plain, dtype):
    problem, path = plain
    problem = jax.tree.map(lambda a: jnp.asarray(a, dtype), problem)
    rough = regularization_path(problem, path.betas, dataclasses.replace(SMALL, final_rounds=0))
    some = SMALL.finish_path(problem, rough, {1}, jax.random.key(1))
    assert some.upper_bound[1] == pytest.approx(float(path.upper_bound[1]), rel=1e-6)
    assert some.upper_bound[1] < rough.upper_bound[1] and some.num_steps[1] > rough.num_steps[1]
    own = jaxcvx.training_objective(entry(some, 1), problem.X, problem.Y, float(path.betas[1]))
    assert some.network.hidden.dtype == dtype and float(own) == pytest.approx(float(some.upper_bound[1]), rel=1e-6)
    for name in ("upper_bound", "heuristic_bound", "gap", "status", "num_steps"):
        np.testing.assert_array_equal(np.delete(getattr(some, name), 1), np.delete(getattr(rough, name), 1))
    none = dataclasses.replace(SMALL, final_rounds=0).finish_path(problem, rough, {1}, None)
    assert none is rough


def test_a_callback_sees_every_beta_and_may_end_the_path():
    rng = np.random.default_rng(0)
    problem = jaxcvx.make_problem(rng.standard_normal((24, 3)), rng.standard_normal(24), 1.0)
    solver = jaxcvx.ColumnGeneration(width=16, new_neurons=16, moves=2, move_steps=50, rounds=4, final_rounds=0)
    betas, seen = [4.0, 2.0, 1.0], []
    path = jaxcvx.regularization_path(problem, betas, solver, callback=seen.append)
    assert [(info.step, info.max_steps) for info in seen] == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_allclose([info.objective for info in seen], path.upper_bound, rtol=1e-5)
    assert all(info.bound <= info.objective * (1 + 1e-6) for info in seen)
    assert all(isinstance(info.params, jaxcvx.Network) for info in seen)
    alone = jaxcvx.regularization_path(problem, betas, solver)
    np.testing.assert_allclose(path.upper_bound, alone.upper_bound, rtol=1e-4)
    short = jaxcvx.regularization_path(problem, betas, solver, callback=lambda info: info.step == 2)
    assert short.betas.shape == short.upper_bound.shape == (2,)
    np.testing.assert_allclose(short.upper_bound, path.upper_bound[:2], rtol=1e-6)


def test_progress_shows_every_beta(capsys):
    problem = jaxcvx.make_problem([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [1.0, 0.0, 1.0], 1.0)
    solver = jaxcvx.ColumnGeneration(width=8, move_steps=5, moves=1, rounds=2, final_rounds=0)
    jaxcvx.regularization_path(problem, [0.4, 0.1], solver, callback=jaxcvx.Progress("text", seconds=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "step 1/2" in lines[0] and "step 2/2" in lines[1]


def test_a_callback_that_nobody_calls_is_refused():
    X = [[0.0], [1.0]]
    problem = jaxcvx.make_problem(X, [1.0, 0.0], 1.0, arrangements=jaxcvx.enumerate_arrangements(X))
    with pytest.raises(InvalidInputError, match="callback"):
        jaxcvx.regularization_path(problem, [1.0, 0.1], jaxcvx.ProximalGradient(), callback=print)
    with pytest.raises(InvalidInputError, match="callback"):
        jax.jit(lambda p: jaxcvx.regularization_path(p, [1.0], jaxcvx.ColumnGeneration(), callback=print))(problem)
