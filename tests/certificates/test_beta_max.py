"""beta_max: the zero solution is optimal from this beta on, and not below it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import Dense, InvalidInputError, InvalidTypeError, beta_max, enumerate_arrangements, make_problem
from tests.helpers import (
    cone_optimum,
    distinct_cells,
    gated_optimum,
    gaussian_data,
    loss_value,
    neurons_in_the_plane,
    targets_for,
)

LOSSES = ["squared", "logistic", "huber", "hinge", "softmax"]


def case(loss: str, c: int = 1, features: Dense = Dense()):
    X, raw = gaussian_data(2, 8, 2, 3 if loss == "softmax" else c)
    Y = targets_for(loss, raw)
    Z = np.concatenate([X, np.ones((8, 1))], axis=1) if features.bias else X
    problem = make_problem(X, Y, 0.1, loss=loss, features=features, arrangements=distinct_cells(0, Z, 7))
    at_zero = loss_value(loss, np.zeros_like(raw), Y)
    return problem, Z, Y, at_zero


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("features", [Dense(), Dense(bias=True, skip=True)])
def test_gated_threshold_by_clarabel(loss, features):
    problem, Z, Y, at_zero = case(loss, 2, features)
    threshold = float(beta_max(problem))
    assert threshold == float(problem.beta_max()) == float(beta_max(problem, "gated"))
    masks = problem.arrangements.masks
    above, below = (gated_optimum(Z, masks, Y, f * threshold, loss=loss, skip=features.skip) for f in (1.001, 0.99))
    assert above == pytest.approx(at_zero, rel=1e-8)
    assert below < at_zero * (1 - 1e-7)


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "hinge"])
@pytest.mark.parametrize("features", [Dense(), Dense(bias=True, skip=True)])
def test_network_threshold_by_clarabel(loss, features):
    problem, Z, Y, at_zero = case(loss, 1, features)
    threshold = float(beta_max(problem, "network"))
    masks = problem.arrangements.masks
    above, below = (cone_optimum(Z, masks, Y, f * threshold, loss=loss, skip=features.skip) for f in (1.001, 0.99))
    assert above == pytest.approx(at_zero, rel=1e-8)
    assert below < at_zero * (1 - 1e-7)
    assert threshold <= float(beta_max(problem, "gated")) * (1 + 1e-12)


def test_gated_threshold_is_the_formula():
    for c in (1, 3):
        problem, Z, Y, _ = case("squared", c)
        masks = np.asarray(problem.arrangements.masks, float)
        expected = max(np.linalg.norm(Z.T @ (mask[:, None] * Y)) for mask in masks)
        assert float(beta_max(problem)) == pytest.approx(expected, rel=1e-13)


def test_without_cells_it_is_an_upper_bound():
    X, Y = gaussian_data(2, 8, 2)
    complete = make_problem(X, Y, 0.1, arrangements=enumerate_arrangements(X))
    exact = float(beta_max(complete, "network"))
    bound = float(beta_max(make_problem(X, Y, 0.1)))
    assert exact <= bound <= 3 * exact
    assert exact == pytest.approx(np.abs(Y[:, 0] @ neurons_in_the_plane(X)).max(), rel=1e-6)
    assert float(beta_max(complete.replace(arrangements=distinct_cells(0, X, 3)), "network")) <= exact * (1 + 1e-12)


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_solver_finds_zero_above_and_not_below(loss):
    problem, *_ = case(loss)
    threshold = float(beta_max(problem))
    solver = jaxcvx.ProximalGradient(tol=1e-9)
    above = jaxcvx.solve(problem.replace(beta=1.001 * threshold), solver)
    below = jaxcvx.solve(problem.replace(beta=0.99 * threshold), solver)
    np.testing.assert_array_equal(above.params, 0)
    assert above.status == below.status == jaxcvx.Status.CONVERGED and above.program_gap <= 1e-9
    assert float(jnp.abs(below.params).max()) > 0
    assert float(jnp.abs(above.network(problem.X)).max()) == 0


def test_zero_targets_have_threshold_zero():
    problem, *_ = case("squared")
    assert float(beta_max(problem.replace(Y=0 * problem.Y))) == 0
    assert float(beta_max(problem.replace(Y=0 * problem.Y), "network")) == 0


def test_it_works_under_jit_and_vmap():
    problem, *_ = case("squared")
    for program in ("gated", "network"):
        expected = float(beta_max(problem, program))
        assert float(jax.jit(lambda p, program=program: beta_max(p, program))(problem)) == pytest.approx(expected)
    scales = jnp.arange(1.0, 4.0)
    many = jax.vmap(lambda s: beta_max(problem.replace(Y=s * problem.Y)))(scales)
    np.testing.assert_allclose(many, scales * beta_max(problem), rtol=1e-12)


def test_bad_arguments_are_refused():
    problem, *_ = case("squared", 2)
    with pytest.raises(InvalidInputError, match="^program: got 'cone', expected 'gated' or 'network'"):
        beta_max(problem, "cone")
    with pytest.raises(InvalidInputError, match="^program: .*arrangements"):
        beta_max(problem.replace(arrangements=None), "gated")
    with pytest.raises(InvalidTypeError, match="^program: .*several outputs inside jit"):
        jax.jit(lambda p: beta_max(p, "network"))(problem)


def test_several_outputs_with_cells_are_priced_exactly():
    X, Y = gaussian_data(2, 8, 2, 2)
    problem = make_problem(X, Y, 0.1, arrangements=enumerate_arrangements(X))
    top = float(beta_max(problem, "network"))
    assert top == pytest.approx(np.linalg.norm(neurons_in_the_plane(X).T @ Y, axis=1).max(), rel=1e-6)
    assert top <= float(beta_max(make_problem(X, Y, 0.1))) * (1 + 1e-12)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_search_closes_the_bound_for_all_networks(loss):
    X, Y = gaussian_data(0, 14, 3)
    Y = targets_for(loss, Y)
    for features in (jaxcvx.Dense(), jaxcvx.Dense(output_bias=True), jaxcvx.Dense(skip=True)):
        problem = jaxcvx.make_problem(X, Y, 1.0, loss=loss, features=features)
        cells = jaxcvx.enumerate_arrangements(X)
        exact = jaxcvx.beta_max(problem.replace(arrangements=cells), "network")
        found = jaxcvx.beta_max(problem, max_seconds=60)
        assert exact <= found * (1 + 1e-6) and found <= exact * (1 + 2e-6) <= jaxcvx.beta_max(problem)
        assert found.dtype == problem.dtype


def test_a_search_is_refused_where_it_does_not_fit():
    X, Y = gaussian_data(0, 8, 2)
    problem = jaxcvx.make_problem(X, Y, 1.0)
    with pytest.raises(InvalidInputError, match="max_seconds"):
        jaxcvx.beta_max(problem.replace(arrangements=jaxcvx.enumerate_arrangements(X)), "network", max_seconds=1)
    with pytest.raises(InvalidTypeError, match="max_seconds"):
        jax.jit(lambda Y: jaxcvx.beta_max(problem.replace(Y=Y), max_seconds=1))(jnp.asarray(Y))
