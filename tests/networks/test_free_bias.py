"""Networks whose biases are free of weight decay: objective, simplifications, certificates, refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    ColumnGeneration,
    CuttingPlane,
    FreeBias,
    InvalidInputError,
    Network,
    balance,
    beta_max,
    certify,
    enumerate_arrangements,
    make_problem,
    merge_parallel,
    polish,
    prune,
    solve,
    training_objective,
)
from jaxcvx.certificates.dual import all_networks_dual_norm
from jaxcvx.networks.network import balanced_penalty, concatenate
from tests.helpers import gaussian_data, targets_for


def three_neurons() -> Network:
    """Three neurons, the last of them constant, and an output bias."""
    hidden = jnp.asarray([[3.0, 4.0, -1.0], [-1.0, 0.0, 2.0], [0.0, 0.0, 1.5]])
    output = jnp.asarray([[2.0], [-3.0], [4.0]])
    return Network(hidden, output, None, FreeBias(), jnp.asarray([0.5]))


def test_biases_are_not_penalised():
    X, Y = gaussian_data(0, 9, 2)
    network = three_neurons()
    F = np.maximum(X @ [3, 4] - 1, 0) * 2 - 3 * np.maximum(2 - X[:, 0], 0) + 4 * 1.5 + 0.5
    np.testing.assert_allclose(network(X)[:, 0], F, atol=1e-12)
    value = 0.5 * ((F - Y[:, 0]) ** 2).sum() + 0.3 * 0.5 * (25 + 1 + 4 + 9 + 16)
    assert float(training_objective(network, X, Y, 0.3)) == pytest.approx(value)
    assert float(balanced_penalty(network)) == pytest.approx(5 * 2 + 1 * 3)


def test_simplifications_keep_the_function():
    X, _ = gaussian_data(0, 9, 2)
    network = three_neurons()
    twice = concatenate(network, network)
    np.testing.assert_allclose(twice(X), 2 * network(X), atol=1e-12)
    for simpler in (balance(network), prune(network), jax.jit(balance)(network)):
        np.testing.assert_allclose(simpler(X), network(X), atol=1e-12)
    merged = merge_parallel(twice)
    assert merged.width == 2
    np.testing.assert_allclose(merged(X), 2 * network(X), atol=1e-12)
    pruned = prune(network)
    assert pruned.width == 2 and float(pruned.output_bias[0]) == 6.5  # the constant neuron has moved there
    size = np.linalg.norm(balance(network).hidden[:2, :2], axis=1)
    np.testing.assert_allclose(size, np.linalg.norm(balance(network).output[:2], axis=1))


def test_output_biases_belong_to_free_biases():
    X, Y = gaussian_data(0, 9, 2)
    with pytest.raises(InvalidInputError, match="^network.output_bias"):
        training_objective(Network(jnp.ones((1, 2)), jnp.ones((1, 1)), output_bias=jnp.ones(1)), X, Y, 0.1)
    with pytest.raises(InvalidInputError, match="^network.output_bias"):
        training_objective(dataclasses.replace(three_neurons(), output_bias=jnp.ones(2)), X, Y, 0.1)
    without = dataclasses.replace(three_neurons(), output_bias=None)
    np.testing.assert_allclose(without(X), three_neurons()(X) - 0.5)


def test_solvers_without_free_biases_say_so():
    X, Y = gaussian_data(0, 9, 2)
    words = r"^features: got FreeBias\(\), expected (a penalised bias|penalised hidden biases)"
    with pytest.raises(InvalidInputError, match=words):
        solve(make_problem(X, Y, 0.1, features=FreeBias()), ColumnGeneration())
    with pytest.raises(InvalidInputError, match="^arrangements: got cells"):
        make_problem(X, Y, 0.1, features=FreeBias(), arrangements=enumerate_arrangements(X, features=FreeBias()))
    with pytest.raises(InvalidInputError, match="^network: got one with FreeBias"):
        polish(three_neurons(), X, Y, 0.1)


def test_certificates():
    X, Y = gaussian_data(2, 9, 2)
    optimum = solve(make_problem(X, Y, 0.5, features=FreeBias()), CuttingPlane(tol=1e-8))
    tight = certify(optimum.network, X, Y, 0.5)
    assert tight.scope == "global" and 0 <= tight.gap <= 1e-4
    exact = certify(three_neurons(), X, Y, 0.5)
    assert exact.scope == "global" and exact.lower <= optimum.upper_bound
    estimate = certify(optimum.network, X, Y, 0.5, method="multistart")
    assert estimate.scope == "heuristic" and estimate.lower == -np.inf
    assert estimate.heuristic_bound == pytest.approx(float(tight.lower), rel=1e-3)
    with pytest.raises(InvalidInputError, match="^method: got 'relaxed'"):
        certify(three_neurons(), X, Y, 0.5, method="relaxed")
    with pytest.raises(InvalidInputError, match="^arrangements"):
        certify(three_neurons(), X, Y, 0.5, arrangements=enumerate_arrangements(X))


def test_the_crude_bound_covers_every_neuron():
    X, Y = gaussian_data(3, 12, 6)
    problem = make_problem(X, Y, 0.5, features=FreeBias())
    R = Y - Y.mean()
    crude = float(all_networks_dual_norm(problem, jnp.asarray(R)))
    rng = np.random.default_rng(0)
    U = rng.standard_normal((20_000, 6))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    b = -(U * X[rng.integers(12, size=20_000)]).sum(axis=1)
    assert np.abs(R[:, 0] @ np.maximum(X @ U.T + b, 0)).max() <= crude
    network = Network(jnp.zeros((1, 7)), jnp.zeros((1, 1)), None, FreeBias(), jnp.asarray([Y.mean()]))
    X = np.concatenate([gaussian_data(4, 40, 6)[0], X])  # too many cells: the crude bound
    Y = np.concatenate([gaussian_data(4, 40, 6)[1], Y])
    certificate = certify(network, X, Y, 0.5)
    assert certificate.scope == "relaxation" and 0 <= certificate.lower < certificate.upper


def test_beta_max():
    x, Y = gaussian_data(5, 12, 1)
    limit = float(beta_max(make_problem(x, Y, 1.0, features=FreeBias())))
    for factor, width in ((1.001, 0), (0.9, 1)):
        problem = make_problem(x, Y, factor * limit, features=FreeBias())
        found = solve(problem, CuttingPlane(tol=1e-9)).network
        assert int((np.abs(found.output) > 0).sum()) >= width and (width or not np.any(found.output))
        np.testing.assert_allclose(found.output_bias, Y.mean(), atol=10 if width else 1e-9)


@pytest.mark.parametrize("loss", ["huber", "logistic"])
def test_beta_max_of_other_smooth_losses(loss):
    x, Y = gaussian_data(5, 12, 1)
    Y = targets_for(loss, Y)
    limit = float(beta_max(make_problem(x, Y, 1.0, loss=loss, features=FreeBias())))
    for factor, width in ((1.001, 0), (0.9, 1)):
        problem = make_problem(x, Y, factor * limit, loss=loss, features=FreeBias())
        found = solve(problem, CuttingPlane(tol=1e-9)).network
        assert (balanced_penalty(found) > 1e-6) == (width > 0)
