"""The normal form of an estimator's data keeps the problem; nearly equal sizes share a compiled program."""

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.integrations import fitting
from jaxcvx.networks.network import Network
from tests.helpers import gaussian_data, network_value

X, Y = gaussian_data(0, 30, 4, 2)
WEIGHTS = np.random.default_rng(1).integers(0, 4, 30).astype(float)


def coded(loss):
    if loss == "squared":
        return Y
    return np.where(Y > 0, 1.0, -1.0) if loss == "logistic" else np.eye(2)[(Y[:, 0] > 0).astype(int)]


def some_network(p, q, seed=2):
    rng = np.random.default_rng(seed)
    return Network(rng.standard_normal((5, p)), rng.standard_normal((5, q)), None, jaxcvx.Dense())


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_the_scaled_objective_times_the_unit_is_the_original_objective(loss):
    """For any network the value of the scaled, padded, merged problem times ``unit`` is the weighted objective."""
    targets, beta = coded(loss), 0.7
    training = fitting.prepare(X, targets, WEIGHTS, loss, bias=True)
    network = some_network(5, targets.shape[1])
    scaled = training.adopt(network, 5)
    problem = training.problem.replace(beta=beta * training.beta_factor)
    got = training.unit * float(jaxcvx.networks.network.network_objective(scaled, problem))
    again = np.repeat(np.arange(30), WEIGHTS.astype(int))
    Z = np.c_[X, np.ones(30)][again]
    labels = targets[again].argmax(axis=1) if loss == "softmax" else targets[again]
    expected = network_value(network.hidden, network.output, Z, labels, beta, loss)
    assert got == pytest.approx(expected, rel=1e-12)


def test_restoring_undoes_adopting_and_balances():
    training = fitting.prepare(X, Y, WEIGHTS, "squared", bias=False)
    network = some_network(4, 2)
    back = training.restore(training.adopt(network, 8))
    f = np.maximum(X @ network.hidden.T, 0) @ network.output
    np.testing.assert_allclose(np.maximum(X @ back.hidden.T, 0) @ back.output, f, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(back.hidden, axis=1), np.linalg.norm(back.output, axis=1))
    assert back.hidden.shape == (5, 4)  # without zero neurons and without added columns


def test_equal_samples_are_one_with_the_sum_of_their_weights():
    order = np.random.default_rng(3).permutation(60)
    twice = fitting.prepare(np.r_[X, X][order], np.r_[Y, Y][order], np.ones(60), "squared", bias=True)
    double = fitting.prepare(X, Y, np.full(30, 2.0), "squared", bias=True)
    assert len(twice.rows) == 30 and twice.unit == double.unit
    for a, b in zip(jax.tree.leaves(twice.problem), jax.tree.leaves(double.problem), strict=True):
        np.testing.assert_array_equal(a, b)


def test_samples_of_weight_zero_are_dropped():
    without = fitting.prepare(X[WEIGHTS > 0], Y[WEIGHTS > 0], WEIGHTS[WEIGHTS > 0], "squared", bias=True)
    np.testing.assert_array_equal(fitting.prepare(X, Y, WEIGHTS, "squared", bias=True).problem.X, without.problem.X)


def test_constant_zero_data_have_a_normal_form():
    training = fitting.prepare(np.zeros((3, 2)), np.zeros((3, 1)), np.ones(3), "squared", bias=False)
    assert training.input_scale == training.target_scale == 1
    assert fitting.beta_max(training) == 0


@pytest.mark.routine(2)
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1000, 1500, 4097, 60_000])
def test_buckets_are_never_too_small_and_waste_little(size):
    padded = fitting.bucket(size, 256)
    assert padded >= size and (padded - size) < max(256, size / 7)
    assert fitting.bucket(padded, 256) == padded


def test_the_number_of_buckets_is_small():
    assert len({fitting.bucket(size, 256) for size in range(1, 4097)}) == 16
    assert len({fitting.bucket(size, 1) for size in range(2**16, 2**17)}) <= 9


@pytest.mark.routine(1)
@pytest.mark.parametrize("outputs", [1, 2])
def test_beta_max_equals_that_of_enumerated_cells(outputs):
    data, targets = gaussian_data(5, 12, 2, outputs)
    cells = jaxcvx.enumerate_arrangements(data)
    exact = jaxcvx.make_problem(data, targets, 1.0, arrangements=cells).beta_max("network")
    training = fitting.prepare(data, targets, np.ones(12), "squared", bias=False)
    assert fitting.beta_max(training) == pytest.approx(float(exact), rel=1e-6)


def test_all_cells_are_used_if_they_are_few():
    data, targets = gaussian_data(5, 12, 2)
    training = fitting.prepare(data, targets, np.ones(12), "squared", bias=False)
    all_cells = fitting.choose_cells(training, 40, jax.random.key(0))
    assert all_cells.complete and all_cells.masks.shape == (40, training.problem.num_samples)
    assert len(np.unique(np.asarray(all_cells.masks)[:, :12], axis=0)) == 24
    sampled = fitting.choose_cells(training, 20, jax.random.key(0))
    assert not sampled.complete
    margins = np.asarray(sampled.gates) @ np.asarray(training.problem.X).T
    np.testing.assert_array_equal(sampled.masks, margins >= 0)  # masks of added zero rows are True


@pytest.mark.parametrize("warm", [False, True])
def test_a_fit_is_between_its_bound_and_the_zero_network(warm):
    training = fitting.prepare(X, Y, WEIGHTS, "squared", bias=True)
    top = fitting.beta_max(training)
    start = some_network(5, 2) if warm else None
    fit = fitting.fit(training, 0.1 * top, num_cells=16, solver=None, max_steps=200, seed=0, warm=start)
    zero = 0.5 * float((WEIGHTS[:, None] * Y**2).sum())
    assert fit.lower_bound <= fit.objective < zero and fit.num_steps == 200
    again = np.repeat(np.arange(30), WEIGHTS.astype(int))
    Z = np.c_[X, np.ones(30)][again]
    value = network_value(fit.network.hidden, fit.network.output, Z, Y[again], 0.1 * top, "squared")
    assert fit.objective == pytest.approx(value, rel=1e-10)  # computed from the returned weights
