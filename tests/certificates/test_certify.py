"""certify: valid bounds with the right scopes, both objectives, and refused arguments."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx import (
    ConeADMM,
    Dense,
    InvalidInputError,
    Network,
    TooManyArrangements,
    arrangements_of,
    certify,
    enumerate_arrangements,
    make_problem,
    merge_arrangements,
    sample_arrangements,
    solve,
)
from jaxcvx.errors import InvalidTypeError
from tests.helpers import (
    adam_objectives,
    cone_optimum,
    distinct_cells,
    gaussian_data,
    network_value,
    spiral_data,
    targets_for,
)

WIDTH = 5
seeds = st.integers(0, 10**6)


class Case(NamedTuple):
    """Data with all of their cells, and the global optimum by Clarabel."""

    X: np.ndarray
    Y: np.ndarray
    beta: float
    loss: str
    cells: object
    optimum: float


@functools.cache
def case(loss: str = "squared", spiral: bool = False) -> Case:
    X, raw = spiral_data() if spiral else gaussian_data(3, 8, 2)
    Y, beta = targets_for(loss, raw), 0.2
    with jax.enable_x64(True):
        cells = enumerate_arrangements(X)
    return Case(X, Y, beta, loss, cells, cone_optimum(X, cells.masks, Y, beta, loss=loss))


def random_network(seed: int, d: int = 2, c: int = 1) -> Network:
    """Five neurons of any size: predictions range from nearly zero to far beyond the targets."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-2, 1.5)
    hidden, output = rng.standard_normal((WIDTH, d)), rng.standard_normal((WIDTH, c))
    hidden[0] *= rng.random() < 0.5
    return Network(jnp.asarray(size * hidden), jnp.asarray(output))


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "logistic", "huber", "hinge"])
@settings(max_examples=40)
@given(seed=seeds)
def test_weak_duality(loss, seed):
    data, network = case(loss), random_network(seed)
    made = certify(network, data.X, data.Y, data.beta, loss=loss, arrangements=data.cells)
    assert made.scope == "global"
    assert 0 <= made.lower <= data.optimum * (1 + 1e-7)
    assert made.upper >= data.optimum * (1 - 1e-7)
    assert made.gap == pytest.approx((made.upper - made.lower) / made.upper, rel=1e-12)
    assert made.heuristic_bound == -np.inf


def test_a_poor_networks_bound_is_two_sided():
    data = case()
    zero_ish = Network(jnp.asarray([[1.0, 0.5]]), jnp.asarray([[1.0]]))
    predicted = np.asarray(zero_ish(jnp.asarray(data.X)))
    sign = np.sign(np.sum(predicted * data.Y))
    poor = Network(40 * zero_ish.hidden, sign * zero_ish.output)  # far beyond the targets: <R, Y> < 0
    residual = data.Y - np.asarray(poor(jnp.asarray(data.X)))
    assert np.sum(residual * data.Y) < 0
    made = certify(poor, data.X, data.Y, data.beta, arrangements=data.cells)
    assert 0 < made.lower <= data.optimum


@settings(max_examples=20)
@given(seed=seeds)
def test_relaxed_bounds_are_no_better_than_exact_ones(seed):
    data, network = case(), random_network(seed)
    arguments = (network, data.X, data.Y, data.beta)
    exact = certify(*arguments, method="exact")
    given_cells = certify(*arguments, arrangements=data.cells)
    relaxed = certify(*arguments, method="relaxed")
    assert exact.scope == given_cells.scope == "global" and relaxed.scope == "relaxation"
    assert exact.lower == pytest.approx(given_cells.lower, rel=1e-12)
    assert relaxed.lower <= exact.lower * (1 + 1e-12)
    assert exact.upper == given_cells.upper == relaxed.upper
    assert certify(*arguments).lower == exact.lower  # auto: few cells, so all of them


def balanced_by_hand(hidden: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights with ||u_j|| = ||v_j||; neurons with a zero side become zero."""
    a, b = np.linalg.norm(hidden, axis=1, keepdims=True), np.linalg.norm(output, axis=1, keepdims=True)
    scale = np.sqrt(b / np.where(a > 0, a, 1)) * (a > 0)
    return hidden * scale, output * (a > 0) / np.where(scale > 0, scale, 1)


@pytest.mark.parametrize(
    ("method", "outputs", "loss"),
    [("auto", 1, "squared"), ("relaxed", 1, "logistic"), ("multistart", 1, "squared"), ("exact", 3, "softmax")],
)
def test_upper_is_the_objective_of_the_given_weights_and_balanced_that_of_the_balanced_ones(method, outputs, loss):
    X, raw = gaussian_data(3, 8, 2, outputs)
    Y, beta = targets_for(loss, raw), 0.2
    rng = np.random.default_rng(1)
    hidden, output = rng.standard_normal((WIDTH, 2)), rng.standard_normal((WIDTH, outputs))
    hidden[0] = 0
    made = []
    for scale in (1.0, 3.0):
        network = Network(jnp.asarray(scale * hidden), jnp.asarray(output / scale))
        certificate = certify(network, X, Y, beta, loss=loss, method=method)
        own = network_value(scale * hidden, output / scale, X, Y, beta, loss)
        balanced = network_value(*balanced_by_hand(hidden, output), X, Y, beta, loss)
        assert float(certificate.upper) == pytest.approx(own, rel=1e-12)
        assert float(certificate.balanced) == pytest.approx(balanced, rel=1e-12)
        assert certificate.lower <= certificate.balanced < certificate.upper
        made.append(certificate)
    assert made[0].upper < 0.98 * made[1].upper
    assert made[0].lower == pytest.approx(made[1].lower, rel=1e-9)  # the bound depends on the function alone
    assert made[0].heuristic_bound == pytest.approx(made[1].heuristic_bound, rel=1e-9)
    assert made[0].balanced == pytest.approx(made[1].balanced, rel=1e-12)


def test_the_gap_of_an_optimal_function_is_that_of_its_weights():
    data = case()
    problem = make_problem(data.X, data.Y, data.beta, arrangements=data.cells)
    best = solve(problem, ConeADMM(tol=1e-10)).network
    made = certify(best, data.X, data.Y, data.beta, arrangements=data.cells)
    assert made.gap < 1e-7 and made.balanced == pytest.approx(made.upper, rel=1e-12)
    stretched = Network(3 * best.hidden, best.output / 3)
    loose = certify(stretched, data.X, data.Y, data.beta, arrangements=data.cells)
    own = network_value(*map(np.asarray, (stretched.hidden, stretched.output)), data.X, data.Y, data.beta)
    assert loose.gap == pytest.approx((own - loose.lower) / own, rel=1e-9)
    assert loose.gap > 0.05 and loose.balanced - loose.lower < 1e-7 * loose.balanced


def test_sampled_cells_are_joined_by_the_networks_own():
    X, Y = gaussian_data(0, 15, 3)
    beta = 0.3
    cells = distinct_cells(0, X, 6)
    for seed in range(3):
        network = random_network(seed, d=3)
        made = certify(network, X, Y, beta, arrangements=cells)
        assert made.scope == "sampled-cells"
        both = merge_arrangements(cells, arrangements_of(network, X))
        optimum = cone_optimum(X, both.masks, Y, beta)
        assert made.lower <= optimum * (1 + 1e-7) and optimum <= made.upper * (1 + 1e-7)


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_several_outputs_exactly_and_by_a_relaxation(loss):
    X, raw = gaussian_data(1, 8, 2, 3)
    Y, beta = targets_for(loss, raw), 0.2
    cells = enumerate_arrangements(X)
    best = adam_objectives(X, raw, beta, runs=10).min() if loss == "squared" else np.inf
    for seed in range(10):
        network = random_network(seed, c=3)
        exact = certify(network, X, Y, beta, loss=loss, arrangements=cells)
        without = certify(network, X, Y, beta, loss=loss, method="relaxed")
        relaxed = certify(network, X, Y, beta, loss=loss, arrangements=cells, method="relaxed")
        assert exact.scope == "global" and without.scope == relaxed.scope == "relaxation"
        assert 0 <= without.lower <= relaxed.lower * (1 + 1e-6)
        assert relaxed.lower <= exact.lower * (1 + 1e-6) and exact.lower <= min(best, exact.upper)
        estimate = certify(network, X, Y, beta, loss=loss, method="multistart") if seed == 0 else None
        if estimate is not None:  # ascents can only miss the best neuron
            assert estimate.scope == "heuristic" and estimate.lower == -np.inf
            assert exact.lower * (1 - 1e-6) <= estimate.heuristic_bound <= exact.upper
    sampled_cells = distinct_cells(0, X, 5)
    sampled = certify(network, X, Y, beta, loss=loss, arrangements=sampled_cells)
    assert sampled.scope == "sampled-cells" and sampled.lower <= sampled.upper
    exact = certify(network, X, Y, beta, loss=loss, arrangements=sampled_cells, method="exact")
    assert exact.scope == "sampled-cells" and exact.lower == sampled.lower


def test_spiral():
    data = case(spiral=True)
    for seed in range(20):
        made = certify(random_network(seed), data.X, data.Y, data.beta, arrangements=data.cells)
        assert made.lower <= data.optimum * (1 + 1e-7) and data.optimum <= made.upper * (1 + 1e-7)


def test_bias_and_skip_connection():
    X, Y = gaussian_data(4, 7, 1)
    features, beta = Dense(bias=True, skip=True), 0.1
    Z = np.concatenate([X, np.ones((7, 1))], axis=1)
    cells = enumerate_arrangements(X, features=features)
    optimum = cone_optimum(Z, cells.masks, Y, beta, skip=True)
    for seed in range(10):
        base = random_network(seed)
        skip = jnp.asarray(np.random.default_rng(seed).standard_normal((2, 1)))
        network = Network(base.hidden, base.output, skip, features)
        made = certify(network, X, Y, beta)
        assert made.scope == "global"
        assert 0 <= made.lower <= optimum * (1 + 1e-7) and optimum <= made.upper * (1 + 1e-7)


def test_the_search_beats_the_relaxation_without_cells():
    X, Y = gaussian_data(0, 30, 8)
    network = random_network(0, d=8)
    found, relaxed = certify(network, X, Y, 1.0, tol=1e-3), certify(network, X, Y, 1.0, method="relaxed")
    assert relaxed.scope == found.scope == "relaxation" and found.work > 0
    assert relaxed.lower * (1 - 1e-3) <= found.lower <= adam_objectives(X, Y, 1.0, runs=5).min()


def test_auto_needs_no_cells_where_there_are_too_many():
    X, Y = gaussian_data(0, 60, 8)
    network = random_network(0, d=8)
    assert certify(network, X, Y, 1.0, max_seconds=0).scope == "relaxation"
    with pytest.raises(TooManyArrangements):
        certify(network, X, Y, 1.0, method="exact")


def test_the_zero_network_is_optimal_for_large_beta():
    data = case()
    zero = Network(jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    made = certify(zero, data.X, data.Y, 1e4, arrangements=data.cells)
    assert made.gap == pytest.approx(0, abs=1e-12)
    assert made.upper == pytest.approx(0.5 * np.sum(data.Y**2))
    assert certify(zero, data.X, 0 * data.Y, 0.1).gap == 0  # nothing to fit: 0 <= 0


def test_weights_of_other_frameworks_and_zero_beta():
    data = case()
    arrays = Network(np.ones((2, 2)), np.ones((2, 1)))
    made = certify(arrays, data.X.tolist(), data.Y[:, 0].tolist(), 0)
    assert made.lower == 0 and made.scope == "global" and made.upper > 0


@pytest.mark.float32
def test_float32_data_are_certified_in_float64():
    data, network = case(), random_network(2)
    assert network.hidden.dtype == jnp.float32
    X, Y = data.X.astype(np.float32), data.Y.astype(np.float32)
    made = certify(network, X, Y, data.beta)
    for value in (made.upper, made.lower, made.gap, made.heuristic_bound):
        assert value.dtype == np.float64
    assert not jax.config.jax_enable_x64
    wide = [np.asarray(a, np.float64) for a in (network.hidden, network.output, X, Y)]
    assert made.upper <= network_value(*wide[:2], *wide[2:], data.beta) * (1 + 1e-12)
    assert made.lower <= cone_optimum(wide[2], data.cells.masks, wide[3], data.beta) * (1 + 1e-7)


def test_certificates_are_pytrees():
    data = case()
    made = certify(random_network(0), data.X, data.Y, data.beta)
    doubled = jax.tree.map(lambda a: 2 * a, made)
    assert doubled.scope == made.scope and doubled.upper == 2 * made.upper and doubled.balanced == 2 * made.balanced


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"network": np.ones((2, 2))}, InvalidTypeError, "network: got "),
        ({"network": Network(np.ones((2, 3)), np.ones((2, 1)))}, InvalidInputError, "X: got 2 columns"),
        ({"network": Network(np.full((2, 2), np.nan), np.ones((2, 1)))}, InvalidInputError, "network.hidden"),
        ({"X": np.ones(3)}, InvalidInputError, "X: "),
        ({"Y": np.ones(3)}, InvalidInputError, "Y: got 3 rows, expected 8"),
        ({"Y": np.ones((8, 2))}, InvalidInputError, "Y: got 2 outputs, expected 1"),
        ({"beta": -1}, InvalidInputError, "beta: "),
        ({"loss": "l1"}, InvalidInputError, "loss: "),
        ({"method": "fast"}, InvalidInputError, "method: got 'fast', expected one of 'auto'"),
        ({"arrangements": np.ones((3, 8), bool)}, InvalidTypeError, "arrangements: got ndarray"),
    ],
)
def test_bad_arguments_are_refused(change, error, words):
    data = case()
    good = {"network": random_network(0), "X": data.X, "Y": data.Y, "beta": data.beta}
    with pytest.raises(error, match="^" + words):
        certify(**(good | change))


def test_cells_of_other_data_are_refused():
    data = case()
    other = sample_arrangements(jax.random.key(0), np.ones((5, 2)), 3)
    with pytest.raises(InvalidInputError, match="^arrangements.masks"):
        certify(random_network(0), data.X, data.Y, data.beta, arrangements=other)


def test_not_under_jit():
    data = case()
    with pytest.raises(InvalidTypeError, match="certify: got traced"):
        jax.jit(lambda X: certify(random_network(0), X, data.Y, data.beta).upper)(data.X)
    with pytest.raises(InvalidTypeError, match="certify: got traced"):
        jax.jit(lambda net: certify(net, data.X, data.Y, data.beta).upper)(random_network(0))
