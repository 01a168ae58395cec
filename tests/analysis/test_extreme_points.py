"""Neurons that are active on a single sample, the network made of them, and intervals of optimal biases."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import ConvexHull

from jaxcvx import (
    CuttingPlane,
    FreeBias,
    InvalidInputError,
    Network,
    bias_intervals,
    make_problem,
    residual_neurons,
    solve,
    vertex_network,
)
from tests.helpers import gaussian_data


@pytest.mark.parametrize("d", [2, 3])
def test_vertices_are_those_of_the_hull(d):
    X = gaussian_data(d, 20, d)[0]
    neurons = residual_neurons(X)
    vertices = np.zeros(20, bool)
    vertices[ConvexHull(X).vertices] = True
    np.testing.assert_array_equal(neurons.vertex, vertices)
    values = np.maximum(X @ neurons.hidden[:, :-1].T + neurons.hidden[:, -1], 0)
    np.testing.assert_array_equal(values > 1e-12, np.diag(vertices))  # each neuron is active on its own sample only
    for i in np.flatnonzero(vertices):  # the residual is orthogonal to the nearest face of the hull
        z = np.asarray(neurons.residual[i])
        others = np.delete(X, i, axis=0)
        assert np.linalg.norm(z) == pytest.approx(float(((X[i] - others) @ z).min() / np.linalg.norm(z)))


def test_residual_of_a_corner():
    neurons = residual_neurons([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.4, 0.4]])
    np.testing.assert_allclose(neurons.residual[0], [0.5, 0.5])
    np.testing.assert_allclose(neurons.hidden[0], [0.5**0.5, 0.5**0.5, -(0.5**0.5)])
    np.testing.assert_allclose(neurons.residual[3], [-0.1, -0.1], atol=1e-12)
    assert neurons.vertex.all() and not residual_neurons([[0.0], [1.0], [0.5]]).vertex[2]
    repeated = residual_neurons([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(repeated.vertex, [True, False, False])


def test_exact_fit_from_the_vertices():
    X, Y = gaussian_data(0, 8, 60, 2)
    network = vertex_network(X, Y)
    assert network.width == 8 and network.features == FreeBias()
    np.testing.assert_allclose(network(X), Y, atol=1e-10)
    with pytest.raises(InvalidInputError, match="^X: got sample 2 inside"):
        vertex_network([[0.0], [1.0], [0.5]], [1.0, 2.0, 3.0])


def test_every_bias_in_the_interval_is_optimal():
    # f = |x| on nine points: the neuron's kink can move if the residuals of its active samples sum to zero.
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    y = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    problem = make_problem(x[:, None], y, 1.0, loss="interpolation", features=FreeBias())
    solution = solve(problem, CuttingPlane(tol=1e-9))
    dual, network = solution.params.dual, solution.network
    ends = np.asarray(bias_intervals(network, x[:, None], dual, tol=1e-5))
    b = np.asarray(network.hidden[:, -1])
    assert (ends[:, 0] <= b).all() and (b <= ends[:, 1]).all()
    assert (ends[:, 1] > ends[:, 0] + 1e-3).any()
    for j in range(network.width):
        u = float(network.hidden[j, 0])
        inside = np.clip(np.linspace(*ends[j], 5), -5, 5)
        prices = np.maximum(x[:, None] * u + inside, 0).T @ dual[:, 0]
        np.testing.assert_allclose(prices, prices[0], atol=1e-6)
        outside = np.maximum(x * u + ends[j, 0] - 0.1, 0) @ dual[:, 0]
        if np.isfinite(ends[j, 0]):
            assert abs(outside) < abs(prices[0]) - 1e-3


def test_networks_without_free_biases_are_refused():
    with pytest.raises(InvalidInputError, match="^network: got features"):
        bias_intervals(Network(jnp.ones((1, 2)), jnp.ones((1, 1))), np.eye(2), np.ones(2))
