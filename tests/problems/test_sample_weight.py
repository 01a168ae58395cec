"""Sample weights: the same as repeated samples, a sample of weight zero is left out, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConeADMM, Network, make_problem, solve
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.losses.weighted import Weighted
from tests.helpers import cone_optimum, gaussian_data, targets_for

LOSSES = ["squared", "logistic", "softmax", "huber"]
REPEATS = np.array([2, 1, 0, 3, 1, 1, 2, 1])
BETA = 0.2


def _data(loss, seed=0, n=8, d=2):
    X, Y = gaussian_data(seed, n, d, 3 if loss == "softmax" else 1)
    return X, targets_for(loss, Y)


def _problem(loss, X, Y, beta=BETA, **weights):
    return make_problem(X, Y, beta, loss=loss, arrangements=jaxcvx.enumerate_arrangements(X), **weights)


def _network(c, seed=1, d=2):
    rng = np.random.default_rng(seed)
    return Network(jnp.asarray(rng.standard_normal((5, d))), jnp.asarray(rng.standard_normal((5, c))))


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", LOSSES)
def test_integer_weights_repeat_samples(loss):
    X, Y = _data(loss)
    again = np.repeat(np.arange(len(X)), REPEATS)
    weighted, repeated = _problem(loss, X, Y, sample_weight=REPEATS), _problem(loss, X[again], Y[again])
    network = _network(weighted.num_outputs)
    for value in (
        lambda p: jaxcvx.networks.network.network_objective(network, p),
        lambda p: p.beta_max("gated"),
    ):
        np.testing.assert_allclose(value(weighted), value(repeated), rtol=1e-12)
    ours, theirs = (
        jaxcvx.certify(network, *data, BETA, loss=loss, **weights)
        for data, weights in (((X, Y), {"sample_weight": REPEATS}), ((X[again], Y[again]), {}))
    )
    np.testing.assert_allclose([ours.upper, ours.balanced], [theirs.upper, theirs.balanced], rtol=1e-12)
    np.testing.assert_allclose(ours.lower, theirs.lower, rtol=1e-8)
    solver = ConeADMM(tol=1e-9)
    ours, theirs = solve(weighted, solver), solve(repeated, solver)
    assert ours.status == theirs.status == jaxcvx.Status.CONVERGED
    np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-8)
    np.testing.assert_allclose(ours.lower_bound, theirs.lower_bound, rtol=1e-3 if loss == "softmax" else 1e-7)
    np.testing.assert_allclose(ours.network(X[again]), theirs.network(X[again]), atol=1e-3)


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_sample_of_weight_zero_is_left_out(loss):
    X, Y = _data(loss, seed=3)
    weight = np.array([1.5, 0.5, 0.0, 2.0, 1.0, 0.3, 0.0, 1.0])
    kept = weight > 0
    X[2] *= 30  # an outlier
    full, part = (
        _problem(loss, *data, sample_weight=w) for data, w in (((X, Y), weight), ((X[kept], Y[kept]), weight[kept]))
    )
    solvers = [jaxcvx.ProximalGradient(tol=1e-9)]
    if loss != "softmax":  # for several outputs the cone program's value depends on the cells
        solvers.append(ConeADMM(tol=1e-9))
    for solver in solvers:
        ours, theirs = solve(full, solver), solve(part, solver)
        np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-8)
        assert ours.lower_bound <= ours.upper_bound
    network = theirs.network
    ours, theirs = (
        jaxcvx.certify(network, *data, BETA, loss=loss, sample_weight=w, method="relaxed")
        for data, w in (((X, Y), weight), ((X[kept], Y[kept]), weight[kept]))
    )
    assert (ours.upper, ours.lower) == (theirs.upper, theirs.lower)
    R = -full.loss.grad(full.Y * 0.1, full.targets)
    np.testing.assert_array_equal(R[~kept], 0)
    assert np.isfinite(full.loss.dual_value(R, full.targets))
    assert full.loss.dual_value(R.at[2].set(0.1), full.targets) == -np.inf


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", LOSSES)
def test_scaling_weights_and_beta_scales_the_objective(loss):
    X, Y = _data(loss)
    one, three = (_problem(loss, X, Y, s * BETA, sample_weight=np.full(8, s)) for s in (1.0, 3.0))
    plain, solver = _problem(loss, X, Y), jaxcvx.ProximalGradient(tol=1e-9)
    values = [float(solve(p, solver).objective) for p in (plain, one, three)]
    np.testing.assert_allclose([1, 3], np.divide(values[1:], values[0]), rtol=1e-8)
    np.testing.assert_allclose(three.beta_max(), 3 * plain.beta_max(), rtol=1e-12)


def test_folds_are_a_vmap_over_weights():
    X, Y = _data("squared")
    problem = _problem("squared", X, Y)
    folds = 1.0 - np.repeat(np.eye(2), 4, axis=1)
    solver = jaxcvx.ProximalGradient(tol=1e-9)

    def fit(weight):
        return solve(problem.replace(sample_weight=weight), solver)

    together = jax.jit(jax.vmap(fit))(jnp.asarray(folds))
    for k, weight in enumerate(folds):
        alone = fit(weight)
        np.testing.assert_allclose(together.objective[k], alone.objective, rtol=1e-7)
        part = _problem("squared", X[weight > 0], Y[weight > 0])
        np.testing.assert_allclose(alone.objective, solve(part, solver).objective, rtol=1e-7)


@pytest.mark.parametrize("solver", [jaxcvx.ProximalGradient(tol=1e-12), ConeADMM(tol=1e-12)], ids=repr)
def test_derivatives_with_respect_to_weights(solver):
    X, Y = _data("squared", n=6)
    problem, weight = _problem("squared", X, Y), jnp.array([1.0, 2.0, 0.0, 0.5, 1.0, 3.0])

    def optimum(weight):
        return solve(problem.replace(sample_weight=weight), solver).objective

    F = solve(problem.replace(sample_weight=weight), solver).params
    operator = problem.operator
    F = operator.forward(F[0] - F[1] if isinstance(F, tuple) else F)
    np.testing.assert_allclose(jax.grad(optimum)(weight), 0.5 * (F[:, 0] - problem.Y[:, 0]) ** 2, rtol=1e-4, atol=1e-6)


def test_float32_and_every_kind_of_solver():
    X, Y = _data("squared")
    weight = np.array([1.0, 0, 2, 0.5, 1, 1, 1, 3])
    exact = float(solve(_problem("squared", X, Y, sample_weight=weight), ConeADMM(tol=1e-9)).objective)
    narrow = _problem("squared", X.astype(np.float32), Y.astype(np.float32), sample_weight=weight)
    assert narrow.sample_weight.dtype == jnp.float32
    for solver in (
        ConeADMM(tol=1e-4),
        jaxcvx.GradientDescent(width=30, max_steps=4000),
        jaxcvx.ColumnGeneration(tol=1e-4, width=20),
    ):
        solution = solve(narrow, solver, key=jax.random.key(0))
        np.testing.assert_allclose(solution.upper_bound, exact, rtol=5e-3)
        assert solution.lower_bound <= exact * (1 + 1e-5) and solution.upper_bound >= exact * (1 - 1e-5)
    for solver in (jaxcvx.ProximalGradient(tol=1e-4), jaxcvx.NuclearProximalGradient(tol=1e-4)):
        solution = solve(narrow, solver)
        assert solution.status == jaxcvx.Status.CONVERGED and solution.lower_bound <= exact * (1 + 1e-5)
    arguments = {"loss": "squared", "sample_weight": weight}
    network = _network(1)
    polished = jaxcvx.polish(network, X, Y, BETA, **arguments)
    before, after = (jaxcvx.training_objective(a, X, Y, BETA, **arguments) for a in (network, polished))
    assert exact * (1 - 1e-8) <= after < before


@pytest.mark.routine("logistic")
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_bounds_hold_against_clarabel(loss):
    X, Y = _data(loss)
    halves = np.array([1, 2, 0, 3, 1, 1, 2, 1])  # weights 0.5, 1, ...: samples repeated in a program of half the size
    again = np.repeat(np.arange(8), halves)
    masks = np.asarray(jaxcvx.enumerate_arrangements(X).masks)
    optimum = 0.5 * cone_optimum(X[again], masks[:, again], Y[again], 2 * BETA, loss=loss)
    solution = solve(_problem(loss, X, Y, sample_weight=0.5 * halves), ConeADMM(tol=1e-9))
    np.testing.assert_allclose(solution.objective, optimum, rtol=1e-6)
    assert solution.lower_bound <= optimum * (1 + 1e-8)
    for seed in range(3):
        certificate = jaxcvx.certify(_network(1, seed), X, Y, BETA, loss=loss, sample_weight=0.5 * halves)
        assert certificate.lower <= optimum * (1 + 1e-8) and optimum <= certificate.balanced * (1 + 1e-8)


def test_save_load_and_replace(tmp_path):
    X, Y = _data("huber")
    problem = make_problem(X, Y, 0.1, loss=jaxcvx.Huber(0.5), sample_weight=REPEATS)
    jaxcvx.save(tmp_path / "problem.npz", problem)
    loaded = jaxcvx.load(tmp_path / "problem.npz")
    assert loaded.loss == problem.loss == Weighted(jaxcvx.Huber(0.5))
    np.testing.assert_array_equal(loaded.sample_weight, REPEATS)
    plain = problem.replace(sample_weight=None)
    assert plain.loss == jaxcvx.Huber(0.5) and plain.targets is plain.Y
    assert make_problem(X, Y, 0.1, loss=problem.loss).loss == jaxcvx.Huber(0.5)
    assert len(jax.tree.leaves(plain)) + 1 == len(jax.tree.leaves(problem))
    assert problem.replace(loss=jaxcvx.Squared()).loss == Weighted(jaxcvx.Squared())


@pytest.mark.parametrize(
    "weight, error, words",
    [
        (np.ones(7), InvalidInputError, "7 numbers"),
        (np.ones((8, 1)), InvalidInputError, "shape"),
        ([1, 1, 1, -2, 1, 1, 1, 1], InvalidInputError, "-2"),
        ([1, 1, 1, np.nan, 1, 1, 1, 1], InvalidInputError, "nan"),
        (np.zeros(8), InvalidInputError, "only zeros"),
        (["a"] * 8, InvalidTypeError, ""),
    ],
)
def test_weights_are_checked(weight, error, words):
    X, Y = _data("squared")
    for call in (
        lambda: make_problem(X, Y, 0.1, sample_weight=weight),
        lambda: jaxcvx.training_objective(_network(1), X, Y, 0.1, sample_weight=weight),
        lambda: jaxcvx.certify(_network(1), X, Y, 0.1, sample_weight=weight),
    ):
        with pytest.raises(error, match=f"(?i)sample_weight.*{words}"):
            call()


def test_what_ignores_weights_refuses_them():
    X, Y = _data("squared")
    problem = _problem("squared", X, Y, sample_weight=REPEATS)
    for solver in (jaxcvx.CopositiveADMM(), jaxcvx.FrankWolfe(), jaxcvx.SoftThresholdedSVD(), jaxcvx.CuttingPlane()):
        with pytest.raises(InvalidInputError, match="sample_weight: got weights, expected None"):
            solve(problem, solver)
    with pytest.raises(InvalidTypeError, match=r"problem\.targets"):
        problem.loss.value(problem.Y, problem.Y)
    assert not bool(problem.replace(sample_weight=-problem.sample_weight).is_valid())
