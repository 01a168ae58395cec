"""Splines, extreme neurons and the l1 classifier of samples on a line."""

from __future__ import annotations

import cvxpy as cp
import jax
import numpy as np
import pytest

from jaxcvx import (
    CuttingPlane,
    FreeBias,
    InvalidInputError,
    l1_classifier,
    line_kernel,
    line_neurons,
    make_problem,
    solve,
    spline_rnorm,
    training_objective,
)


def mixture(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The paper's Gaussian mixture: a ~ N(mu, 1/4), class +1 at mu in {-1, 0, 2}, -1 at {-2, 1}."""
    rng = np.random.default_rng(seed)
    mu = rng.choice([-2, -1, 0, 1, 2], n)
    return (mu + 0.25 * rng.standard_normal(n))[:, None], np.where(np.isin(mu, (-2, 1)), -1.0, 1.0)


@pytest.mark.routine(2)
@pytest.mark.parametrize(
    ("a", "y", "value"),
    [
        ([-2, -1, 0, 1, 2], [1, -1, 1, 1, -1], 8.0),
        ([3, 1, 2], [9, 1, 4], 8.0),  # the sum of the outer slopes, 3 + 5, exceeds the total variation
        ([0, 1], [0, 5], 10.0),
        ([-1, 0, 1], [1, 0, 1], 2.0),
    ],
)
def test_spline_norms(a, y, value):
    assert float(spline_rnorm(a, y)) == pytest.approx(value)
    assert float(jax.jit(spline_rnorm)(np.asarray(a, float), np.asarray(y, float))) == pytest.approx(value)


def test_bad_splines_are_named():
    with pytest.raises(InvalidInputError, match="^a: got equal places"):
        spline_rnorm([0, 1, 1], [1, 2, 3])
    with pytest.raises(InvalidInputError, match=r"^y: got shape \(2,\)"):
        spline_rnorm([0, 1, 2], [1, 2])


def test_neurons_have_their_kinks_at_samples():
    rng = np.random.default_rng(0)
    place, direction, shift = rng.standard_normal((6, 1)), rng.standard_normal((1, 3)), rng.standard_normal(3)
    X = place @ direction + shift
    neurons = np.asarray(line_neurons(X))
    assert neurons.shape == (12, 4)
    np.testing.assert_allclose(np.linalg.norm(neurons[:, :-1], axis=1), 1)
    values = X @ neurons[:, :-1].T + neurons[:, -1]
    np.testing.assert_allclose(values[np.arange(12) % 6, np.arange(12)], 0, atol=1e-12)
    x = place[:, 0] * np.linalg.norm(direction)
    gap = x[:, None] - x
    either = [np.maximum(np.concatenate(pair, axis=1), 0) for pair in ((gap, -gap), (-gap, gap))]
    kernel = np.asarray(line_kernel(X))
    assert any(np.allclose(kernel, K, atol=1e-12) for K in either)
    with pytest.raises(InvalidInputError, match="^X: got samples that are not on a line"):
        line_neurons(rng.standard_normal((5, 2)))


@pytest.mark.long
def test_classifier_equals_linear_program_and_cutting_planes():
    X, y = mixture(0, 40)
    beta = 0.1
    network = l1_classifier(X, y, beta)
    value = float(training_objective(network, X, y, beta, "hinge"))
    K = np.asarray(line_kernel(X))
    w, c = cp.Variable(K.shape[1]), cp.Variable()
    program = cp.Problem(cp.Minimize(cp.sum(cp.pos(1 - cp.multiply(y, K @ w + c))) + beta * cp.norm1(w)))
    assert value == pytest.approx(program.solve(solver=cp.CLARABEL), rel=1e-6)
    cuts = solve(make_problem(X, y, beta, loss="hinge", features=FreeBias()), CuttingPlane(tol=1e-9))
    assert cuts.scope == "global" and value == pytest.approx(float(cuts.upper_bound), rel=1e-8)
    assert (np.sign(network(X)[:, 0]) == y).mean() >= 0.95
    assert network.width <= 10  # the classes need few kinks; there are 80 candidates
    test, labels = mixture(1, 1000)
    assert (np.sign(network(test)[:, 0]) == labels).mean() > 0.9
