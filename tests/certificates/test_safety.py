"""Bounds of the search on thousands of instances, many of them degenerate: never below any price, any network, any try.

The default run takes a few dozen; ``-m soak`` takes ten thousand.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.certificates.proof import grow_proof, start_proof
from jaxcvx.networks.network import balance
from jaxcvx.pricing.host import ascend_on_host
from jaxcvx.pricing.search import grow_search, start_search

SIZES = (3, 11, 30)
KINDS = ("plain", "repeated", "zeros", "parallel", "integers", "one side", "sparse", "nearly flat")


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def instance(seed: int, c: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) and residual (n, c): of any scale, repeated, parallel, zero, of low rank, in float32 or float64."""
    rng = np.random.default_rng(seed)
    n, d, kind = SIZES[seed % 3], 1 + rng.integers(4), KINDS[rng.integers(len(KINDS))]
    X, R = rng.standard_normal((n, d)), rng.standard_normal((n, c))
    some = rng.random(n) < 0.4
    if kind == "repeated":
        X[some] = X[0]
    elif kind == "zeros":
        X[some], R[rng.random(n) < 0.4] = 0, 0
    elif kind == "parallel":
        X[some] = X[0] * rng.choice([-2.0, -1.0, 0.5, 3.0], (some.sum(), 1))
    elif kind == "integers":
        X, R = np.round(X), np.round(2 * R)
    elif kind == "one side":
        R = np.abs(R)
    elif kind == "sparse":
        X *= rng.random(X.shape) < 0.5
    elif kind == "nearly flat":
        X[:, 0] *= 1e-9
    X, R = (a * 10.0 ** rng.integers(-8, 9) for a in (X, R))
    if rng.random() < 0.5:
        X, R = (a.astype(np.float32).astype(np.float64) for a in (X, R))
    return X, R


def highest(X: np.ndarray, R: np.ndarray, seed: int) -> float:
    """The best price known: ascents from many starts; with two columns, of all kinks and all sectors."""
    best = ascend_on_host(X, R, np.random.default_rng(seed).standard_normal((64, X.shape[1])), seed)[1]
    if X.shape[1] == 2:
        angle = np.arctan2(X[:, 1], X[:, 0])
        kinks = np.unique(np.concatenate([angle + np.pi / 2, angle - np.pi / 2]) % (2 * np.pi))
        middle = (kinks + np.append(kinks[1:], kinks[:1] + 2 * np.pi)) / 2
        U = np.stack([np.cos(np.append(kinks, middle)), np.sin(np.append(kinks, middle))], axis=1)
        G = ((U @ X.T > 0) @ (X * R)) if R.shape[1] == 1 else U
        U = np.concatenate([U, G, -G])
        U = U / np.maximum(np.linalg.norm(U, axis=1, keepdims=True), 1e-300)
        best = max(best, float(np.linalg.norm(np.maximum(U @ X.T, 0) @ R, axis=1).max()))
    return best


def check_prices(seed: int) -> None:
    X, R = instance(seed, 1 + (seed % 5 == 0))
    best = highest(X, R, seed)
    search = start_search(X, R)
    assert best <= search.upper * (1 + 1e-13), seed
    for nodes in (100, 2000):
        search = grow_search(search, 0.0, report=lambda search, nodes=nodes: search.nodes >= nodes)
        assert best <= search.upper * (1 + 1e-13), seed
        assert search.value <= search.upper, seed
    if R.shape[1] == 1 and search.closed:
        assert search.upper <= max(best, search.value) * (1 + 1e-5), seed


def check_networks(seed: int) -> None:
    """The bound from any network holds for every other one: random ones and, now and then, fitted ones."""
    rng = np.random.default_rng(seed)
    loss = ("squared", "logistic", "huber")[seed % 3]
    X, Y = instance(seed)
    X, Y = X / (np.abs(X).max() or 1.0), Y / (np.abs(Y).max() or 1.0)
    Y = np.where(Y > 0, 1.0, -1.0) if loss == "logistic" else Y
    beta = float(10 ** rng.uniform(-3, 0.5))
    d = X.shape[1]
    size = 10 ** rng.uniform(-3, 1)
    network = jaxcvx.Network(size * rng.standard_normal((3, d)), size * rng.standard_normal((3, 1)))
    problem = jaxcvx.make_problem(X, Y, beta, loss=loss)
    proof = grow_proof(start_proof(problem, balance(network)), problem, 1e-3, 60.0, lambda u, b, s: s.nodes > 1000)
    others = [network, jaxcvx.Network(np.zeros((1, d)), np.zeros((1, 1)))]
    if seed % 10 == 0:
        descent = jaxcvx.GradientDescent(width=8, max_steps=400, learning_rate=3e-2)
        others.append(jaxcvx.solve(problem, descent, key=jax.random.key(seed)).network)
    for other in others:
        objective = float(jaxcvx.training_objective(balance(other), X, Y, beta, loss=loss))
        assert proof.lower <= objective * (1 + 1e-12) + 1e-300, seed


def test_no_price_exceeds_its_bound():
    for seed in range(24):
        check_prices(seed)


def test_no_network_is_below_the_bound():
    for seed in range(9):
        check_networks(seed)


@pytest.mark.soak
def test_no_price_exceeds_its_bound_in_ten_thousand_instances():
    for seed in range(100, 10_100):
        check_prices(seed)


@pytest.mark.soak
def test_no_network_is_below_the_bound_of_another_in_five_hundred_instances():
    for seed in range(1000, 1500):
        check_networks(seed)
