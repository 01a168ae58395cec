"""The master program of cutting planes against CVXPY; slots; the same function with fewer neurons."""

from __future__ import annotations

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import FreeBias, make_problem
from jaxcvx.solvers.semi_infinite.master import Cuts, cleaned, cuts_network, cuts_objective, fit_cuts, grown
from tests.helpers import _cvxpy_loss, _minimise, gaussian_data, targets_for


def setting(loss: str = "squared", c: int = 1, free: bool = False, m: int = 9, n: int = 14):
    X, Y = gaussian_data(0, n, 3, c)
    problem = make_problem(X, targets_for(loss, Y), 0.4, loss=loss, features=FreeBias() if free else "dense")
    U = np.random.default_rng(1).standard_normal((m, problem.rows.shape[1]))
    U /= np.linalg.norm(U[:, :3] if free else U, axis=1, keepdims=True)
    U[-1] = 0  # an empty slot
    return problem, Cuts(jnp.asarray(U), jnp.zeros((m, c)), jnp.zeros(c), problem.Y)


def optimum(problem, cuts, loss: str, free: bool) -> float:
    A, Y = np.maximum(np.asarray(problem.rows) @ np.asarray(cuts.directions).T, 0), np.asarray(problem.Y)
    W, b = cp.Variable((A.shape[1], Y.shape[1])), cp.Variable((1, Y.shape[1]))
    F = A @ W + (np.ones((len(A), 1)) @ b if free else 0)
    return _minimise(_cvxpy_loss(loss, F, Y) + 0.4 * cp.sum(cp.norm(W, 2, axis=1)), [])


CASES = [("squared", 1, False), ("squared", 2, True), ("logistic", 1, True), ("hinge", 1, False)]


@pytest.mark.routine(2)
@pytest.mark.parametrize(("loss", "c", "free"), CASES)
def test_master_program_has_the_optimum_of_clarabel(loss, c, free):
    problem, cuts = setting(loss, c, free)
    fitted = fit_cuts(problem, cuts)
    assert float(cuts_objective(problem, fitted)) == pytest.approx(optimum(problem, cuts, loss, free), rel=1e-6)
    activations = np.maximum(np.asarray(problem.rows) @ np.asarray(cuts.directions).T, 0)
    norms = np.linalg.norm(activations.T @ np.asarray(fitted.dual), axis=1)
    assert norms.max() <= 0.4 * (1 + 1e-5)  # the constraints of the given neurons hold
    assert not np.asarray(fitted.weights[-1]).any()
    if free:
        np.testing.assert_allclose(np.asarray(fitted.dual).sum(axis=0), 0, atol=1e-7)


def test_growing_keeps_the_used_slots():
    problem, cuts = setting()
    fitted = fit_cuts(problem, cuts)
    new = np.eye(3)[:2]
    larger = grown(fitted, new, 16)
    assert larger.directions.shape == (16, 3) and larger.weights.shape == (16, 1)
    np.testing.assert_array_equal(larger.directions[8:10], new)
    np.testing.assert_allclose(cuts_objective(problem, larger), cuts_objective(problem, fitted), rtol=1e-12)
    assert float(cuts_objective(problem, fit_cuts(problem, larger))) <= float(cuts_objective(problem, fitted)) + 1e-12


def test_dependent_neurons_are_removed_at_no_cost():
    """Every neuron occurs twice and the weights of a pair are shared. One neuron of each pair is removed."""
    problem, cuts = setting()
    fitted = fit_cuts(problem, cuts)
    w = 0.5 * fitted.weights
    double = fitted._replace(directions=jnp.concatenate([fitted.directions] * 2), weights=jnp.concatenate([w, w]))
    small = cleaned(problem, double)
    used = int((np.asarray(small.weights) != 0).sum())
    assert used == int((np.abs(np.asarray(fitted.weights)) > 1e-12).sum())
    np.testing.assert_allclose(cuts_objective(problem, small), cuts_objective(problem, fitted), rtol=1e-9)
    np.testing.assert_allclose(
        cuts_network(problem, small)(problem.X), cuts_network(problem, fitted)(problem.X), atol=1e-8
    )
