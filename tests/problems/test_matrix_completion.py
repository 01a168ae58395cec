"""Completion and one-bit completion: recovery, bounds on rows, likelihoods, probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from tests.problems.low_rank_data import (
    COLS,
    D1,
    D2,
    DOF,
    RANK,
    ROWS,
    TRUTH,
    completion,
    error,
    given,
    one_bit,
)


@pytest.mark.parametrize("key", [None, 0])
def test_completion_recovers_from_both_starts(key):
    problem = completion()
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(), key=None if key is None else jax.random.key(key))
    assert solution.converged and error(problem, solution, TRUTH) < 1e-5
    assert solution.scope == "global" and solution.lower_bound == 0 and solution.network is None


@pytest.mark.parametrize("multiple, success", [(4, 1.0), pytest.param(1, 0.0, marks=pytest.mark.long)])
def test_completion_rates_from_random_starts(multiple, success):
    """All trials at four times the degrees of freedom, none at once (vmapped, with traced places)."""

    def trial(key):
        choose, left, right, start = jax.random.split(key, 4)
        rows, cols = jnp.divmod(jax.random.choice(choose, D1 * D2, (multiple * DOF,), replace=False), D2)
        X = jax.random.normal(left, (D1, RANK)) @ jax.random.normal(right, (D2, RANK)).T
        problem = jaxcvx.MatrixCompletion(rows, cols, X[rows, cols], (D1, D2), RANK)
        solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(max_steps=300), key=start)
        return jnp.linalg.norm(problem.matrix(solution.params) - X) / jnp.linalg.norm(X)

    errors = jax.jit(jax.vmap(trial))(jax.random.split(jax.random.key(0), 20))
    assert float(jnp.mean(errors < 1e-3)) == success


def test_bounded_rows_stay_bounded_and_stationary():
    problem = completion(row_bound=1.5)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(max_steps=3000))
    for F in solution.params:
        assert np.linalg.norm(F, axis=1).max() <= 1.5 * (1 + 1e-12)
    dual = jaxcvx.solve(problem, jaxcvx.PrimalDual(balance=0))
    np.testing.assert_allclose(solution.objective, dual.objective, rtol=1e-3)


@pytest.mark.float32
def test_single_precision():
    problem = completion()
    assert problem.dtype == jnp.float32
    assert error(problem, jaxcvx.solve(problem, jaxcvx.GradientDescent(), key=jax.random.key(0)), TRUTH) < 1e-3


@pytest.mark.float32
def test_likelihood_is_finite_far_out():
    problem = one_bit("probit", row_bound=100.0)
    far = tuple(30 * F for F in given())
    value, gradient = jax.value_and_grad(problem.objective)(far)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("link", ["probit", "logistic"])
def test_probabilities_are_the_likelihoods(link):
    """exp(-loss) of one observed entry is the probability of its sign."""
    X = jnp.array([[0.3, -1.2]])
    for sign in (1, -1):
        problem = jaxcvx.OneBitCompletion([0], [1], [sign], (1, 2), 1, link, 0.7, row_bound=10.0)
        value = problem.objective((jnp.array([[1.0]]), X.T))
        up = problem.probabilities(X)[0, 1]
        np.testing.assert_allclose(jnp.exp(-value), up if sign == 1 else 1 - up, rtol=1e-12)


@pytest.mark.parametrize("link", ["probit", "logistic"])
def test_curvature_is_the_expected_one_at_zero(link):
    """Fisher's information: the second derivative at 0, averaged over both signs."""
    nothing = (jnp.zeros((1, 1)), jnp.ones((1, 1)))
    problems = [jaxcvx.OneBitCompletion([0], [0], [s], (1, 1), 1, link, 0.7, row_bound=10.0) for s in (1, -1)]
    along = [jax.grad(jax.grad(lambda x, p=p: p.objective((x.reshape(1, 1), nothing[1]))))(0.0) for p in problems]
    np.testing.assert_allclose(np.mean(along), problems[0].loss_curvature, rtol=1e-12)


def test_signs_may_be_zero_and_one():
    rows, cols, signs = [0, 1, 1], [0, 0, 1], np.array([1, -1, 1])
    one = jaxcvx.OneBitCompletion(rows, cols, signs, (2, 2), 1, row_bound=1.0)
    two = jaxcvx.OneBitCompletion(rows, cols, (signs + 1) // 2, (2, 2), 1, row_bound=1.0)
    np.testing.assert_array_equal(one.targets, two.targets)


def test_order_of_the_entries_does_not_matter():
    order = np.random.default_rng(3).permutation(len(ROWS))
    other = jaxcvx.MatrixCompletion(ROWS[order], COLS[order], TRUTH[ROWS, COLS][order], (D1, D2), RANK)
    np.testing.assert_allclose(other.objective(given()), completion().objective(given()), rtol=1e-13)
