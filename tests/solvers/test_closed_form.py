"""SoftThresholdedSVD: closed forms on whitened rows, honest gaps elsewhere, and data it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    Dense,
    InvalidInputError,
    SoftThresholdedSVD,
    Status,
    fit_whitening,
    make_problem,
    solve,
)
from jaxcvx.analysis.closed_forms import whitened_value
from tests.helpers import adam_objectives, gaussian_data, network_value


def white(n: int, d: int, seed: int = 0) -> np.ndarray:
    X, _ = gaussian_data(seed, n, d)
    return np.asarray(fit_whitening(X)(X))


def one_hot(*counts: int) -> np.ndarray:
    return np.eye(len(counts))[np.repeat(np.arange(len(counts)), counts)]


def solved(X, Y, beta):
    solution = solve(make_problem(X, Y, beta), SoftThresholdedSVD())
    network = solution.network
    weights = np.asarray(network.hidden), np.asarray(network.output)
    assert float(solution.upper_bound) == pytest.approx(network_value(*weights, X, Y, beta), rel=1e-10)
    assert solution.status == Status.CONVERGED and solution.lower_bound <= solution.upper_bound
    return solution


def test_reference_instance():
    X, Y = white(30, 50), one_hot(7, 9, 14)
    solution = solved(X, Y, 1.0)
    assert float(solution.upper_bound) == pytest.approx(7.8874087, abs=5e-8)
    assert solution.gap < 1e-12 and solution.scope == "global" and solution.network.width == 3
    runs = adam_objectives(X, Y, 1.0, runs=3)
    assert runs.min() == pytest.approx(7.8874087, rel=1e-6) and runs.min() >= solution.lower_bound


@pytest.mark.routine(2)
@pytest.mark.parametrize(("counts", "beta"), [((4, 4, 4), 0.5), ((2, 4, 6), 2.1), ((6, 6), 3.0)])
def test_one_hot_with_equal_and_with_dropped_classes(counts, beta):
    Y = one_hot(*counts)
    solution = solved(white(12, 12), Y, beta)
    assert float(solution.upper_bound) == pytest.approx(
        float(whitened_value(np.sqrt(counts), beta)), rel=1e-10, abs=1e-12
    )
    assert solution.gap < 1e-10 or beta == 0
    assert solution.network.width <= max(1, sum(np.sqrt(counts) > beta))


@pytest.mark.routine(2)
@pytest.mark.parametrize("beta", [0.1, 1.0, 2.3, 50.0])
def test_one_output_of_both_signs(beta):
    X, (_, y) = white(12, 20), gaussian_data(1, 12, 1)
    y += 0.3
    sizes = np.linalg.norm(np.maximum(np.concatenate([y, -y], axis=1), 0), axis=0)
    solution = solved(X, y, beta)
    assert float(solution.upper_bound) == pytest.approx(float(whitened_value(sizes, beta)), rel=1e-10)
    assert solution.gap < 1e-10 and solution.scope == "global" and solution.network.width <= 2
    if beta == 1.0:
        best = adam_objectives(X, y, beta, runs=5).min()
        assert best == pytest.approx(float(solution.upper_bound), rel=1e-6)


def test_general_targets_have_an_honest_gap():
    X, (_, Y) = white(10, 14), gaussian_data(2, 10, 1, 3)
    solution = solved(X, Y, 0.5)
    sizes = np.linalg.svd(Y, compute_uv=False)
    assert float(solution.objective) == pytest.approx(float(whitened_value(sizes, 0.5)), rel=1e-10)
    best = adam_objectives(X, Y, 0.5, runs=5).min()
    assert solution.objective * (1 - 1e-10) <= solution.lower_bound <= best
    assert solution.upper_bound <= 1.1 * best and solution.scope == "relaxation"


def test_one_signed_singular_vectors_are_exact():
    rng = np.random.default_rng(0)
    first, second = np.abs(rng.standard_normal((2, 6)))
    left = np.linalg.qr(np.stack([np.r_[first, np.zeros(6)], np.r_[np.zeros(6), second]]).T)[0]
    right = np.linalg.qr(rng.standard_normal((3, 3)))[0][:2]
    solution = solved(white(12, 15), left * [5.0, 3.0] @ right, 1.0)
    assert solution.gap < 1e-10 and solution.network.width == 2


def test_jit_and_vmap():
    X, Y = jnp.asarray(white(12, 20)), jnp.asarray(one_hot(3, 4, 5))
    problem = make_problem(X, Y, 1.0)
    solve_at = jax.jit(jax.vmap(lambda beta: solve(problem.replace(beta=beta), SoftThresholdedSVD())))
    solution = solve_at(jnp.asarray([0.5, 1.9, 4.0]))
    expected = [float(whitened_value(np.sqrt([3, 4, 5]), beta)) for beta in (0.5, 1.9, 4.0)]
    np.testing.assert_allclose(solution.upper_bound, expected, rtol=1e-10)
    np.testing.assert_allclose(solution.lower_bound, expected, rtol=1e-10)
    assert (solution.status == Status.CONVERGED).all() and solution.scope == "global"  # Y is not traced


def test_data_that_are_not_whitened():
    X, Y = gaussian_data(0, 10, 14, 1)
    with pytest.raises(InvalidInputError, match="^problem.X: got feature rows Z with max"):
        solve(make_problem(X, Y, 0.5), SoftThresholdedSVD())
    traced = jax.jit(lambda problem: solve(problem, SoftThresholdedSVD()))(make_problem(X, Y, 0.5))
    assert traced.status == Status.MAX_STEPS
    assert traced.lower_bound <= adam_objectives(X, Y, 0.5, runs=5).min() <= traced.upper_bound * (1 + 1e-9)


def test_other_problems_are_refused():
    X, Y = white(5, 8), one_hot(2, 3)
    with pytest.raises(InvalidInputError, match="^loss: got 'huber'"):
        solve(make_problem(X, Y, 0.5, loss="huber"), SoftThresholdedSVD())
    with pytest.raises(InvalidInputError, match="^features: got a skip"):
        solve(make_problem(X, Y, 0.5, features=Dense(skip=True)), SoftThresholdedSVD())


@pytest.mark.float32
def test_single_precision():
    X = white(30, 50)
    assert X.dtype == np.float32
    solution = solve(make_problem(X, one_hot(7, 9, 14), 1.0), SoftThresholdedSVD())
    assert solution.status == Status.CONVERGED and solution.network.hidden.dtype == jnp.float32
    assert float(solution.upper_bound) == pytest.approx(7.8874087, rel=1e-5)
    assert 0 <= solution.gap < 1e-5
