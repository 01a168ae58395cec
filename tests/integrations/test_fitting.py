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
BIAS = jaxcvx.Dense(bias=True)


def coded(loss):
    if loss == "squared":
        return Y
    return np.where(Y > 0, 1.0, -1.0) if loss == "logistic" else np.eye(2)[(Y[:, 0] > 0).astype(int)]


def some_network(p, q, features=BIAS, seed=2):
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(q) if features.output_bias else None
    return Network(rng.standard_normal((5, p)), rng.standard_normal((5, q)), None, features, bias)


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_the_padded_objective_is_the_original_one(loss):
    """For any network the value of the merged, padded, weighted problem is that of repeated samples."""
    targets, beta = coded(loss), 0.7
    training = fitting.prepare(X, targets, WEIGHTS, loss, BIAS)
    network = some_network(5, targets.shape[1])
    got = fitting.objective(training.problem, training.adopt(network), beta)
    again = np.repeat(np.arange(30), WEIGHTS.astype(int))
    Z = np.c_[X, np.ones(30)][again]
    labels = targets[again].argmax(axis=1) if loss == "softmax" else targets[again]
    expected = network_value(network.hidden, network.output, Z, labels, beta, loss)
    assert got == pytest.approx(expected, rel=1e-12)


def test_restoring_undoes_adopting_and_balances():
    features = jaxcvx.Dense(output_bias=True)
    training = fitting.prepare(X, Y, WEIGHTS, "squared", features)
    network = some_network(4, 2, features)
    network.hidden[2] = 0
    back = training.restore(training.adopt(network))
    np.testing.assert_allclose(back(X), network(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(back.hidden, axis=1), np.linalg.norm(back.output, axis=1))
    assert back.hidden.shape == (4, 4) and back.features == features  # no zero neurons, no added columns
    network.output[:] = 0
    nothing = training.restore(training.adopt(network))
    assert nothing.hidden.shape == (1, 4) and not nothing.hidden.any()
    np.testing.assert_array_equal(nothing.output_bias, network.output_bias)


def test_equal_samples_are_one_with_the_sum_of_their_weights():
    order = np.random.default_rng(3).permutation(60)
    twice = fitting.prepare(np.r_[X, X][order], np.r_[Y, Y][order], np.ones(60), "squared", BIAS)
    double = fitting.prepare(X, Y, np.full(30, 2.0), "squared", BIAS)
    assert twice.num_rows == 30
    for a, b in zip(jax.tree.leaves(twice.problem), jax.tree.leaves(double.problem), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.asarray(twice.problem.X)[twice.owner, :4], np.r_[X, X][order])


def test_samples_of_weight_zero_are_dropped():
    kept = WEIGHTS > 0
    without = fitting.prepare(X[kept], Y[kept], WEIGHTS[kept], "squared", BIAS)
    with_them = fitting.prepare(X, Y, WEIGHTS, "squared", BIAS)
    np.testing.assert_array_equal(with_them.problem.X, without.problem.X)
    np.testing.assert_array_equal(np.asarray(with_them.problem.X)[with_them.owner[kept], :4], X[kept])


def test_folds_of_the_samples_are_weights_of_the_rows():
    training = fitting.prepare(np.r_[X, X[:5]], np.r_[Y, Y[:5]], np.ones(35), "squared", BIAS)
    parts = training.folds([(np.arange(30), np.arange(30, 35)), (np.arange(5, 35), np.arange(5))])
    assert parts.train[0].sum() == 30 and parts.test[0].sum() == 5
    np.testing.assert_array_equal(parts.train[0], parts.train[1])  # the repeated samples are one row
    np.testing.assert_array_equal(parts.test[0], parts.test[1])
    drawn = training.random_folds(3, False, jax.random.key(0))
    np.testing.assert_array_equal((drawn.train + drawn.test)[0], training.problem.sample_weight)
    assert not ((drawn.train > 0) & (drawn.test > 0)).any()


def test_stratified_folds():
    signs = np.where(np.arange(30) < 6, 1.0, -1.0)[:, None]
    training = fitting.prepare(X, signs, np.ones(30), "logistic", BIAS)
    parts = training.random_folds(3, True, jax.random.key(0))
    positive = np.asarray(training.problem.Y)[:, 0] > 0
    np.testing.assert_array_equal((parts.test * positive).sum(axis=1), 2)


def test_constant_zero_data_have_a_normal_form():
    training = fitting.prepare(np.zeros((3, 2)), np.zeros((3, 1)), np.ones(3), "squared", jaxcvx.Dense())
    assert 0 < fitting.beta_max(training, jaxcvx.ColumnGeneration()) < 1e-6


@pytest.mark.routine(2)
@pytest.mark.parametrize("size", [1, 33, 255, 256, 257, 1000, 1500, 4097, 60_000])
def test_buckets_are_never_too_small_and_waste_little(size):
    padded = fitting.bucket(size, 32, 256)
    assert padded >= max(size, 32) and padded - size < (max(32, size) if size <= 256 else size / 7)
    assert fitting.bucket(padded, 32, 256) == padded


def test_the_number_of_buckets_is_small():
    assert {fitting.bucket(size, 32, 256) for size in range(1, 257)} == {32, 64, 128, 256}
    assert len({fitting.bucket(size, 32, 256) for size in range(257, 4097)}) == 32
    assert {fitting.bucket(size, 4, 16) for size in range(1, 17)} == {4, 8, 16}


@pytest.mark.routine(1)
@pytest.mark.parametrize("outputs", [1, 2])
def test_beta_max_equals_that_of_enumerated_cells(outputs):
    data, targets = gaussian_data(5, 12, 2, outputs)
    cells = jaxcvx.enumerate_arrangements(data)
    exact = jaxcvx.make_problem(data, targets, 1.0, arrangements=cells).beta_max("network")
    training = fitting.prepare(1e3 * data, 1e-2 * targets, np.ones(12), "squared", jaxcvx.Dense())
    assert fitting.beta_max(training, jaxcvx.ColumnGeneration()) == pytest.approx(10 * float(exact), rel=1e-6)


def test_all_cells_are_used_if_they_are_few():
    data, _ = gaussian_data(5, 12, 2)
    all_cells = fitting.choose_cells(data, 40, jax.random.key(0))
    assert all_cells.complete and all_cells.num_cells == 24
    assert not fitting.choose_cells(data, 20, jax.random.key(0)).complete
