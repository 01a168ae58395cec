"""Networks with an output bias: predictions, objective, simplifications, files, and the solvers that train it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConvFlatten, ConvPool, Dense, GradientDescent, InvalidInputError, Network, make_problem, solve
from jaxcvx.networks.network import concatenate, padded, with_output_bias, zero_network
from jaxcvx.networks.objective import TrainingObjective
from jaxcvx.networks.width import reduce_width
from tests.helpers import gaussian_data, loss_value, network_value, targets_for

FEATURES = Dense(bias=True, output_bias=True)
BIAS = np.array([5.0, -2.0])


def random_network(width: int = 6, seed: int = 0) -> Network:
    """A network on two inputs with two outputs and penalised hidden biases."""
    rng = np.random.default_rng(seed)
    hidden, output = (jnp.asarray(rng.standard_normal(shape)) for shape in ((width, 3), (width, 2)))
    return Network(hidden, output, None, FEATURES, jnp.asarray(BIAS))


def numpy_predictions(network: Network, X: np.ndarray) -> np.ndarray:
    Z = np.concatenate([X, np.ones((len(X), 1))], axis=1)
    return np.maximum(Z @ np.asarray(network.hidden).T, 0) @ np.asarray(network.output) + np.asarray(
        network.output_bias
    )


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
def test_the_bias_is_added_and_not_penalised(loss):
    X, raw = gaussian_data(0, 9, 2, 2)
    network, Y = random_network(), targets_for(loss, raw)
    F = numpy_predictions(network, X)
    np.testing.assert_allclose(network(X), F, atol=1e-12)
    squares = float((np.asarray(network.hidden) ** 2).sum() + (np.asarray(network.output) ** 2).sum())
    value = float(jaxcvx.training_objective(network, X, Y, 0.3, loss))
    assert value == pytest.approx(loss_value(loss, F, Y) + 0.15 * squares, rel=1e-12)


@pytest.mark.parametrize("features", [ConvPool(2, pool="sum", output_bias=True), ConvFlatten(2, output_bias=True)])
def test_convolutions_have_one_number_for_each_output(features):
    X, Y = gaussian_data(0, 5, 4)
    columns = features.readout(4).columns(2)
    rng = np.random.default_rng(0)
    network = Network(
        jnp.asarray(rng.standard_normal((3, 2))), jnp.asarray(rng.standard_normal((3, columns))), None, features
    )
    with_bias = dataclasses.replace(network, output_bias=jnp.asarray(BIAS))
    np.testing.assert_allclose(with_bias(X), network(X) + BIAS, atol=1e-12)
    both = np.concatenate([Y, -Y], axis=1)
    assert np.isfinite(jaxcvx.training_objective(with_bias, X, both, 0.1))
    wrong = dataclasses.replace(network, output_bias=jnp.ones(1))
    with pytest.raises(InvalidInputError, match=r"^network.output_bias: got shape \(1,\)"):
        jaxcvx.training_objective(wrong, X, both, 0.1)
    assert type(features)(2, 1, "VALID", False, False, None).output_bias is False  # a keyword only


def test_simplifications_keep_the_function():
    X, Y = gaussian_data(0, 9, 2, 2)
    network = random_network()
    for simpler in (jaxcvx.balance(network), jax.jit(jaxcvx.balance)(network), jaxcvx.prune(network), padded(network)):
        np.testing.assert_allclose(simpler(jnp.asarray(X)), network(X), atol=1e-12)
        np.testing.assert_array_equal(simpler.output_bias, BIAS)
    balanced = jaxcvx.balance(network)
    np.testing.assert_allclose(np.linalg.norm(balanced.hidden, axis=1), np.linalg.norm(balanced.output, axis=1))
    twice = concatenate(network, network)
    np.testing.assert_allclose(twice(X), 2 * network(X), atol=1e-12)
    merged = jaxcvx.merge_parallel(twice)
    assert merged.width == 6
    np.testing.assert_allclose(merged(X), 2 * network(X), atol=1e-12)
    wide = random_network(40, seed=1)
    narrow = reduce_width(make_problem(X, Y, 0.1, features=FEATURES), wide)
    assert narrow.width <= 19
    np.testing.assert_allclose(narrow(X), wide(X), atol=1e-9)
    cells, others = (jaxcvx.arrangements_of(n, X) for n in (network, dataclasses.replace(network, output_bias=None)))
    np.testing.assert_array_equal(cells.masks, others.masks)


def test_files_hold_the_bias(tmp_path):
    for features in (FEATURES, ConvPool((2, 2), output_bias=True), ConvFlatten(3, output_bias=True)):
        network = dataclasses.replace(random_network(), features=features)
        jaxcvx.save(tmp_path / "network.npz", network)
        back = jaxcvx.load(tmp_path / "network.npz")
        assert back.features == features
        jax.tree.map(np.testing.assert_array_equal, back, network)


def test_biases_belong_to_features_that_have_one():
    X, Y = gaussian_data(0, 9, 2, 2)
    for features in (Dense(bias=True), FEATURES.without_output_bias()):
        with pytest.raises(InvalidInputError, match=r"^network.output_bias: .*output_bias=True or FreeBias"):
            jaxcvx.training_objective(dataclasses.replace(random_network(), features=features), X, Y, 0.1)
    problem = make_problem(X, Y, 0.1, features=FEATURES)
    np.testing.assert_array_equal(zero_network(problem).output_bias, [0, 0])
    plain = dataclasses.replace(random_network(), features=Dense(bias=True), output_bias=None)
    adopted = with_output_bias(plain, problem)
    assert adopted.features == FEATURES
    np.testing.assert_array_equal(adopted.output_bias, [0, 0])
    assert with_output_bias(plain, problem.replace(features=Dense(bias=True))) is plain
    other = with_output_bias(dataclasses.replace(plain, features=Dense()), problem)
    assert other.features == Dense()  # another first layer is not adopted


@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_a_constant_in_Y_moves_the_predictions_of_gradient_descent(loss):
    X, Y = gaussian_data(0, 12, 2)
    solver = GradientDescent(width=5, max_steps=300, schedule="cosine")
    near, far = (
        solve(make_problem(X, Y + shift, 0.3, loss=loss, features=FEATURES), solver, key=jax.random.key(0))
        for shift in (0.0, 1000.0)
    )
    np.testing.assert_allclose(far.network(X), near.network(X) + 1000, atol=1e-6)
    assert float(far.upper_bound) == pytest.approx(float(near.upper_bound), rel=1e-8)
    assert near.network.output_bias.shape == (1,) and near.network.features == FEATURES


def test_the_stopping_test_measures_gradients_by_the_weights_that_decay():
    X, Y = gaussian_data(0, 9, 2, 2)
    network = random_network()
    objective = TrainingObjective(make_problem(X, Y, 0.3, features=FEATURES), width=6)
    expected = 0.3 * np.sqrt((np.asarray(network.hidden) ** 2).sum() + (np.asarray(network.output) ** 2).sum())
    assert float(objective.gradient_scale(network, jnp.ones(()))) == pytest.approx(expected, rel=1e-12)
    free = Network(network.hidden, network.output, None, jaxcvx.FreeBias(), network.output_bias)
    squares = (np.asarray(network.hidden)[:, :-1] ** 2).sum() + (np.asarray(network.output) ** 2).sum()
    assert float(objective.gradient_scale(free, jnp.ones(()))) == pytest.approx(0.3 * squares**0.5, rel=1e-12)


@pytest.mark.parametrize("solver", [GradientDescent(width=4, max_steps=2000), jaxcvx.AnnealedNoise(width=4)])
def test_gradient_solvers_train_the_bias_without_decay(solver):
    X, Y = gaussian_data(0, 12, 2)
    problem = make_problem(X, Y + 3, 1e3, features=Dense(output_bias=True))  # no neuron pays
    start = Network(jnp.zeros((1, 2)), jnp.zeros((1, 1)))  # of other features, without a bias
    solution = solve(problem, solver, init=start, key=jax.random.key(0))
    np.testing.assert_allclose(solution.network.output_bias, Y.mean() + 3, atol=1e-2)
    value = network_value(np.zeros((1, 2)), np.zeros((1, 1)), X, Y - Y.mean(), 1e3)
    assert float(solution.upper_bound) == pytest.approx(value, rel=1e-4)


def test_solvers_without_output_biases_say_so():
    X, Y = gaussian_data(0, 9, 2)
    problem = make_problem(X, Y, 0.1, features=Dense(output_bias=True), arrangements=jaxcvx.enumerate_arrangements(X))
    refusing = [
        *(jaxcvx.ProximalGradient(), jaxcvx.NuclearProximalGradient(), jaxcvx.ConeADMM(), jaxcvx.CopositiveADMM()),
        *(jaxcvx.FrankWolfe(), jaxcvx.SoftThresholdedSVD()),
    ]
    for solver in refusing:
        with pytest.raises(InvalidInputError, match=r"^features: got output_bias=True, expected a penalised bias"):
            solve(problem, solver)
    for closed_form in (jaxcvx.whitened_solution, jaxcvx.rank_one_solution, jaxcvx.semi_nmf):
        with pytest.raises(InvalidInputError, match="output bias"):
            closed_form(problem)
    with pytest.raises(InvalidInputError, match="^features"):
        jaxcvx.spike_free_solution(problem)
