"""Unrolled steps: the solution in the end, implicit derivatives in the limit, finite differences at few steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from tests.helpers import distinct_cells, gaussian_data, targets_for


def _problem(loss="squared", seed=0):
    X, Y = gaussian_data(seed, 20, 2)
    cells = distinct_cells(0, X, 6)
    problem = jaxcvx.make_problem(X, targets_for(loss, Y), 1.0, loss=loss, arrangements=cells)
    return problem.replace(beta=0.2 * problem.beta_max())


def _value(problem, num_steps):
    return jnp.sum(jnp.sin(jaxcvx.unrolled_params(problem, num_steps)))


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_many_steps_give_the_solution_and_its_implicit_derivative(loss):
    problem = _problem(loss)
    solver = jaxcvx.ProximalGradient(tol=1e-14, phases="accelerated")

    def implicit(problem):
        return jnp.sum(jnp.sin(jaxcvx.solve(problem, solver).params))

    value, gradient = jax.jit(jax.value_and_grad(lambda p: _value(p, 4000), allow_int=True))(problem)
    wanted, slope = jax.jit(jax.value_and_grad(implicit, allow_int=True))(problem)
    assert float(value) == pytest.approx(float(wanted), rel=1e-7)
    for name in ("X", "Y", "beta"):
        np.testing.assert_allclose(getattr(gradient, name), getattr(slope, name), rtol=1e-5, atol=1e-6)


def test_few_steps_forward_reverse_and_differences_agree():
    problem = _problem()
    change = tuple(jnp.asarray(np.random.default_rng(3).standard_normal(a.shape)) for a in (problem.Y, problem.beta))

    def at(h):
        return _value(dataclasses.replace(problem, Y=problem.Y + h * change[0], beta=problem.beta + h * change[1]), 7)

    forward = jax.jvp(at, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(jax.grad(at)(0.0), forward, rtol=1e-10)
    np.testing.assert_allclose((at(1e-6) - at(-1e-6)) / 2e-6, forward, rtol=1e-6)
    started = jaxcvx.unrolled_params(problem, 3, init=jaxcvx.unrolled_params(problem, 4))
    assert started.shape == (6, 2, 1)


@pytest.mark.parametrize(
    "argument, change",
    [
        ("num_steps", {"num_steps": 0}),
        ("init", {"init": np.zeros((1, 2, 1))}),
        ("arrangements", {"problem": _problem().replace(arrangements=None)}),
        ("problem", {"problem": 3}),
    ],
)
def test_errors_name_the_argument(argument, change):
    arguments = {"problem": _problem(), "num_steps": 2} | change
    with pytest.raises(jaxcvx.JaxcvxError, match=argument):
        jaxcvx.unrolled_params(**arguments)
