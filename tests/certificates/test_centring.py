"""Bounds for networks with an output bias: residuals are centred, and weak duality holds for every bias."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import Dense, InvalidInputError, Network, beta_max, certify, make_problem
from jaxcvx.certificates.centring import best_shifted, feasible_residual, imbalance, imbalance_price
from jaxcvx.certificates.dual import proved_bound
from jaxcvx.losses.base import balanced_columns
from jaxcvx.solvers.neurons.refit import refit_outputs
from tests.helpers import cone_optimum, gaussian_data, neurons_in_the_plane, targets_for

LOSSES = ["squared", "huber", "logistic", "softmax", "hinge"]
KINDS = [
    ("squared", False, True, "exact"),
    ("logistic", True, False, "relaxed"),
    ("softmax", False, False, "exact"),
    ("huber", True, True, "relaxed"),
    ("hinge", False, False, "relaxed"),
]  # loss, weights, skip connection, method: each combination is compiled
BIASED = Dense(output_bias=True)


def biased_problem(loss: str, seed: int, n: int = 8, weighted: bool = False, features: Dense = BIASED):
    X, raw = gaussian_data(seed, n, 2, 3 if loss == "softmax" else 1)
    Y = targets_for(loss, raw)
    Y = np.where(np.arange(n)[:, None] < 2, [[1.0], [-1.0]][seed % 2], Y) if loss in ("logistic", "hinge") else Y
    weight = np.arange(n) % 4.0 if weighted else None
    return make_problem(X, Y, 0.4, loss=loss, features=features, sample_weight=weight), X, Y, weight


def to_single(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def random_network(problem: Any) -> Network:
    rng = np.random.default_rng(1)
    hidden, output = (jnp.asarray(rng.standard_normal(shape)) for shape in ((4, 2), (4, problem.num_outputs)))
    return Network(hidden, output, None, problem.features, jnp.zeros(problem.num_outputs))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_residuals_are_centred_inside_the_domain(loss, weighted):
    for seed in range(4):
        problem, X, Y, weight = biased_problem(loss, seed, weighted=weighted)
        F = 3 * np.random.default_rng(seed).standard_normal(problem.Y.shape)
        R = -problem.loss.grad(jnp.asarray(F), problem.targets)
        centred = feasible_residual(problem, R)
        np.testing.assert_allclose(jnp.sum(centred, axis=0), 0, atol=1e-12)
        assert np.isfinite(float(problem.loss.dual_value(centred, problem.targets)))
        np.testing.assert_allclose(feasible_residual(problem, centred), centred, atol=1e-12)
        if weighted:
            np.testing.assert_array_equal(centred[weight == 0], 0)
        if loss != "hinge":  # whose subgradient may be zero in a whole class
            assert np.abs(centred).max() > 1e-6 and float(imbalance(R)) > 0.01
        assert float(imbalance(centred)) < 1e-12


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_way_to_a_centred_residual_costs_no_more_than_imbalance_says(loss, weighted):
    """The proof's R' for residuals that are far from centred: its dual value and its prices."""
    problem, X, _, _ = biased_problem(loss, 0, weighted=weighted)
    rng = np.random.default_rng(0)
    U = rng.standard_normal((500, 2))
    activations = np.maximum(X @ (U / np.linalg.norm(U, axis=1, keepdims=True)).T, 0)
    for scale in (0.03, 1.0, 3.0):
        F = jnp.asarray(scale * rng.standard_normal(problem.Y.shape))
        R = 0.9 * -problem.loss.grad(F, problem.targets)
        centred = balanced_columns(R) if loss == "squared" else feasible_residual(problem, R)
        share = float(imbalance(R))
        assert 0.01 < share <= 1
        (at_R, inside), (at_zero, _), (after, still) = (
            problem.loss.dual_terms(D, problem.targets) for D in (R, 0 * R, centred)
        )
        assert bool(inside) and bool(still)
        least = np.sum(at_R) - share * (np.abs(at_R).sum() + np.abs(at_zero).sum())
        assert float(np.sum(after)) >= least - 1e-12
        prices, moved = (np.linalg.norm(activations.T @ np.asarray(D), axis=1) for D in (R, centred))
        change = float(imbalance_price(problem, R, problem.rows, jnp.asarray(share)))
        assert np.all(np.abs(moved - prices) <= change)


@pytest.mark.routine("logistic-True", "squared-False")
@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_bounds_near_an_optimum_lie_below_good_networks(loss, weighted):
    """The bounds of networks near an optimum are nearly tight, so a wrong one would lie above its objective."""
    problem, X, Y, weight = biased_problem(loss, 1, 10, weighted)
    start = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=60, max_steps=1500), key=jax.random.key(0)).network
    good = jaxcvx.polish(start, X, Y, 0.4, loss=loss, sample_weight=weight)
    best = float(jaxcvx.training_objective(good, X, Y, 0.4, loss, sample_weight=weight))
    rng = np.random.default_rng(0)
    lowers = []
    for size in (0.0, 1e-3, 0.01, 0.1, 0.3):
        near = jax.tree.map(lambda a, s=size: a + s * jnp.asarray(rng.standard_normal(a.shape)), good)
        certificate = certify(near, X, Y, 0.4, loss=loss, sample_weight=weight)
        assert certificate.lower <= best * (1 + 1e-12) and certificate.lower <= certificate.upper
        lowers.append(float(certificate.lower))
    assert lowers[0] > (1 - 1e-5 if problem.loss.is_smooth else 0.9) * best
    assert lowers[2] > 0.95 * best or not problem.loss.is_smooth


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
def test_best_constants_make_the_loss_least(loss, weighted):
    problem, _, _, _ = biased_problem(loss, 0, weighted=weighted)
    F = jnp.asarray(2 * np.random.default_rng(0).standard_normal(problem.Y.shape))
    shifted = best_shifted(problem, F)
    constant = np.asarray(shifted - F)
    np.testing.assert_allclose(constant - constant[:1], 0, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(problem.loss.grad(shifted, problem.targets), axis=0), 0, atol=1e-9)
    far = best_shifted(problem, F + 200.0)
    np.testing.assert_allclose(
        problem.loss.grad(far, problem.targets), problem.loss.grad(shifted, problem.targets), atol=1e-9
    )


@pytest.mark.routine(4)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32_under_strict_promotion(loss, weighted):
    problem = to_single(biased_problem(loss, 0, weighted=weighted)[0])
    F = jnp.asarray(np.random.default_rng(0).standard_normal(problem.Y.shape), jnp.float32)
    with jax.numpy_dtype_promotion("strict"):
        shifted = jax.jit(best_shifted)(problem, F)
        R = jax.jit(feasible_residual)(problem, -problem.loss.grad(shifted, problem.targets))
        bound = jax.jit(proved_bound)(problem, R, jnp.asarray(3.0, jnp.float32))
        fitted = refit_outputs(problem, to_single(random_network(problem)), max_steps=20)
    assert shifted.dtype == R.dtype == bound.dtype == fitted.output_bias.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(R, axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_one_class_only_needs_no_neuron(loss, dtype):
    X = jnp.asarray(gaussian_data(0, 6, 2)[0], dtype)
    Y = np.ones(6) if loss == "logistic" else np.eye(3)[np.ones(6, int)]
    problem = make_problem(X, jnp.asarray(Y, dtype), 0.4, loss=loss, features=BIASED)
    assert 0 <= float(beta_max(problem)) < 1e-6
    network = Network(jnp.ones((1, 2), dtype), jnp.ones((1, problem.num_outputs), dtype), None, BIASED)
    certificate = certify(network, X, Y, 0.4, loss=loss)
    assert 0 <= certificate.lower < 1e-6


@pytest.mark.slow
@hypothesis.given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    shift=st.sampled_from([0.0, 50.0, 1e6]),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_weak_duality_for_random_networks_and_biases(seed, kind, shift):
    """No network's objective lies below the bound that another network's residual proves, whatever their biases."""
    loss, weighted, skip, method = kind
    problem, X, Y, weight = biased_problem(loss, seed % 8, 8, weighted, Dense(skip=skip, output_bias=True))
    Y = Y + shift if loss in ("squared", "huber") else Y
    rng = np.random.default_rng(seed)
    c = problem.num_outputs

    def drawn() -> Network:
        arrays = (rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 0.5) for shape in ((4, 2), (4, c), (2, c)))
        hidden, output, S = map(jnp.asarray, arrays)
        bias = jnp.asarray(rng.standard_normal(c) * 10.0 ** rng.uniform(-2, 2) + shift)
        return Network(hidden, output, S if skip else None, problem.features, bias)

    certificate = certify(drawn(), X, Y, 0.4, loss=loss, method=method, sample_weight=weight)
    assert np.isfinite(certificate.lower) and certificate.lower <= certificate.upper
    for _ in range(5):
        other = drawn()
        best = dataclasses.replace(other, output_bias=None)(jnp.asarray(X))
        shifted = make_problem(X, Y, 0.4, loss=loss, features=problem.features, sample_weight=weight)
        tuned = other.output_bias
        if problem.loss.is_smooth:
            tuned = shifted.loss.best_constant(best, shifted.targets)
        for bias in (other.output_bias, tuned):
            network = dataclasses.replace(other, output_bias=bias)
            value = jaxcvx.training_objective(network, X, Y, 0.4, loss, sample_weight=weight)
            assert certificate.lower <= float(value) * (1 + 1e-12)


@pytest.mark.routine("features0-logistic", "features1-hinge")
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "hinge"])
@pytest.mark.parametrize("features", [BIASED, Dense(bias=True, output_bias=True)])
def test_the_bound_of_an_optimum_is_clarabels_optimum(loss, features):
    """All cells, and a variable for the bias: the optimum of training for one output."""
    problem, X, Y, _ = biased_problem(loss, 3, 7, features=features)
    cells = jaxcvx.enumerate_arrangements(X, features=features)
    Z = np.concatenate([X, np.ones((7, 1))], axis=1) if features.bias else X
    optimum = cone_optimum(Z, cells.masks, Y, 0.4, loss=loss, output_bias=True)
    assert optimum < cone_optimum(Z, cells.masks, Y, 0.4, loss=loss) * (1 - 1e-4)
    solution = jaxcvx.solve(problem, jaxcvx.CuttingPlane(tol=1e-8))
    assert float(solution.upper_bound) == pytest.approx(optimum, rel=1e-6)
    assert solution.scope == "global" and solution.lower_bound == pytest.approx(optimum, rel=1e-6)
    assert solution.network.output_bias is not None
    tight = certify(solution.network, X, Y, 0.4, loss=loss)
    assert tight.scope == "global" and tight.lower <= optimum * (1 + 1e-8)
    if loss != "hinge":  # whose residual is not unique at kinks
        assert tight.lower == pytest.approx(optimum, rel=1e-4)
        over_cells = certify(solution.network, X, Y, 0.4, loss=loss, arrangements=cells)
        assert over_cells.lower == pytest.approx(optimum, rel=1e-4)
    relaxed = certify(solution.network, X, Y, 0.4, loss=loss, method="relaxed")
    assert relaxed.scope == "relaxation" and relaxed.lower <= optimum * (1 + 1e-8)


def test_several_outputs_and_the_bound_does_not_depend_on_the_networks_own_bias():
    X, Y = gaussian_data(1, 7, 2, 2)
    solution = jaxcvx.solve(make_problem(X, Y + 10, 0.4, features=BIASED), jaxcvx.CuttingPlane(tol=1e-8))
    assert solution.scope == "global" and solution.gap < 1e-6
    np.testing.assert_allclose(np.sum(Y + 10 - np.asarray(solution.network(X)), axis=0), 0, atol=1e-6)
    tight = certify(solution.network, X, Y + 10, 0.4)
    wrong = dataclasses.replace(solution.network, output_bias=solution.network.output_bias + 3)
    off = certify(wrong, X, Y + 10, 0.4)
    assert off.lower == pytest.approx(tight.lower, rel=1e-9) and off.upper > tight.upper + 1
    estimate = certify(solution.network, X, Y + 10, 0.4, method="multistart")
    assert estimate.heuristic_bound == pytest.approx(float(tight.lower), rel=1e-3)


def test_flattened_convolutions_by_cutting_planes():
    X, Y = gaussian_data(1, 6, 3)
    features = jaxcvx.ConvFlatten(2, output_bias=True)
    near, far = (
        jaxcvx.solve(make_problem(X, Y + shift, 0.3, features=features), jaxcvx.CuttingPlane(tol=1e-7))
        for shift in (0.0, 100.0)
    )
    assert near.gap < 1e-6
    assert float(far.upper_bound) == pytest.approx(float(near.upper_bound), rel=1e-6)
    np.testing.assert_allclose(far.network(X), near.network(X) + 100, atol=1e-3)


@pytest.mark.routine("True-squared", "True-softmax")
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
def test_beta_max_by_many_neurons(loss, weighted):
    problem, X, Y, weight = biased_problem(loss, 2, 9, weighted)
    w = np.ones(9) if weight is None else weight
    if loss == "squared":
        R = w[:, None] * (Y - (w @ Y) / w.sum())
    elif loss == "huber":
        grid = np.linspace(Y.min(), Y.max(), 400_001)
        slope = (w[:, None] * np.clip(grid[None] - Y, -1, 1)).sum(axis=0)
        R = w[:, None] * np.clip(Y - grid[np.abs(slope).argmin()], -1, 1)
    else:
        hot = (Y + 1) / 2 if loss == "logistic" else np.eye(3)[np.ravel(Y)]
        R = w[:, None] * (hot - (w @ hot) / w.sum())
    expected = np.linalg.norm(neurons_in_the_plane(X, 200_000).T @ R, axis=1).max()
    cells = jaxcvx.enumerate_arrangements(X)
    exact = float(beta_max(problem.replace(arrangements=cells), "network"))
    assert exact == pytest.approx(expected, rel=1e-5)
    assert float(beta_max(problem)) >= exact * (1 - 1e-12)
    assert float(jax.jit(beta_max)(problem)) == pytest.approx(float(beta_max(problem)), rel=1e-9)


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_above_beta_max_a_constant_is_optimal_and_not_below(loss):
    problem, X, Y, _ = biased_problem(loss, 2, 7)
    cells = jaxcvx.enumerate_arrangements(X)
    limit = float(beta_max(problem.replace(arrangements=cells), "network"))
    constant = cone_optimum(X, cells.masks, Y, 2 * limit, loss=loss, output_bias=True)
    above, below = (cone_optimum(X, cells.masks, Y, f * limit, loss=loss, output_bias=True) for f in (1.001, 0.9))
    assert above == pytest.approx(constant, rel=1e-7) and below < constant * (1 - 1e-5)


def test_beta_max_needs_a_smooth_loss():
    problem, _, _, _ = biased_problem("hinge", 0)
    with pytest.raises(InvalidInputError, match="^problem: got an output bias with loss 'hinge'"):
        beta_max(problem)


@pytest.mark.routine("logistic")
@pytest.mark.float32
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
def test_bounds_in_float32_are_on_the_right_side_of_those_in_float64(loss):
    X, raw = gaussian_data(4, 200, 3, 3 if loss == "softmax" else 1)
    Y = targets_for(loss, raw)
    Y = Y + 1000 if loss in ("squared", "huber") else Y
    cells = jaxcvx.sample_arrangements(jax.random.key(0), jnp.asarray(X, jnp.float32), 6)
    targets = jnp.asarray(Y) if loss == "softmax" else jnp.asarray(Y, jnp.float32)
    problem = make_problem(jnp.asarray(X, jnp.float32), targets, 30.0, loss=loss, features=BIASED, arrangements=cells)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=4, max_steps=300), key=jax.random.key(1))
    rounded = np.asarray(problem.X), np.asarray(problem.Y)
    exact = certify(solution.network, *rounded, 30.0, loss=loss, arrangements=cells)
    assert float(solution.lower_bound) <= exact.upper
    assert float(solution.lower_bound) <= exact.lower * (1 + 1e-6)
    assert float(solution.lower_bound) >= exact.lower - 0.02 * abs(exact.upper)
