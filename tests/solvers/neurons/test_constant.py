"""The output bias in refit and polish: optimal together with the weights, and never worse."""

from __future__ import annotations

import dataclasses

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConvFlatten, ConvPool, Dense, Network, make_problem
from jaxcvx.networks.network import network_objective
from jaxcvx.solvers.neurons.constant import with_best_constant
from jaxcvx.solvers.neurons.refit import refit_outputs
from jaxcvx.solvers.polish import improve_hidden
from tests.helpers import cone_optimum, gaussian_data, targets_for

BIASED = Dense(output_bias=True)
LOSSES = ["squared", "huber", "logistic", "softmax"]


def network(c: int = 1, width: int = 5, d: int = 3, seed: int = 1) -> Network:
    rng = np.random.default_rng(seed)
    hidden, output = (jnp.asarray(rng.standard_normal(shape)) for shape in ((width, d), (width, c)))
    return Network(hidden, output, None, BIASED, jnp.zeros(c))


def data(loss: str, n: int = 20, d: int = 3):
    X, raw = gaussian_data(0, n, d, 3 if loss == "softmax" else 1)
    return X, targets_for(loss, raw + 0.7)


def group_lasso(X, Y, start: Network, beta: float, loss: str, weight: np.ndarray) -> float:
    """The optimum over output weights and biases by Clarabel, from the definition."""
    unit = np.asarray(start.hidden)
    atoms = np.maximum(X @ (unit / np.linalg.norm(unit, axis=1, keepdims=True)).T, 0)
    c = start.output.shape[1]
    W, b = cp.Variable((len(unit), c)), cp.Variable((1, c))
    F = atoms @ W + np.ones((len(X), 1)) @ b
    if loss == "squared":
        value = 0.5 * cp.sum(cp.multiply(weight[:, None], cp.square(F - Y)))
    elif loss == "huber":
        value = 0.5 * cp.sum(cp.multiply(weight[:, None], cp.huber(F - Y, 1)))
    elif loss == "logistic":
        value = cp.sum(cp.multiply(weight[:, None], cp.logistic(-cp.multiply(Y, F))))
    else:
        hot = np.eye(c)[np.ravel(Y)]
        value = weight @ (cp.log_sum_exp(F, axis=1) - cp.sum(cp.multiply(hot, F), axis=1))
    problem = cp.Problem(cp.Minimize(value + beta * cp.sum(cp.norm(W, 2, axis=1))))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9)
    return float(problem.value)


@pytest.mark.routine("softmax-True", "squared-False")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_refit_is_clarabels_group_lasso_with_a_bias(loss, weighted):
    X, Y = data(loss)
    weight = np.arange(20) % 3 + 0.5 if weighted else None
    problem = make_problem(X, Y, 0.5, loss=loss, features=BIASED, sample_weight=weight)
    start = network(problem.num_outputs)
    fitted = refit_outputs(problem, start, tol=1e-10, max_steps=20_000)
    optimum = group_lasso(X, Y, start, 0.5, loss, np.ones(20) if weight is None else weight)
    assert float(network_objective(fitted, problem)) == pytest.approx(optimum, rel=1e-6)
    jitted = jax.jit(refit_outputs)(problem, start)
    assert float(network_objective(jitted, problem)) <= optimum * (1 + 1e-4)


@pytest.mark.parametrize("features", [BIASED, ConvPool(2, output_bias=True), ConvFlatten(2, output_bias=True)])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_a_constant_in_Y_moves_the_predictions_of_a_refit(loss, features):
    X, Y = data(loss, 9, 5)  # fewer samples than neurons, or rows that are patches: no compression
    p, q = features.num_weights(5), features.readout(5).columns(1)
    rng = np.random.default_rng(0)
    hidden, output = (jnp.asarray(rng.standard_normal(shape)) for shape in ((12, p), (12, q)))
    start = Network(hidden, output, None, features)
    near, far = (
        refit_outputs(make_problem(X, Y + shift, 0.3, loss=loss, features=features), start, tol=1e-11, max_steps=20_000)
        for shift in (0.0, 1000.0)
    )
    np.testing.assert_allclose(far(jnp.asarray(X)), near(jnp.asarray(X)) + 1000, atol=1e-4)
    assert near.output_bias.shape == (1,)


@pytest.mark.routine("True-squared", "False-logistic")
@pytest.mark.parametrize("loss", [*LOSSES, "hinge", "interpolation"])
@pytest.mark.parametrize("skip", [False, True])
def test_nothing_makes_a_network_worse(loss, skip):
    X, Y = data(loss)
    features = Dense(skip=skip, output_bias=True)
    problem = make_problem(X, Y, 0.5, loss=loss, features=features)
    c = problem.num_outputs
    start = dataclasses.replace(
        network(c), features=features, output_bias=0.3 * jnp.ones(c), skip=0.1 * jnp.ones((3, c)) if skip else None
    )
    before = float(network_objective(start, problem))
    for better in (
        refit_outputs(problem, start, max_steps=1),
        refit_outputs(problem, start),
        improve_hidden(problem, start, 20),
        jaxcvx.polish(start, X, Y, 0.5, loss=loss),
    ):
        assert float(network_objective(better, problem)) <= before * (1 + 1e-12)
        assert better.features == features and better.output_bias.shape == (c,)
    without = dataclasses.replace(start, output_bias=None)  # counts as 0
    assert jaxcvx.polish(without, X, Y, 0.5, loss=loss).output_bias.shape == (c,)


@pytest.mark.routine("logistic")
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_polish_reaches_the_optimum_over_the_networks_cells(loss):
    X, Y = gaussian_data(5, 12, 2)
    Y = targets_for(loss, Y + 0.5)
    problem = make_problem(X, Y, 0.4, loss=loss, features=BIASED)
    solution = jaxcvx.solve(problem, jaxcvx.CuttingPlane(tol=1e-8))
    rng = np.random.default_rng(0)
    moved = dataclasses.replace(
        solution.network,
        hidden=solution.network.hidden * jnp.asarray(rng.uniform(0.9, 1.1, solution.network.hidden.shape)),
        output_bias=solution.network.output_bias + 1.0,
    )
    polished = jaxcvx.polish(moved, X, Y, 0.4, loss=loss)
    value = float(network_objective(polished, problem))
    cells = jaxcvx.arrangements_of(moved, X)
    assert value < float(network_objective(moved, problem)) * (1 - 1e-3)
    assert value <= cone_optimum(X, cells.masks, Y, 0.4, loss=loss, output_bias=True) * (1 + 1e-3)
    assert value >= float(solution.lower_bound) * (1 - 1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_best_constant_is_a_minimum(loss):
    X, Y = data(loss)
    problem = make_problem(X, Y, 0.5, loss=loss, features=BIASED)
    best = with_best_constant(problem, network(problem.num_outputs))
    value = float(network_objective(best, problem))
    for step in 1e-3 * np.concatenate([np.eye(problem.num_outputs), -np.eye(problem.num_outputs)]):
        near = dataclasses.replace(best, output_bias=best.output_bias + step)
        assert float(network_objective(near, problem)) >= value - 1e-12
    plain = dataclasses.replace(best, features=Dense(), output_bias=None)
    assert with_best_constant(problem, plain) is plain
