"""Added rows and cells do not change the problem; rows that would change it are refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.parallel.padding import padded_cells, padded_rows
from tests.helpers import gaussian_data
from tests.sharding.run_sharded import fast_options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "hinge"}, ["hinge", "divide", "16"]),
        *[
            ({"loss": loss, "features": features}, ["features", "bias", "divide", "16"])
            for loss, features in (
                ("squared", jaxcvx.Dense(bias=True)),
                ("huber", jaxcvx.FreeBias()),
                ("interpolation", jaxcvx.ConvPool(2, bias=True)),
                ("squared", jaxcvx.Dense(output_bias=True)),
            )
        ],
    ],
)
def test_rows_that_would_change_the_objective_are_refused(options, words):
    X, Y = gaussian_data(0, 12, 3, 1)
    problem = jaxcvx.make_problem(X, np.sign(Y), 0.5, **options)
    assert padded_rows(problem, 0) is problem
    with pytest.raises(jaxcvx.InvalidInputError) as caught:
        padded_rows(problem, 4)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("loss", ["squared", "huber", "interpolation", "logistic", "softmax"])
def test_added_zero_rows_change_no_value(loss):
    X, Y = gaussian_data(0, 12, 3, 2)
    Y = {"logistic": np.sign(Y), "softmax": np.eye(2)[Y.argmax(axis=1)]}.get(loss, Y)
    problem = jaxcvx.make_problem(X, Y, 0.5, loss=loss)
    more = padded_rows(problem, 4)
    F = np.random.default_rng(1).standard_normal((12, 2))
    longer = np.concatenate([F, np.zeros((4, 2))])
    R = -problem.loss.grad(F, problem.Y)
    longer_R = -more.loss.grad(longer, more.targets)
    np.testing.assert_allclose(longer_R, np.concatenate([R, np.zeros((4, 2))]), atol=1e-15)
    for scale in (1.0, 0.5):
        a, b = problem.loss.dual_value(scale * R, problem.Y), more.loss.dual_value(scale * longer_R, more.targets)
        assert float(b) == pytest.approx(float(a), rel=1e-12)
    assert float(more.loss.value(longer, more.targets)) == pytest.approx(
        float(problem.loss.value(F, problem.Y)), rel=1e-12
    )
    scaling = problem.loss.max_scaling(R, problem.Y), more.loss.max_scaling(longer_R, more.targets)
    assert float(scaling[1]) == pytest.approx(float(scaling[0]), rel=1e-12)


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_with_sample_weights_added_rows_have_weight_zero(loss):
    X, Y = gaussian_data(0, 12, 3, 1)
    weight = np.arange(12.0)
    problem = jaxcvx.make_problem(X, np.sign(Y), 0.5, loss=loss, features=jaxcvx.Dense(bias=True), sample_weight=weight)
    more = padded_rows(problem, 4)
    np.testing.assert_array_equal(more.sample_weight, np.append(weight, np.zeros(4)))
    F = np.random.default_rng(1).standard_normal((16, 1))
    for ours, theirs in (
        (more.loss.value(F, more.targets), problem.loss.value(F[:12], problem.targets)),
        (more.loss.grad(F, more.targets)[:12], problem.loss.grad(F[:12], problem.targets)),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    sharded = jaxcvx.parallel.shard_problem(problem, jaxcvx.parallel.make_mesh(samples=1))
    np.testing.assert_array_equal(sharded.sample_weight, weight)


def test_added_cells_keep_completeness_and_beta_max():
    X, Y = gaussian_data(0, 8, 2, 1)
    problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=jaxcvx.enumerate_arrangements(X))
    more = padded_cells(problem, 3)
    assert problem.arrangements.complete and more.arrangements.complete
    assert len(more.arrangements) == len(problem.arrangements) + 3 and not more.arrangements.masks[-3:].any()
    for program in ("gated", "network"):
        assert float(more.beta_max(program)) == pytest.approx(float(problem.beta_max(program)), rel=1e-12)


def test_weighted_losses_accept_added_rows_with_a_bias():
    X, Y = gaussian_data(0, 12, 3, 1)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5, features=jaxcvx.Dense(bias=True))
    problem = jaxcvx.make_problem(
        X, np.sign(Y), 0.5, loss="logistic", features=jaxcvx.Dense(bias=True), arrangements=cells
    )
    more = padded_rows(problem, 4)
    assert more.num_samples == 16
    solver = jaxcvx.ProximalGradient(tol=1e-9, phases="accelerated")
    run = jax.jit(lambda p: jaxcvx.solve(p, solver), compiler_options=fast_options())
    a, b = run(problem), run(more)
    assert float(b.objective) == pytest.approx(float(a.objective), rel=1e-8)
    assert float(b.lower_bound) == pytest.approx(float(a.lower_bound), rel=1e-8)
