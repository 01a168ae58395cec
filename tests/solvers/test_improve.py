"""improve: a damaged network is repaired and proved; the result is never worse."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from tests.helpers import gaussian_data, targets_for


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_network_without_some_of_its_neurons_becomes_optimal_and_is_proved(loss):
    X, Y = gaussian_data(0, 14, 2)
    Y = targets_for(loss, Y)
    cells = jaxcvx.enumerate_arrangements(X)
    solution = jaxcvx.solve(jaxcvx.make_problem(X, Y, 0.2, loss=loss, arrangements=cells), jaxcvx.ConeADMM(tol=1e-8))
    whole = jaxcvx.balance(solution.network)
    damaged = jaxcvx.Network(whole.hidden[:1], whole.output[:1])
    before = jaxcvx.training_objective(damaged, X, Y, 0.2, loss=loss)
    seen: list[float] = []
    better, certificate = jaxcvx.improve(
        damaged, X, Y, 0.2, loss=loss, tol=1e-4, callback=lambda info: seen.append(info.objective)
    )
    after = jaxcvx.training_objective(better, X, Y, 0.2, loss=loss)
    assert after < before and better.width > 1
    np.testing.assert_allclose(after, solution.upper_bound, rtol=1e-4)
    np.testing.assert_allclose(certificate.upper, after, rtol=1e-6)
    assert certificate.gap <= 1e-4 and certificate.lower <= solution.upper_bound * (1 + 1e-9)
    assert certificate.status == jaxcvx.Status.CONVERGED and all(np.diff(seen) <= 0)


def test_an_optimal_network_stays_and_time_zero_gives_a_bound():
    X, Y = gaussian_data(1, 12, 2)
    cells = jaxcvx.enumerate_arrangements(X)
    solution = jaxcvx.solve(jaxcvx.make_problem(X, Y, 0.3, arrangements=cells), jaxcvx.ConeADMM(tol=1e-10))
    network, certificate = jaxcvx.improve(solution.network, X, Y, 0.3, tol=1e-5)
    np.testing.assert_allclose(certificate.balanced, solution.upper_bound, rtol=1e-6)
    assert certificate.gap <= 1e-5 and network.width <= solution.network.width + 2
    poor = jaxcvx.Network(np.ones((1, 2)), np.ones((1, 1)))
    _, certificate = jaxcvx.improve(poor, X, Y, 0.3, max_seconds=0.0)
    assert 0 <= certificate.lower <= solution.upper_bound and certificate.status == jaxcvx.Status.MAX_STEPS


def test_bad_arguments_are_refused():
    X, Y = gaussian_data(0, 10, 2)
    network = jaxcvx.Network(np.ones((1, 2)), np.ones((1, 1)))
    with pytest.raises(InvalidInputError, match="loss"):
        jaxcvx.improve(network, X, np.sign(Y), 0.1, loss="hinge")
    with pytest.raises(InvalidInputError, match="tol"):
        jaxcvx.improve(network, X, Y, 0.1, tol=-1.0)
    with pytest.raises(InvalidTypeError, match="traced"):
        jax.jit(lambda Y: jaxcvx.improve(network, X, Y, 0.1)[1].lower)(Y)
