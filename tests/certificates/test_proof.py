"""Lower bounds by branch and bound: valid for networks of any quality, tight for optimal ones, at any time."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcvx
from jaxcvx.certificates.proof import grow_proof, renewed, start_proof
from jaxcvx.errors import InvalidInputError
from jaxcvx.networks.network import balance
from tests.helpers import gaussian_data, targets_for

LOSSES = ("squared", "logistic", "huber", "hinge", "softmax")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def optimum(X, Y, beta, loss) -> float:
    """The objective of a network that is optimal to 1e-7, over all cells."""
    cells = jaxcvx.enumerate_arrangements(X)
    problem = jaxcvx.make_problem(X, Y, beta, loss=loss, arrangements=cells)
    exact = jaxcvx.ColumnGeneration(tol=1e-7, pricing="exact", width=32)
    solution = jaxcvx.solve(problem, exact if loss == "softmax" else jaxcvx.ConeADMM(tol=1e-7))
    assert solution.gap < 1e-5
    return float(solution.upper_bound)


def network_at_random(seed, d, c, size=1.0) -> jaxcvx.Network:
    rng = np.random.default_rng(seed)
    return jaxcvx.Network(size * rng.standard_normal((3, d)), size * rng.standard_normal((3, c)))


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=3)
@given(seed=st.integers(0, 10**6))
def test_the_bound_is_below_the_optimum_for_any_network(loss, seed):
    c = 3 if loss == "softmax" else 1
    X, Y = gaussian_data(seed, 12, 2, c)
    Y = targets_for(loss, Y)
    best = optimum(X, Y, 0.3, loss)
    for size in (0.0, 0.3, 3.0):
        network = network_at_random(seed, 2, c, size)
        certificate = jaxcvx.certify(network, X, Y, 0.3, loss=loss, method="branch", tol=1e-3)
        assert certificate.lower <= best * (1 + 1e-9)
        assert certificate.lower <= certificate.balanced <= certificate.upper


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_the_gap_of_an_optimal_network_closes(loss):
    c = 3 if loss == "softmax" else 1
    X, Y = gaussian_data(0, 14, 2, c)
    Y = targets_for(loss, Y)
    cells = jaxcvx.enumerate_arrangements(X)
    problem = jaxcvx.make_problem(X, Y, 0.3, loss=loss, arrangements=cells)
    exact = jaxcvx.ColumnGeneration(tol=1e-4, pricing="exact", width=32)
    solution = jaxcvx.solve(problem, exact if loss == "softmax" else jaxcvx.ConeADMM(tol=1e-8))
    tol = 1e-2 if loss == "softmax" else 1e-5
    certificate = jaxcvx.certify(solution.network, X, Y, 0.3, loss=loss, method="branch", tol=tol)
    assert certificate.gap <= tol and certificate.status == jaxcvx.Status.CONVERGED
    assert certificate.work > 0 and certificate.seconds > 0 and (certificate.neuron is None or loss == "softmax")
    exact = jaxcvx.certify(solution.network, X, Y, 0.3, loss=loss, arrangements=cells, method="exact")
    assert certificate.lower <= exact.lower * (1 + 1e-9)


def test_a_search_that_is_interrupted_has_a_bound_and_goes_on():
    X, Y = gaussian_data(1, 60, 4)
    network = network_at_random(1, 4, 1, 0.5)
    problem = jaxcvx.make_problem(X, Y, 0.5)
    whole = grow_proof(start_proof(problem, balance(network)), problem, 1e-3, 60.0)
    first = grow_proof(start_proof(problem, balance(network)), problem, 1e-3, 60.0, lambda *_: True)
    assert first.status == jaxcvx.Status.STOPPED and first.lower < whole.lower <= whole.upper
    again = grow_proof(pickle.loads(pickle.dumps(first)), problem, 1e-3, 60.0)
    assert again.status == jaxcvx.Status.CONVERGED and again.search.nodes >= first.search.nodes
    np.testing.assert_allclose(again.lower, whole.lower, rtol=1e-3)
    none = grow_proof(start_proof(problem, balance(network)), problem, 1e-3, 0.0)
    assert none.status == jaxcvx.Status.MAX_STEPS and 0 <= none.lower <= whole.lower * (1 + 1e-9)


def test_the_neuron_found_lowers_the_objective():
    X, Y = gaussian_data(2, 40, 3)
    network = network_at_random(2, 3, 1, 0.1)
    certificate = jaxcvx.certify(network, X, Y, 0.5, method="branch")
    u = np.asarray(certificate.neuron)
    np.testing.assert_allclose(np.linalg.norm(u), 1.0, rtol=1e-12)
    r = Y - network(jnp.asarray(X))
    slope = float(np.maximum(X @ u, 0) @ np.asarray(r)[:, 0])
    assert abs(slope) > 0.5
    size = 1e-3**0.5
    more = jaxcvx.Network(
        jnp.concatenate([network.hidden, size * u[None]]),
        jnp.concatenate([network.output, size * np.sign(slope) * np.ones((1, 1))]),
    )
    before, after = (jaxcvx.training_objective(net, X, Y, 0.5) for net in (network, more))
    assert after < before - 0.5e-3 * (abs(slope) - 0.5)


def test_bias_output_bias_weights_and_skip_connection():
    X, Y = gaussian_data(3, 12, 2)
    weight = np.array([2.0, 0.0, *np.ones(10)])
    for features in (jaxcvx.Dense(bias=True), jaxcvx.Dense(output_bias=True), jaxcvx.Dense(skip=True)):
        skip = np.full((2, 1), 0.1) if features.skip else None
        width = features.num_weights(2)
        rng = np.random.default_rng(0)
        network = jaxcvx.Network(rng.standard_normal((3, width)), rng.standard_normal((3, 1)), skip, features)
        options = {"sample_weight": weight}
        branch = jaxcvx.certify(network, X, Y, 0.3, method="branch", tol=1e-6, **options)
        exact = jaxcvx.certify(network, X, Y, 0.3, method="exact", **options)
        np.testing.assert_allclose(branch.lower, exact.lower, rtol=1e-5)


def test_convolutions_are_searched_over_their_patches():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 6)), rng.standard_normal((6, 1))
    features = jaxcvx.ConvPool(3)
    network = jaxcvx.Network(rng.standard_normal((2, 3)), rng.standard_normal((2, 1)), None, features)
    branch = jaxcvx.certify(network, X, Y, 0.5, method="branch", tol=1e-6)
    relaxed = jaxcvx.certify(network, X, Y, 0.5, method="relaxed")
    assert relaxed.lower <= branch.lower * (1 + 1e-9) <= branch.upper


def test_what_does_not_fit_is_refused_by_name():
    X, Y = gaussian_data(0, 10, 2)
    free = jaxcvx.Network(np.ones((1, 3)), np.ones((1, 1)), None, jaxcvx.FreeBias())
    with pytest.raises(InvalidInputError, match="FreeBias"):
        jaxcvx.certify(free, X, Y, 0.1, method="branch")
    network = network_at_random(0, 2, 1)
    cells = jaxcvx.enumerate_arrangements(X)
    with pytest.raises(InvalidInputError, match="arrangements"):
        jaxcvx.certify(network, X, Y, 0.1, method="branch", arrangements=cells)
    for name in ("tol", "max_seconds"):
        with pytest.raises(InvalidInputError, match=name):
            jaxcvx.certify(network, X, Y, 0.1, method="branch", **{name: -1.0})


def test_callbacks_see_the_bounds_close_and_stop_the_search():
    X, Y = gaussian_data(5, 60, 4)
    network, seen = network_at_random(5, 4, 1, 0.5), []
    jaxcvx.certify(network, X, Y, 0.5, method="branch", tol=1e-4, callback=seen.append)
    bounds = [info.bound for info in seen]
    assert len(seen) > 3 and bounds == sorted(bounds)
    assert all(info.bound <= info.objective and info.step <= info.max_steps for info in seen)
    stopped = jaxcvx.certify(network, X, Y, 0.5, method="branch", tol=1e-4, callback=lambda info: True)
    assert stopped.status == jaxcvx.Status.STOPPED and stopped.work <= seen[1].step


def test_a_renewed_proof_is_that_of_the_new_network(monkeypatch):
    X, Y = gaussian_data(7, 60, 4)
    problem = jaxcvx.make_problem(X, Y, 0.5)
    old, new = (balance(network_at_random(1, 4, 1, size)) for size in (0.5, 0.5002))
    monkeypatch.setattr("jaxcvx.pricing.search._WORTH", 10)
    monkeypatch.setattr("jaxcvx.pricing.search._SHIFT", 0.05)
    proof = grow_proof(start_proof(problem, old), problem, 1e-3, 60.0)
    nodes = proof.search.nodes
    taken = renewed(proof, problem, new)
    assert taken.search.nodes >= nodes and taken.search.boxes.nodes > 0
    fresh = grow_proof(start_proof(problem, new), problem, 1e-3, 60.0)
    taken = grow_proof(taken, problem, 1e-3, 60.0)
    np.testing.assert_allclose([taken.upper, taken.lower], [fresh.upper, fresh.lower], rtol=2e-3)
    U = np.random.default_rng(0).standard_normal((2000, 4))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    prices = np.abs(np.maximum(U @ X.T, 0) @ np.asarray(taken.residual))
    assert prices.max() <= taken.search.boxes.upper
    assert taken.search.nodes - nodes < fresh.search.nodes


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scales_of_the_data_do_not_matter(scale):
    X, Y = gaussian_data(8, 30, 3)
    network = network_at_random(8, 3, 1, 0.3)
    plain = jaxcvx.certify(network, X, Y, 0.5, method="branch", tol=1e-4)
    scaled = jaxcvx.Network(network.hidden * scale**0.5, network.output * scale**0.5)
    large = jaxcvx.certify(scaled, X, scale * Y, scale * 0.5, method="branch", tol=1e-4)
    np.testing.assert_allclose(large.gap, plain.gap, rtol=1e-3)
    assert jaxcvx.certify(network, X, Y, 0.0, method="branch").lower == 0.0


def test_a_search_that_cannot_go_on_ends(monkeypatch):
    """Where no node can be split any more, only rounding is left: the time is not waited for."""
    X, Y = gaussian_data(9, 30, 3)
    problem = jaxcvx.make_problem(X, Y, 0.5)
    proof = start_proof(problem, balance(network_at_random(9, 3, 1, 0.3)))
    monkeypatch.setattr("jaxcvx.certificates.proof.grow_search", lambda search, *_: search)
    done = grow_proof(proof, problem, 1e-9, float("inf"))
    assert done.status == jaxcvx.Status.MAX_STEPS and np.isfinite(done.lower)
