"""Buckets of samples: sizes, the same problem, and no compilation for other data of the same bucket."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.networks.network import Network, network_objective
from jaxcvx.problems.buckets import bucket_size, in_bucket_of_samples
from tests.cases import compiled_programs
from tests.helpers import gaussian_data, targets_for


@hypothesis.given(st.integers(1, 10**7))
def test_sizes(n):
    size = bucket_size(n)
    assert n <= size == bucket_size(size) and (size == 32 or size <= 1.125 * n)


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic", "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_problem_is_the_same(loss, weighted):
    X, Y = gaussian_data(0, 21, 3, 2)
    weight = np.arange(21) % 4 if weighted else None
    features = jaxcvx.Dense(bias=True, output_bias=True)
    problem = jaxcvx.make_problem(X, targets_for(loss, Y), 0.7, loss=loss, features=features, sample_weight=weight)
    padded = in_bucket_of_samples(problem)
    assert padded.num_samples == 32 and padded.sample_weight is not None and padded.dtype == problem.dtype
    assert in_bucket_of_samples(padded) is padded
    rng = np.random.default_rng(1)
    hidden, output, bias = (
        jnp.asarray(rng.standard_normal(s)) for s in ((5, 4), (5, problem.num_outputs), (problem.num_outputs,))
    )
    network = Network(hidden, output, None, features, bias)
    np.testing.assert_allclose(network_objective(network, padded), network_objective(network, problem), rtol=1e-13)


def test_traced_and_distributed_problems_stay():
    X, Y = gaussian_data(0, 21, 3)
    problem = jaxcvx.make_problem(X, Y, 0.7)
    assert jax.jit(lambda p: in_bucket_of_samples(p).X)(problem).shape == (21, 3)


def test_other_data_of_the_bucket_compile_nothing(caplog):
    solver = jaxcvx.ColumnGeneration(width=32, moves=1, move_steps=5, rounds=2, final_rounds=1)

    def path(seed, n):
        problem = jaxcvx.make_problem(*gaussian_data(seed, n, 2), 1.0, features=jaxcvx.Dense(bias=True))
        top = float(solver.largest_beta(problem, None))
        return jaxcvx.regularization_path(problem, top * np.array([1.0, 0.5]), solver)  # few neurons

    path(0, 35)
    assert compiled_programs(caplog, lambda: path(1, 36)) == []
    # 33 samples share the programs too; only the conversion of their arrays may be new.
    assert not {"jit(follow)", "jit(finish)", "jit(report)"} & set(compiled_programs(caplog, lambda: path(2, 33)))
