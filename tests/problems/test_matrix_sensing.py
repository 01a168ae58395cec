"""Matrix sensing: recovery, measurements by functions, the quartic along a line, validation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from tests.problems.low_rank_data import error, sensing


def test_measurements_and_objective_are_the_definitions():
    problem, truth, A = sensing()
    U = np.random.default_rng(5).standard_normal((10, 2))
    r = np.einsum("mij,ij->m", A, U @ U.T - truth)
    np.testing.assert_allclose(problem.objective(jnp.asarray(U)), 0.5 * r @ r)
    gradient = sum(ri * (Ai + Ai.T) @ U for ri, Ai in zip(r, A, strict=True))
    np.testing.assert_allclose(jax.grad(problem.objective)(jnp.asarray(U)), gradient, rtol=1e-9)
    assert problem.num_samples == 60 and problem.shape == (10, 10) and float(problem.lower_bound()) == 0


@pytest.mark.parametrize("balance", [0.0, 0.7])
def test_the_objective_along_a_line_is_the_quartic(balance):
    rng = np.random.default_rng(0)
    A, y = rng.standard_normal((30, 5, 4)), rng.standard_normal(30)
    problem = jaxcvx.MatrixSensing(A, y, 2, symmetric=False, balance=balance)
    params, direction = ((jnp.asarray(rng.standard_normal((d, 2))) for d in (5, 4)) for _ in range(2))
    params, direction = tuple(params), tuple(direction)
    coefficients = problem.quartic(*problem.line(params, direction))
    for t in (-0.7, 0.0, 1.3):
        moved = tuple(p + t * q for p, q in zip(params, direction, strict=True))
        np.testing.assert_allclose(np.polyval(coefficients[::-1], t), problem.objective(moved), rtol=1e-10)


def test_sensing_recovers_from_the_factor_or_at_random():
    problem, truth, _ = sensing()
    for start in (
        {},
        {"key": jax.random.key(1)},
        {"init": np.random.default_rng(3).standard_normal((10, 2))},
    ):
        solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(), **start)
        assert solution.params.shape == (10, 2) and error(problem, solution, truth) < 1e-5


@pytest.mark.long
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


BAD = [
    ("measurements", lambda: jaxcvx.MatrixSensing(np.ones((3, 2, 2)), np.ones(2), 1)),
    ("symmetric", lambda: jaxcvx.MatrixSensing(np.ones((3, 2, 4)), np.ones(3), 1)),
    ("shape", lambda: jaxcvx.MatrixSensing((lambda X: X, lambda z: z), np.ones(3), 1)),
    ("operators", lambda: jaxcvx.MatrixSensing(np.ones((3, 2)), np.ones(3), 1)),
    ("shape", lambda: jaxcvx.MatrixSensing(np.ones((3, 2, 2)), np.ones(3), 1, shape=(2, 3))),
    ("balance", lambda: jaxcvx.MatrixSensing(np.ones((3, 2, 2)), np.ones(3), 1, balance=1.0)),
    ("operators", lambda: jaxcvx.MatrixSensing((lambda X: X[0], lambda z: z), np.ones(3), 1, shape=(3, 3))),
]


@pytest.mark.parametrize("name, make", BAD)
def test_bad_input_is_named(name, make):
    with pytest.raises(jaxcvx.JaxcvxError, match=f"^{name}: "):
        make()


def test_minibatches_need_the_matrices():
    def forward(X):
        return X.reshape(-1)

    free = jaxcvx.MatrixSensing((forward, lambda z: z.reshape(3, 3)), np.ones(9), 1, shape=(3, 3))
    with pytest.raises(jaxcvx.InvalidInputError, match="^batch_size: "):
        free.sampled_objective(jnp.ones((3, 1)), jax.random.key(0), 2)
