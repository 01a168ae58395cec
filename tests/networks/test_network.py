"""The network: predictions, objective, and the simplifications that keep its function."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcvx
from jaxcvx import Dense, InvalidInputError, Network, make_problem, training_objective
from jaxcvx.errors import InvalidTypeError
from jaxcvx.networks.network import (
    balance,
    balanced_penalty,
    concatenate,
    merge_parallel,
    network_objective,
    prune,
    weight_penalty,
    zero_network,
)
from jaxcvx.networks.recovery import widen
from tests.helpers import network_value

D, C, M = 3, 2, 7
X = np.random.default_rng(0).standard_normal((20, D))
Y = np.random.default_rng(1).standard_normal((20, C))
networks = st.builds(
    lambda seed, bias, skip: random_network(seed, Dense(bias=bias, skip=skip)),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
)


def random_network(seed: int, features: Dense = Dense()) -> Network:
    """Seven neurons of very different sizes: one dead on each side, and two multiples of others."""
    rng = np.random.default_rng(seed)
    p = D + features.bias
    hidden = rng.standard_normal((M, p)) * 10.0 ** rng.uniform(-2, 2, (M, 1))
    output = rng.standard_normal((M, C)) * 10.0 ** rng.uniform(-2, 2, (M, 1))
    hidden[2], output[4] = 0, 0
    hidden[5], hidden[6] = 0.3 * hidden[0], 70 * hidden[1]
    skip = jnp.asarray(rng.standard_normal((p, C))) if features.skip else None
    return Network(jnp.asarray(hidden), jnp.asarray(output), skip, features)


def predictions(network: Network) -> np.ndarray:
    """In numpy, from the definition."""
    Z = np.concatenate([X, np.ones((20, 1))], axis=1) if network.features.bias else X
    F = np.maximum(Z @ np.asarray(network.hidden).T, 0) @ np.asarray(network.output)
    return F if network.skip is None else F + Z @ np.asarray(network.skip)


def assert_same_function(a: Network, b: Network) -> None:
    size = np.abs(np.asarray(a.hidden)).sum() * np.abs(np.asarray(a.output)).max()
    np.testing.assert_allclose(predictions(a), predictions(b), atol=1e-13 * (1 + size))


@settings(max_examples=30)
@given(networks)
def test_prediction_is_the_formula(network):
    np.testing.assert_allclose(network(jnp.asarray(X)), predictions(network), rtol=1e-11, atol=1e-9)
    assert network.width == M


@settings(max_examples=30)
@given(networks)
def test_balancing_keeps_the_function_and_takes_the_least_penalty(network):
    balanced = balance(network)
    assert_same_function(network, balanced)
    assert float(weight_penalty(balanced)) <= float(weight_penalty(network)) * (1 + 1e-14)
    assert float(weight_penalty(balanced)) == pytest.approx(float(balanced_penalty(network)), rel=1e-13)
    a, b = (np.linalg.norm(w, axis=1) for w in (balanced.hidden, balanced.output))
    np.testing.assert_allclose(a, b, rtol=1e-13)
    assert a[2] == a[4] == 0
    again = balance(balanced)
    np.testing.assert_allclose(again.hidden, balanced.hidden, rtol=1e-14)


@settings(max_examples=30)
@given(networks)
def test_merging_keeps_the_function_and_never_raises_the_penalty(network):
    merged = merge_parallel(network)
    assert_same_function(network, merged)
    assert float(weight_penalty(merged)) <= float(balanced_penalty(network)) * (1 + 1e-13)
    assert merged.width == 3  # seven, less two dead ones, less two multiples


def test_opposite_neurons_are_not_merged():
    network = Network(jnp.asarray([[1.0, 2.0], [-1.0, -2.0]]), jnp.asarray([[1.0], [1.0]]))
    assert merge_parallel(network).width == 2


def test_neurons_that_cancel_are_pruned_when_merged():
    network = Network(jnp.asarray([[1.0, 0.0], [2.0, 0.0]]), jnp.asarray([[1.0], [-0.5]]))
    assert float(jnp.abs(merge_parallel(network).output).max()) == 0


def test_tolerance_of_merging():
    near = Network(jnp.asarray([[1.0, 0.0], [1.0, 1e-4]]), jnp.ones((2, 1)))
    assert merge_parallel(near).width == 2
    assert merge_parallel(near, tol=1e-3).width == 1


@pytest.mark.float32
def test_parallel_neurons_are_merged_in_float32():
    network = random_network(0)
    assert network.hidden.dtype == jnp.float32
    assert merge_parallel(network).width == 3
    assert merge_parallel(network).hidden.dtype == jnp.float32


@settings(max_examples=30)
@given(networks)
def test_pruning_drops_dead_neurons_only(network):
    pruned = prune(network)
    assert pruned.width == M - 2
    assert_same_function(network, pruned)
    assert jax.tree.structure(pruned) == jax.tree.structure(network)


def test_pruning_by_size_and_of_the_zero_network():
    network = Network(jnp.asarray([[1.0], [1e-3], [1.0]]), jnp.asarray([[1.0], [1.0], [0.0]]))
    assert prune(network).width == 2 and prune(network, tol=1e-2).width == 1
    nothing = prune(Network(jnp.zeros((4, 2)), jnp.ones((4, 3))))
    assert nothing.hidden.shape == (1, 2) and nothing.output.shape == (1, 3)
    assert merge_parallel(Network(jnp.zeros((4, 2)), jnp.ones((4, 3)))).width == 1


@settings(max_examples=15)
@given(networks, st.integers(0, 10**6))
def test_concatenation_adds_functions(network, seed):
    other = random_network(seed, network.features)
    both = concatenate(network, other)
    np.testing.assert_allclose(predictions(both), predictions(network) + predictions(other), rtol=1e-11, atol=1e-9)
    assert both.width == 2 * M


def test_widening_and_the_zero_network():
    network = random_network(0, Dense(skip=True))
    assert widen(network, 9).width == 9 and widen(network, 3).width == M
    assert_same_function(network, widen(network, 9))
    problem = make_problem(X, Y, 0.1, features=Dense(bias=True, skip=True))
    zero = zero_network(problem, 4)
    assert zero.hidden.shape == (4, D + 1) and zero.output.shape == (4, C) and zero.skip.shape == (D + 1, C)
    np.testing.assert_array_equal(zero(problem.X), 0)
    assert zero_network(make_problem(X, Y, 0.1)).skip is None


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "hinge", "softmax"])
def test_training_objective_is_the_formula(loss):
    network = random_network(3)
    network = dataclasses.replace(network, hidden=network.hidden / 50, output=network.output / 50)
    targets = {"softmax": (Y[:, 0] > 0).astype(int), "logistic": np.sign(Y), "hinge": np.sign(Y)}.get(loss, Y)
    value = float(training_objective(network, X, targets, 0.3, loss))
    expected = network_value(np.asarray(network.hidden), np.asarray(network.output), X, targets, 0.3, loss)
    assert value == pytest.approx(expected, rel=1e-12)


def test_training_objective_with_bias_and_skip():
    network = random_network(3, Dense(bias=True, skip=True))
    penalty = 0.5 * (np.sum(np.square(network.hidden)) + np.sum(np.square(network.output)))
    penalty += np.linalg.norm(network.skip)  # the skip connection is one group, not squared
    expected = 0.5 * np.sum((predictions(network) - Y) ** 2) + 0.3 * penalty
    assert float(training_objective(network, X, Y, 0.3)) == pytest.approx(expected, rel=1e-12)


def test_weights_may_come_from_other_frameworks():
    weights = np.random.default_rng(0)
    network = Network(weights.standard_normal((5, D)), weights.standard_normal((5, C)))
    expected = network_value(network.hidden, network.output, X, Y, 0.1)
    assert float(training_objective(network, X, Y, 0.1)) == pytest.approx(expected, rel=1e-12)
    assert_same_function(network, merge_parallel(network))


@pytest.mark.parametrize("features", [Dense(), Dense(bias=True, skip=True)])
def test_gradient_is_finite_at_the_zero_network(features):
    problem = make_problem(X, Y, 0.1, features=features)
    gradient = jax.grad(network_objective)(zero_network(problem, 3), problem)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.grad(balanced_penalty)(gradient)))


def test_networks_work_under_jit_and_vmap():
    network = random_network(0, Dense(bias=True, skip=True))
    np.testing.assert_allclose(jax.jit(lambda net, x: net(x))(network, X), predictions(network), rtol=1e-11)
    batch = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), network)
    balanced = jax.jit(jax.vmap(balance))(batch)
    np.testing.assert_allclose(balanced.hidden[0], balance(network).hidden, rtol=1e-13)
    values = jax.vmap(lambda net: net(jnp.asarray(X)))(batch)
    assert values.shape == (2, 20, C)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"network": "net"}, InvalidTypeError, "network: got str"),
        (
            {"network": Network(np.ones((2, D)), np.ones((3, C)))},
            InvalidInputError,
            "network: .*2 hidden and 3",
        ),
        ({"network": Network(np.ones((2, 5)), np.ones((2, C)))}, InvalidInputError, "X: got 3 columns"),
        (
            {"network": Network(np.ones((2, D)), np.ones((2, 4)))},
            InvalidInputError,
            "Y: got 2 outputs, expected 4",
        ),
        ({"network": Network(np.ones(D), np.ones((2, C)))}, InvalidInputError, "network.hidden"),
        (
            {"network": Network(np.full((2, D), np.nan), np.ones((2, C)))},
            InvalidInputError,
            "network.hidden: got nan",
        ),
        (
            {"network": Network(np.ones((2, D)), np.full((2, C), np.inf))},
            InvalidInputError,
            "network.output: got inf",
        ),
        ({"X": X[0]}, InvalidInputError, "X: "),
        ({"X": X * np.nan}, InvalidInputError, "X: got nan"),
        ({"Y": Y[:5]}, InvalidInputError, "Y: got 5 rows"),
        ({"beta": -1.0}, InvalidInputError, "beta: "),
        ({"loss": "l1"}, InvalidInputError, "loss: "),
        ({"loss": "logistic"}, InvalidInputError, "Y: .*-1 and"),
        (
            {"loss": "softmax", "Y": np.full(20, 2)},
            InvalidInputError,
            "Y: got label 2.*2, the number of outputs",
        ),
    ],
)
def test_bad_arguments_are_refused(change, error, words):
    arguments = {"network": random_network(0), "X": X, "Y": Y, "beta": 0.1, "loss": "squared"} | change
    with pytest.raises(error, match="^" + words):
        training_objective(**arguments)


def test_a_skip_connection_must_fit():
    for skip, features in (
        (np.ones((D, C + 1)), Dense(skip=True)),
        (np.full((D, C), np.nan), Dense(skip=True)),
    ):
        with pytest.raises(InvalidInputError, match="^network.skip"):
            training_objective(Network(np.ones((2, D)), np.ones((2, C)), skip, features), X, Y, 0.1)


@pytest.mark.parametrize(
    ("features", "hidden", "made", "message"),
    [
        (jaxcvx.Dense(), 3, np.ones((4, 2)), "got 2 columns, expected 3"),
        (jaxcvx.Dense(bias=True), 3, np.ones((4, 3)), "got 3 columns, expected 2"),
        (jaxcvx.FreeBias(), 3, np.ones((4, 1)), "got 1 columns, expected 2"),
        (jaxcvx.Dense(), 3, np.ones(3), "1? ?axes"),
        (jaxcvx.ConvPool((2,)), 2, np.ones((4, 5, 3)), "needs 6 hidden weights"),
        (jaxcvx.Dense(), 3, [[1.0, 2.0]], "got 2 columns, expected 3"),
    ],
)
def test_inputs_of_another_width_are_refused(features, hidden, made, message):
    network = jaxcvx.Network(jnp.ones((5, hidden)), jnp.ones((5, 1)), None, features)
    with pytest.raises(jaxcvx.errors.InvalidInputError, match=message):
        network(made)
    if not isinstance(made, list):
        with pytest.raises(jaxcvx.errors.InvalidInputError, match=message):
            jax.jit(lambda net, X: net(X))(network, jnp.asarray(made))


def test_inputs_may_be_lists_and_tables():
    import pandas as pd

    network = jaxcvx.Network(jnp.eye(2), jnp.ones((2, 1)))
    for inputs in ([[1.0, -2.0]], pd.DataFrame({"a": [1], "b": [-2]}), np.array([[1, -2]], ">i4")):
        assert np.asarray(network(inputs)).tolist() == [[1.0]]
