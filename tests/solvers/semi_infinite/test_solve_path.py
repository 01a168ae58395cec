"""Paths as solutions: the largest beta, and networks that are finished or stay as they are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import regularization_path
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
