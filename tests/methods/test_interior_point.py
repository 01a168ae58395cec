"""The interior-point lasso against CVXPY and HiGHS, for every loss that is a sum over entries."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from jaxcvx import Hinge, Huber, Interpolation, Logistic
from jaxcvx.methods.interior_point import fit_lasso
from tests.helpers import _cvxpy_loss, _minimise, targets_for

LOSSES = {"hinge": Hinge(), "huber": Huber(), "logistic": Logistic(), "interpolation": Interpolation()}
fit = jax.jit(fit_lasso, static_argnums=(0, 4))


def lasso_data(seed: int, n: int, m: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = np.maximum(rng.standard_normal((n, m)), 0)
    A[:, 1] = 0  # an empty slot
    return A, targets_for(name, rng.standard_normal((n, 1)))


@pytest.mark.routine("shape0-True-huber")
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("shape", "free"), [((12, 20), True), ((20, 8), False)])
def test_optimum_is_clarabels(name, shape, free):
    A, Y = lasso_data(0, *shape, name)
    found = fit(LOSSES[name], jnp.asarray(A), jnp.asarray(Y[:, 0]), 0.3, free)
    w, c = cp.Variable((shape[1], 1)), cp.Variable()
    F = A @ w + c if free else A @ w
    optimum = _minimise(_cvxpy_loss(name, F, Y) + 0.3 * cp.norm1(w), [])
    assert float(found.objective) == pytest.approx(optimum, rel=1e-6)
    digits = 1e-6 if name == "interpolation" else 1e-9  # the penalty makes a million of a rounding error
    assert float(found.bound) == pytest.approx(float(found.objective), rel=digits)
    F = A @ np.asarray(found.weights) + float(found.bias)
    value = float(LOSSES[name].value(jnp.asarray(F)[:, None], Y)) + 0.3 * np.abs(found.weights).sum()
    assert value == pytest.approx(float(found.objective), rel=1e-8 if name == "interpolation" else 1e-12)
    assert found.weights[1] == 0 or abs(found.weights[1]) < 1e-9
    R = np.asarray(found.R)
    if free:
        assert abs(R.sum()) < 1e-9 * np.abs(R).sum()
    else:
        assert found.bias == 0


def test_interpolation_is_highs_linear_program():
    A, Y = lasso_data(1, 9, 30, "interpolation")
    found = fit(Interpolation(), jnp.asarray(A), jnp.asarray(Y[:, 0]), 1.0, True)
    columns = np.concatenate([A, -A, np.ones((9, 1)), -np.ones((9, 1))], axis=1)
    program = linprog(np.r_[np.ones(60), 0, 0], A_eq=columns, b_eq=Y[:, 0], bounds=(0, None), method="highs")
    assert float(found.bound) == pytest.approx(program.fun, rel=1e-9)
    assert float(found.objective) == pytest.approx(program.fun, rel=1e-6)
    assert np.abs(A.T @ np.asarray(found.R)).max() <= 1 + 1e-8


def test_batches():
    A, Y = lasso_data(2, 10, 6, "hinge")
    betas = jnp.asarray([0.1, 1.0, 100.0])
    both = jax.vmap(lambda beta: fit_lasso(Hinge(), jnp.asarray(A), jnp.asarray(Y[:, 0]), beta, False))(betas)
    for k, beta in enumerate(betas):
        single = fit(Hinge(), jnp.asarray(A), jnp.asarray(Y[:, 0]), beta, False)
        assert float(both.objective[k]) == pytest.approx(float(single.objective), rel=1e-9)
    assert float(both.objective[2]) == pytest.approx(10.0)  # all weights zero
