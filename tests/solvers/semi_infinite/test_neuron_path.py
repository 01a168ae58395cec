"""Whole paths of networks: against separate solves, the growth of the capacity, jit and vmap, sample weights."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ColumnGeneration, Dense, make_problem, regularization_path, solve
from jaxcvx.errors import InvalidInputError, InvalidTypeError
from jaxcvx.networks.network import Network
from jaxcvx.solvers.semi_infinite.neuron_path import sample_blocks
from tests.helpers import gaussian_data, targets_for

SMALL = ColumnGeneration(width=16, new_neurons=16, moves=2, move_steps=50, rounds=4, final_rounds=4)
FRACTIONS = np.array([1.1, 0.5, 0.2])


def problem_of(loss="squared", n=24, d=3, outputs=1, output_bias=False, **options):
    X, Y = gaussian_data(1, n, d, outputs)
    features = Dense(bias=True, output_bias=output_bias)
    return make_problem(X, targets_for(loss, Y), 1.0, loss=loss, features=features, **options)


def entry(path, k):
    """The network of entry k."""
    return jax.tree.map(lambda a: a[k], path.network)


@pytest.fixture(scope="module")
def plain():
    with jax.enable_x64(True):
        problem = problem_of()
        top = float(SMALL.largest_beta(problem, None))
        return problem, regularization_path(problem, top * FRACTIONS, SMALL)


def test_every_number_is_that_of_its_network(plain):
    problem, path = plain
    assert path.betas.shape == path.upper_bound.shape == path.heuristic_bound.shape == path.num_neurons.shape == (3,)
    assert path.scope == "heuristic" and np.all(path.lower_bound == -np.inf)
    for k, beta in enumerate(path.betas):
        own = jaxcvx.training_objective(entry(path, k), problem.X, problem.Y, float(beta))
        assert path.upper_bound[k] == pytest.approx(float(own), rel=1e-12)
    assert np.all(path.heuristic_bound <= path.upper_bound)
    assert path.num_neurons[0] == 0 and np.all(np.diff(path.num_neurons) >= 1)


def test_the_optimum_at_every_beta(plain):
    """Exact pricing over all cells proves the optimum; the path has it to many digits."""
    problem, path = plain
    for beta, value in zip(path.betas, path.upper_bound, strict=True):
        exact = solve(problem.replace(beta=float(beta)), dataclasses.replace(SMALL, tol=1e-8, pricing="exact"))
        assert exact.scope == "global" and exact.gap <= 1e-7
        assert value == pytest.approx(float(exact.upper_bound), rel=1e-6)
        assert value >= float(exact.lower_bound)


@pytest.mark.routine(1)
@pytest.mark.parametrize(("loss", "outputs"), [("softmax", 3), ("logistic", 1), ("huber", 1), ("squared", 2)])
def test_losses_and_outputs_end_where_nothing_pays(loss, outputs):
    problem = problem_of(loss, outputs=outputs, output_bias=True)
    path = regularization_path(problem, 3, dataclasses.replace(SMALL, final_rounds=12))
    assert path.betas[2] == pytest.approx(0.01 * path.betas[0])
    gap = (path.upper_bound - path.heuristic_bound) / path.upper_bound
    assert gap[0] < 1e-6 and gap[1] < 1e-4
    assert np.all(np.diff(path.upper_bound) < 0)


def test_an_output_bias_takes_up_a_shift():
    problem = problem_of(output_bias=True)
    shifted = problem.replace(Y=problem.Y + 1000.0)
    betas = 0.3 * jnp.ones(1) * float(SMALL.largest_beta(problem, None))
    one, other = (regularization_path(each, betas, SMALL) for each in (problem, shifted))
    assert float(SMALL.largest_beta(shifted, None)) * 0.3 == pytest.approx(float(betas[0]), rel=1e-9)
    np.testing.assert_allclose(one.upper_bound, other.upper_bound, rtol=1e-8)
    np.testing.assert_allclose(entry(other, 0)(problem.X) - 1000, entry(one, 0)(problem.X), atol=1e-5)


def test_a_pool_that_is_too_small_grows(plain):
    problem, path = plain
    narrow = dataclasses.replace(SMALL, width=2, new_neurons=2)
    grown = regularization_path(problem, path.betas, narrow)
    assert grown.network.hidden.shape[1] > 2 and grown.num_neurons[2] > 2
    np.testing.assert_allclose(grown.upper_bound, path.upper_bound, rtol=1e-6)


def test_jit_and_vmap_over_folds(plain):
    problem, path = plain
    betas = jnp.asarray(path.betas)
    folds = jnp.ones((2, 24)).at[0, :6].set(0.0)
    fast = dataclasses.replace(SMALL, moves=1, rounds=3)

    @jax.jit
    @jax.vmap
    def paths(weight):
        return regularization_path(problem.replace(sample_weight=weight), betas, fast)

    both = paths(folds)
    assert both.upper_bound.shape == (2, 3) and both.scope == "heuristic"
    np.testing.assert_allclose(both.upper_bound[1], path.upper_bound, rtol=2e-3)
    without = regularization_path(problem.samples(np.arange(6, 24)), betas, SMALL)
    np.testing.assert_allclose(both.upper_bound[0], without.upper_bound, rtol=2e-3)
    one = jax.jit(lambda p: solve(p, fast))(problem.replace(beta=betas[2]))
    assert isinstance(one.network, Network) and one.upper_bound == pytest.approx(float(path.upper_bound[2]), rel=2e-3)


def test_weights_of_zero_and_of_two(plain):
    """In float64 a sample of weight 0 is as good as gone, and one of weight 2 counts twice."""
    problem, path = plain
    betas = path.betas[1:2]
    weighted = regularization_path(problem.replace(sample_weight=np.arange(24) % 3.0), betas, SMALL)
    rows = np.repeat(np.arange(24), np.arange(24) % 3)
    repeated = regularization_path(problem.samples(rows), betas, SMALL)
    np.testing.assert_allclose(weighted.upper_bound, repeated.upper_bound, rtol=1e-8)


def test_bad_arguments_are_refused(plain):
    problem, _ = plain
    with pytest.raises(InvalidInputError, match="^betas: got 0"):
        regularization_path(problem, 0, SMALL)
    with pytest.raises(InvalidTypeError, match="^solver: got CuttingPlane"):
        regularization_path(problem, [1.0], jaxcvx.CuttingPlane())
    with pytest.raises(InvalidInputError, match="^rounds: got 0"):
        regularization_path(problem, [1.0], dataclasses.replace(SMALL, rounds=0))
    with pytest.raises(InvalidInputError, match="^init: got a network under jit"):
        network = Network(jnp.ones((2, 4)), jnp.ones((2, 1)), None, problem.features)
        jax.jit(lambda p: solve(p, SMALL, init=network).objective)(problem)


def test_samples_are_split_into_powers_of_two():
    rows = np.ones((26 * 4096, 1), np.float32)
    large, odd = (make_problem(rows[:n], rows[:n, 0], 1.0) for n in (len(rows), 20_001))
    assert sample_blocks(large) == 8  # 13 312 rows each
    assert sample_blocks(odd) == 1 and sample_blocks(problem_of()) == 1
