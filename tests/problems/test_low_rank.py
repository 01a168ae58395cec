"""Low-rank problems: objectives against numpy, derivatives, starts, recovery, validation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxcvx
from jaxcvx.problems.low_rank_descent import exact_step

D1, D2, RANK = 40, 30, 2
DOF = RANK * (D1 + D2 - RANK)
RNG = np.random.default_rng(0)
TRUTH = RNG.standard_normal((D1, RANK)) @ RNG.standard_normal((D2, RANK)).T
OBSERVED = RNG.choice(D1 * D2, 4 * DOF, replace=False)
ROWS, COLS = np.divmod(OBSERVED, D2)
PARAMS = tuple(RNG.standard_normal((d, RANK)) for d in (D1, D2))


def completion(**options):
    return jaxcvx.MatrixCompletion(ROWS, COLS, TRUTH[ROWS, COLS], (D1, D2), RANK, **options)


def one_bit(link="probit", **options):
    signs = np.where(TRUTH[ROWS, COLS] > 0, 1, -1)
    return jaxcvx.OneBitCompletion(ROWS, COLS, signs, (D1, D2), RANK, link, 0.7, **options)


def sensing(m=60, n=10, rank=2, seed=0, **options):
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((n, rank)) / n**0.5
    A = rng.standard_normal((m, n, n))
    return jaxcvx.MatrixSensing(A, np.einsum("mij,ij->m", A, U @ U.T), rank, **options), U @ U.T, A


def error(problem, solution, truth):
    return float(np.linalg.norm(problem.matrix(solution.params) - truth) / np.linalg.norm(truth))


def given():
    """Some params, in the test's precision."""
    return tuple(map(jnp.asarray, PARAMS))


def test_objectives_are_what_they_say():
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


@pytest.mark.float32
def test_likelihood_is_finite_far_out():
    problem = one_bit("probit", row_bound=100.0)
    far = tuple(30 * F for F in given())
    value, gradient = jax.value_and_grad(problem.objective)(far)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("make", [completion, lambda: completion(balance=0.5), one_bit])
def test_line_and_exact_step(make):
    """Along a line the objective is the energy of a quadratic, and the step is a stationary point below the start."""
    problem = make()
    along = jax.jit(lambda t: problem.objective(jax.tree.map(lambda p, d: p + t * d, given(), descent)))
    descent = jax.tree.map(lambda g: -g, jax.grad(problem.objective)(given()))
    z, a, b = problem.line(given(), descent)
    for t in (0.0, 0.01):
        at = jax.tree.map(lambda x, y, w, t=t: x + t * (y + t * w), z, a, b)
        np.testing.assert_allclose(problem.energy(at), along(t), rtol=1e-12)
        if problem.quartic(z, a, b) is not None:
            np.testing.assert_allclose(np.polyval(problem.quartic(z, a, b)[::-1], t), along(t), rtol=1e-12)
    step = exact_step(problem, given(), descent, jnp.zeros(()))
    assert step > 0 and along(step) < along(0.0)
    assert abs(jax.grad(along)(step)) < 1e-3 * abs(jax.grad(along)(0.0))


def test_minibatches_are_unbiased():
    problem, _, _ = sensing()
    U = jnp.asarray(np.random.default_rng(5).standard_normal((10, 2)))
    for p, params in ((completion(balance=0.5), given()), (one_bit(), given()), (problem, U)):
        keys = jax.random.split(jax.random.key(0), 4000)
        values = jax.vmap(lambda k, p=p, params=params: p.sampled_objective(params, k, 20))(keys)
        assert abs(values.mean() - p.objective(params)) < 4 * values.std() / len(keys) ** 0.5


@pytest.mark.parametrize("key", [None, 0])
def test_completion_recovers_from_both_starts(key):
    problem = completion()
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(), key=None if key is None else jax.random.key(key))
    assert solution.converged and error(problem, solution, TRUTH) < 1e-5
    assert solution.scope == "global" and solution.lower_bound == 0 and solution.network is None


@pytest.mark.parametrize("multiple, success", [(4, 1.0), pytest.param(1, 0.0, marks=pytest.mark.soak)])
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


def test_sensing_recovers_from_the_factor_or_at_random():
    problem, truth, _ = sensing()
    for start in ({}, {"key": jax.random.key(1)}, {"init": np.random.default_rng(3).standard_normal((10, 2))}):
        solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(), **start)
        assert solution.params.shape == (10, 2) and error(problem, solution, truth) < 1e-5


def test_rectangular_and_matrix_free_sensing_agree():
    rng = np.random.default_rng(1)
    A, X = rng.standard_normal((90, 8, 6)), rng.standard_normal((8, 2)) @ rng.standard_normal((2, 6))
    y = np.einsum("mij,ij->m", A, X)

    def forward(X):
        return jnp.einsum("mij,ij->m", A, X)

    def backward(z):
        return jnp.einsum("mij,m->ij", A, z)

    stored = jaxcvx.MatrixSensing(A, y, 2, symmetric=False)
    free = jaxcvx.MatrixSensing((forward, backward), y, 2, shape=(8, 6), symmetric=False)
    for problem in (stored, free):
        assert error(problem, jaxcvx.solve(problem, jaxcvx.GradientDescent()), X) < 1e-5
    with pytest.raises(jaxcvx.InvalidTypeError, match="adjoint"):
        jaxcvx.MatrixSensing((forward, lambda z: 2 * backward(z)), y, 2, shape=(8, 6), symmetric=False)


def test_minibatch_descent_recovers_from_a_random_start():
    problem, truth, _ = sensing(m=80)
    solver = jaxcvx.GradientDescent(batch_size=40, max_steps=3000)
    assert error(problem, jaxcvx.solve(problem, solver, key=jax.random.key(0)), truth) < 1e-3


def test_any_loss():
    def loss(X):
        return jnp.sum(jnp.log(jnp.cosh(X - TRUTH[:8, :6])))

    problem = jaxcvx.LowRankLoss(loss, (8, 6), 2)
    solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(), key=jax.random.key(0))
    assert error(problem, solution, TRUTH[:8, :6]) < 1e-5 and solution.scope == "none"


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
    ("measurements", lambda: jaxcvx.MatrixSensing(np.ones((3, 2, 2)), np.ones(2), 1)),
    ("symmetric", lambda: jaxcvx.MatrixSensing(np.ones((3, 2, 4)), np.ones(3), 1)),
    ("shape", lambda: jaxcvx.MatrixSensing((lambda X: X, lambda z: z), np.ones(3), 1)),
    ("f", lambda: jaxcvx.LowRankLoss(lambda X: X, (2, 2), 1)),
]


@pytest.mark.parametrize("name, make", BAD)
def test_bad_input_is_named(name, make):
    with pytest.raises(jaxcvx.JaxcvxError, match=f"^{name}: "):
        make()
