"""The problem object: a frozen pytree, what it derives from its data, validity inside jit."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import Arrangements, ConvFlatten, Dense, make_problem
from jaxcvx.losses.entrywise import Squared

X = np.array([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0]])
Y = np.array([1.0, -2.0, 0.5])


def cells(n: int = 3, p: int = 2, num: int = 4) -> Arrangements:
    return Arrangements(jnp.ones((num, n), bool), jnp.ones((num, p)))


def test_problem_is_a_frozen_pytree():
    problem = make_problem(X, Y, 0.1, arrangements=cells())
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.beta = 1.0
    leaves, tree = jax.tree.flatten(problem)
    assert len(leaves) == 5 and jax.tree.unflatten(tree, leaves).loss == Squared()
    other = problem.replace(beta=2)
    assert float(other.beta) == 2 and other.beta.dtype == problem.X.dtype and float(problem.beta) == 0.1
    assert other.X is problem.X
    doubled = jax.jit(lambda p: p.replace(beta=2 * p.beta))(problem)
    assert float(doubled.beta) == 0.2 and doubled.loss == problem.loss
    betas = jax.vmap(lambda b: problem.replace(beta=b).beta)(jnp.arange(3.0))
    assert betas.tolist() == [0, 1, 2]


def test_the_operator_is_the_sum_over_cells_and_the_skip_connection():
    rng = np.random.default_rng(0)
    gates = rng.standard_normal((4, 3))
    Z = np.hstack([X, np.ones((3, 1))])
    masks = gates @ Z.T >= 0
    features = Dense(bias=True, skip=True)
    arrangements = Arrangements(jnp.asarray(masks), jnp.asarray(gates))
    problem = make_problem(X, Y, 0.1, features=features, arrangements=arrangements)
    W = rng.standard_normal((5, 3, 1))
    expected = sum((mask[:, None] * Z) @ block for mask, block in zip(masks, W, strict=False)) + Z @ W[4]
    np.testing.assert_allclose(problem.operator.forward(jnp.asarray(W)), expected, atol=1e-12)
    np.testing.assert_array_equal(problem.rows, Z)
    assert (problem.num_samples, problem.num_outputs, problem.num_columns, problem.num_rows) == (3, 1, 1, 3)


def test_positions_count_in_rows_and_columns():
    problem = make_problem(np.ones((3, 5, 1)), Y, 0.1, features=ConvFlatten((2,)))
    assert (problem.num_samples, problem.num_rows, problem.num_columns) == (3, 12, 4)
    assert problem.rows.shape == (12, 2)


@pytest.mark.parametrize(
    "beta, row, valid", [(0.1, 0.0, True), (0.0, 0.0, True), (-0.1, 0.0, False), (0.1, np.nan, False)]
)
def test_validity_is_seen_inside_jit(beta, row, valid):
    problem = make_problem(X, Y, 0.1)

    def check(beta, row):
        return dataclasses.replace(problem, X=problem.X + row, beta=beta).is_valid()

    assert bool(jax.jit(check)(jnp.asarray(beta), jnp.asarray(row))) is valid
