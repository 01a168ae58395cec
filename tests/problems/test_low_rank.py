"""Low-rank problems: objectives against numpy, derivatives, starts, recovery, validation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxcvx
from tests.problems.low_rank_data import (
    COLS,
    D1,
    D2,
    PARAMS,
    ROWS,
    TRUTH,
    completion,
    error,
    given,
    one_bit,
    sensing,
)


def test_objectives_equal_their_formulas():
    X = PARAMS[0] @ PARAMS[1].T
    residual = (X - TRUTH)[ROWS, COLS]
    np.testing.assert_allclose(completion().objective(given()), 0.5 * residual @ residual)
    margin = np.sign(TRUTH) * X / 0.7
    expected = {"probit": scipy.stats.norm.logcdf(margin), "logistic": scipy.stats.logistic.logcdf(margin)}
    for link, values in expected.items():
        np.testing.assert_allclose(one_bit(link).objective(given()), -values[ROWS, COLS].sum())
    problem, truth, A = sensing()
    U = np.random.default_rng(5).standard_normal((10, 2))
    r = np.einsum("mij,ij->m", A, U @ U.T - truth)
    np.testing.assert_allclose(problem.objective(jnp.asarray(U)), 0.5 * r @ r)
    sides = [F.T @ F for F in PARAMS]
    balance = 0.25 * 0.5 * len(ROWS) / (D1 * D2) * np.sum((sides[0] - sides[1]) ** 2)
    np.testing.assert_allclose(completion(balance=0.5).objective(given()), 0.5 * residual @ residual + balance)


def test_minibatches_are_unbiased():
    problem, _, _ = sensing()
    U = jnp.asarray(np.random.default_rng(5).standard_normal((10, 2)))
    for p, params in ((completion(balance=0.5), given()), (one_bit(), given()), (problem, U)):
        keys = jax.random.split(jax.random.key(0), 4000)
        values = jax.vmap(lambda k, p=p, params=params: p.sampled_objective(params, k, 20))(keys)
        assert abs(values.mean() - p.objective(params)) < 4 * values.std() / len(keys) ** 0.5


def test_any_loss():
    def loss(X):
        return jnp.sum(jnp.log(jnp.cosh(X - TRUTH[:8, :6])))

    problem = jaxcvx.LowRankLoss(loss, (8, 6), 2)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(), key=jax.random.key(0))
    assert error(problem, solution, TRUTH[:8, :6]) < 1e-5 and solution.scope == "none"


BAD = [
    ("rows", lambda: jaxcvx.MatrixCompletion([0, 9], [0, 1], [1.0, 2.0], (3, 3), 1)),
    ("rows, cols", lambda: jaxcvx.MatrixCompletion([0, 0], [1, 1], [1.0, 2.0], (3, 3), 1)),
    ("cols", lambda: jaxcvx.MatrixCompletion([0, 1], [0], [1.0, 2.0], (3, 3), 1)),
    ("rows", lambda: jaxcvx.MatrixCompletion([0.0, 1.0], [0, 1], [1.0, 2.0], (3, 3), 1)),
    ("values", lambda: jaxcvx.MatrixCompletion([0, 1], [0, 1], [1.0, np.nan], (3, 3), 1)),
    ("rank", lambda: jaxcvx.MatrixCompletion([0, 1], [0, 1], [1.0, 2.0], (3, 3), 4)),
    ("rank", lambda: jaxcvx.MatrixCompletion([0, 1], [0, 1], [1.0, 2.0], (3, 3), 1.0)),
    ("shape", lambda: jaxcvx.MatrixCompletion([0, 1], [0, 1], [1.0, 2.0], 3, 1)),
    ("row_bound", lambda: jaxcvx.MatrixCompletion([0, 1], [0, 1], [1.0, 2.0], (3, 3), 1, row_bound=-1)),
    ("balance", lambda: jaxcvx.MatrixCompletion([0, 1], [0, 1], [1.0, 2.0], (3, 3), 1, balance=-1)),
    ("signs", lambda: jaxcvx.OneBitCompletion([0, 1], [0, 1], [1, 2], (3, 3), 1)),
    ("link", lambda: jaxcvx.OneBitCompletion([0, 1], [0, 1], [1, -1], (3, 3), 1, "cauchit")),
    ("scale", lambda: jaxcvx.OneBitCompletion([0, 1], [0, 1], [1, -1], (3, 3), 1, scale=0)),
    ("f", lambda: jaxcvx.LowRankLoss(lambda X: X, (2, 2), 1)),
]


@pytest.mark.parametrize("name, make", BAD)
def test_bad_input_is_named(name, make):
    with pytest.raises(jaxcvx.JaxcvxError, match=f"^{name}: "):
        make()
