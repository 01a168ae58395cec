"""The interior-point method on the cells of given neurons, against Clarabel's optimum of the same cone program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.solvers.neurons.cell_program import solve_in_cells
from tests.helpers import gaussian_data, targets_for

cvxpy = pytest.importorskip("cvxpy")


def network_of(problem, m=5, outputs=1, seed=0):
    """Hidden weights of m neurons and an empty slot, and unit output directions."""
    first, second = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(first, (m + 1, problem.rows.shape[1])).at[m].set(0.0)
    towards = unit_rows(jax.random.normal(second, (m + 1, outputs)))
    return x, towards


def objective(problem, x, towards, b):
    F = jax.nn.relu(problem.rows @ x.T) @ towards + b
    return float(problem.loss.value(F, problem.targets) + problem.beta * jnp.sum(norm(x)))


def clarabel(problem, x, towards, loss, free):
    """Optimum of the convex program over the cells of x."""
    Z, Y, m = np.asarray(problem.rows), np.asarray(problem.Y), x.shape[0] - 1
    masks = np.asarray(Z @ np.asarray(x).T >= 0)[:, :m]
    U, b = cvxpy.Variable((Z.shape[1], m)), cvxpy.Variable((1, Y.shape[1]))
    inner = Z @ U
    F = cvxpy.multiply(masks, inner) @ np.asarray(towards)[:m] + np.ones((len(Z), 1)) @ b
    limits = [cvxpy.multiply(2.0 * masks - 1, inner) >= 0] + ([] if free else [b == 0])
    if loss == "squared":
        cost = 0.5 * cvxpy.sum_squares(F - Y)
    elif loss == "logistic":
        cost = cvxpy.sum(cvxpy.logistic(-cvxpy.multiply(Y, F)))
    else:
        cost = cvxpy.sum(cvxpy.log_sum_exp(F, axis=1)) - cvxpy.sum(cvxpy.multiply(Y, F))
    penalty = float(problem.beta) * cvxpy.sum(cvxpy.norm(U, axis=0))
    return cvxpy.Problem(cvxpy.Minimize(cost + penalty), limits).solve(solver="CLARABEL")


CASES = [("squared", 1, True), ("squared", 3, False), ("logistic", 1, False), ("softmax", 3, True)]


@pytest.mark.routine(2)
@pytest.mark.parametrize(("loss", "outputs", "free"), CASES)
def test_reaches_the_optimum_of_the_cone_program(loss, outputs, free):
    X, Y = gaussian_data(3, 30, 3, outputs)
    features = jaxcvx.Dense(bias=True, output_bias=free)
    problem = jaxcvx.make_problem(X, targets_for(loss, Y), 1.0, loss=loss, features=features)
    x, towards = network_of(problem, outputs=outputs)
    b = jnp.zeros(outputs)
    found = jax.jit(lambda x: solve_in_cells(problem, x, towards, b, free))(x)
    got, best = objective(problem, found.x, towards, found.b), clarabel(problem, x, towards, loss, free)
    assert got == pytest.approx(best, rel=3e-7)
    assert got < objective(problem, x, towards, b)
    assert not np.any(np.asarray(found.x[-1])) and (free or not np.any(np.asarray(found.b)))
    signs = np.where(np.asarray(problem.rows @ x.T) >= 0, 1, -1) * np.asarray(problem.rows @ found.x.T)
    assert signs.min() > -1e-6 * np.abs(signs).max()  # the neurons stay in their cells


def test_convolutions_and_weights():
    """Whatever the readout, the loss and the weights: the objective falls, and a second solve gains nothing."""
    X, Y = gaussian_data(3, 30, 4, 2)
    features = jaxcvx.ConvFlatten((2,), output_bias=True)
    weight = np.arange(30) % 3.0
    problem = jaxcvx.make_problem(X[:, :, None], Y, 1.0, features=features, sample_weight=weight)
    x, towards = network_of(problem, outputs=problem.num_columns)
    b = jnp.zeros(2)

    def value(w):
        F = problem.readout.apply(jax.nn.relu(problem.rows @ w.x.T), towards) + w.b
        return float(problem.loss.value(F, problem.targets) + problem.beta * jnp.sum(norm(w.x)))

    solver = jax.jit(lambda x, b: solve_in_cells(problem, x, towards, b, True))
    first = solver(x, b)
    second = solver(first.x, first.b)
    start = first._replace(x=x, b=b)
    assert value(first) < value(start)
    assert value(second) == pytest.approx(value(first), rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_a_bias_does_not_run_off_where_the_cross_entropy_is_flat(seed):
    """A constant added to all outputs changes no prediction. Steps of rounding over rounding would end at 1e15."""
    X, Y = gaussian_data(1, 24, 3, 3)
    features = jaxcvx.Dense(output_bias=True)
    problem = jaxcvx.make_problem(X, targets_for("softmax", Y), 10.0, loss="softmax", features=features)
    start = jnp.asarray(np.random.default_rng(seed).normal(size=3))
    found = solve_in_cells(problem, jnp.zeros((4, 3)), jnp.zeros((4, 3)), start, True).b
    share = np.asarray(problem.Y).mean(axis=0)
    value = problem.loss.value(jnp.broadcast_to(found, (24, 3)), problem.targets)
    np.testing.assert_allclose(value, -24 * (share * np.log(share)).sum(), rtol=1e-12)
    assert float(jnp.mean(found)) == pytest.approx(float(jnp.mean(start)), abs=1e-9)
