"""fit_atoms reaches high accuracy, also for near-duplicate atoms, small beta and convolutional readouts."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.features.readout import Readout
from jaxcvx.solvers.neurons.group_lasso import fit_atoms

fit = jax.jit(fit_atoms, static_argnums=3, static_argnames=("max_steps", "tol"))


def instance(seed: int, n: int, d: int, c: int, m: int, spread: float):
    """Draw activations of m unit neurons. The second half is at distance about ``spread`` from the first half."""
    rng = np.random.default_rng(seed)
    X, Y, U = rng.standard_normal((n, d)), rng.standard_normal((n, c)), rng.standard_normal((d, m))
    U[:, m // 2 :] = U[:, : m - m // 2] + spread * rng.standard_normal((d, m - m // 2))
    return np.maximum(X @ (U / np.linalg.norm(U, axis=0)), 0), Y


def group_lasso(atoms, Y, beta):
    W = cp.Variable((atoms.shape[1], Y.shape[1]))
    cost = 0.5 * cp.sum_squares(atoms @ W - Y) + beta * cp.sum(cp.norm(W, 2, axis=1))
    problem = cp.Problem(cp.Minimize(cost))
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    return problem.value


@pytest.mark.routine(2)
@pytest.mark.parametrize(
    "beta,spread", [(1.0, 1.0), (0.1, 1e-3), (0.1, 1e-8), (0.01, 0.0)], ids=["far", "near", "nearer", "equal"]
)
def test_against_clarabel(beta, spread):
    atoms, Y = instance(0, 20, 3, 2, 60, spread)
    fitted = fit(atoms, Y, beta)
    W = np.asarray(fitted.output)
    value = 0.5 * np.sum((atoms @ W - Y) ** 2) + beta * np.linalg.norm(W, axis=1).sum()
    assert fitted.objective == pytest.approx(value, rel=1e-12)
    assert 0 <= fitted.gap + 1e-12 <= 1e-10 + 1e-12
    assert value == pytest.approx(group_lasso(atoms, Y, beta), rel=1e-7)
    strength = np.linalg.norm(atoms.T @ np.asarray(fitted.R), axis=1)
    assert strength.max() <= beta * (1 + 1e-5)
    np.testing.assert_allclose(strength[np.linalg.norm(W, axis=1) > 1e-4], beta, rtol=1e-4)


def test_both_shapes_of_the_newton_system_agree():
    atoms, Y = instance(1, 20, 3, 2, 30, 1.0)  # 30 atoms < n c = 40; zero atoms make it 60
    few, many = fit(atoms, Y, 0.1), fit(np.concatenate([atoms, 0 * atoms], axis=1), Y, 0.1)
    assert few.objective == pytest.approx(float(many.objective), rel=1e-9)
    np.testing.assert_array_equal(many.output[30:], 0)


@pytest.mark.parametrize("kind", ["pool", "flatten"])
def test_convolutional_readouts(kind):
    """The result equals the lasso over the explicit matrix that maps output weights to predictions."""
    readout, c = Readout(kind, 3, 0.5), 2
    rng = np.random.default_rng(2)
    atoms, Y = np.maximum(rng.standard_normal((10 * 3, 8)), 0), rng.standard_normal((10, c))
    q = readout.columns(c)
    fitted = fit(atoms, Y, 0.3, readout)
    columns = [readout.lower(atoms @ E.reshape(8, q)).reshape(-1) for E in np.eye(8 * q)]
    W = cp.Variable((8, q))
    F = np.stack(columns, axis=1) @ cp.vec(W, order="C")
    cost = 0.5 * cp.sum_squares(F - Y.reshape(-1)) + 0.3 * cp.sum(cp.norm(W, 2, axis=1))
    problem = cp.Problem(cp.Minimize(cost))
    problem.solve(solver=cp.CLARABEL)
    assert fitted.objective == pytest.approx(problem.value, rel=1e-6) and fitted.gap <= 1e-10


def test_warm_start_and_limits():
    atoms, Y = instance(0, 20, 3, 2, 60, 1.0)
    cold = fit(atoms, Y, 0.1)
    warm = fit(atoms, Y, 0.1, init=cold.output, max_steps=1)
    assert warm.gap <= 1e-10
    assert fit(atoms, Y, 0.1, max_steps=1).gap > 1e-6
    at_zero = fit(atoms, Y, 1e3)
    np.testing.assert_array_equal(at_zero.output, 0)
    assert at_zero.objective == pytest.approx(0.5 * np.sum(Y**2), rel=1e-12)


@pytest.mark.float32
def test_float32():
    atoms, Y = instance(0, 20, 3, 2, 60, 1e-3)
    fitted = fit(jnp.asarray(atoms, jnp.float32), jnp.asarray(Y, jnp.float32), jnp.float32(0.1))
    assert fitted.output.dtype == jnp.float32 and fitted.gap <= 1e-4
