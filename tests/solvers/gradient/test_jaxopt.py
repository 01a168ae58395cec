"""Jaxopt: minimisers of jaxopt and optax as baselines, against closed forms and the library's own solvers."""

from __future__ import annotations

import dataclasses
import sys

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.errors import MissingExtraError
from jaxcvx.solvers.core.loop import run_jitted
from tests.problems.low_rank_data import completion
from tests.solvers.gradient.test_base import MATRIX, LeastEigenvector

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.standard_normal(20)
OPTIMUM = np.linalg.lstsq(X, Y)[0]

MINIMISERS = {
    "lbfgs": jaxcvx.Jaxopt(jaxopt.LBFGS),
    "lbfgs-hager-zhang": jaxcvx.Jaxopt(jaxopt.LBFGS, {"linesearch": "hager-zhang"}),
    "bfgs": jaxcvx.Jaxopt(jaxopt.BFGS),
    "conjugate-gradient": jaxcvx.Jaxopt(jaxopt.NonlinearCG),
    "gradient": jaxcvx.Jaxopt(jaxopt.GradientDescent),
    "armijo": jaxcvx.Jaxopt(jaxopt.ArmijoSGD),
    "polyak": jaxcvx.Jaxopt(jaxopt.PolyakSGD, {"max_stepsize": 0.02}),
    "optax-in-jaxopt": jaxcvx.Jaxopt(jaxopt.OptaxSolver, {"opt": optax.adam(0.1)}),
    "instance": jaxcvx.Jaxopt(jaxopt.LBFGS(lambda params: 0.0, history_size=3, jit=False)),
    "optax-adam": jaxcvx.Jaxopt(optax.adam(0.1)),
    "optax-lbfgs": jaxcvx.Jaxopt(optax.lbfgs()),
}
LBFGS = MINIMISERS["lbfgs"]


def product(theta, X):
    return X @ theta


def least_squares(y=Y, dtype=float) -> jaxcvx.LeastSquares:
    return jaxcvx.LeastSquares(jnp.asarray(X, dtype), jnp.asarray(y, dtype), jnp.zeros(4, dtype), product)


@pytest.mark.parametrize("name", MINIMISERS)
def test_least_squares(name):
    solution = jaxcvx.solve(least_squares(), MINIMISERS[name])
    assert solution.status == jaxcvx.Status.CONVERGED
    np.testing.assert_allclose(solution.params, OPTIMUM, atol=1e-5)
    np.testing.assert_allclose(solution.objective, 0.5 * np.sum((X @ OPTIMUM - Y) ** 2), rtol=1e-9)


@pytest.mark.routine("lbfgs", "polyak", "optax-lbfgs")
@pytest.mark.parametrize("name", MINIMISERS)
def test_float32_problems_where_float64_is_the_default(name):
    """Also steps beyond convergence, where some minimisers divide by a gradient of norm zero."""
    truth = np.ones(4)
    solver = dataclasses.replace(MINIMISERS[name], check_every=500, max_steps=1000)
    solution = jaxcvx.solve(least_squares(X @ truth, jnp.float32), solver)
    assert solution.params.dtype == jnp.float32 and solution.status == jaxcvx.Status.CONVERGED
    np.testing.assert_allclose(solution.params, truth, atol=1e-3)


@pytest.mark.float32
@pytest.mark.parametrize("name", ["lbfgs", "conjugate-gradient", "optax-lbfgs"])
def test_float32(name):
    solution = jaxcvx.solve(least_squares(), MINIMISERS[name])
    assert solution.status == jaxcvx.Status.CONVERGED
    np.testing.assert_allclose(solution.params, OPTIMUM, atol=1e-3)


def test_steps_are_those_of_jaxopt():
    problem = least_squares()
    minimiser = jaxopt.NonlinearCG(problem.objective)
    params = problem.start
    state = minimiser.init_state(params)
    for _ in range(5):
        params, state = minimiser.update(params, state)
    solver = jaxcvx.Jaxopt(jaxopt.NonlinearCG, tol=0.0, max_steps=5, check_every=5)
    np.testing.assert_allclose(jaxcvx.solve(problem, solver).params, params, rtol=1e-12)


def test_spheres_and_constraints_are_kept():
    problem = LeastEigenvector(jnp.asarray(MATRIX))
    solution = jaxcvx.solve(problem, LBFGS)
    np.testing.assert_allclose(np.abs(solution.params["w"]), [0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(solution.params["w"]), 1, rtol=1e-14)
    assert float(solution.params["s"]) == 2
    assert solution.scope == "global" and solution.lower_bound == pytest.approx(0.5)


def test_networks_like_gradient_descent():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((10, 2)), rng.standard_normal(10)
    problem = jaxcvx.make_problem(x, y, 0.2, arrangements=jaxcvx.enumerate_arrangements(x))
    solver = jaxcvx.Jaxopt(jaxopt.LBFGS, width=10, max_steps=400)
    solution = jaxcvx.solve(problem, solver, key=jax.random.key(0))
    adam = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=10, max_steps=2000), key=jax.random.key(0))
    optimum = jaxcvx.solve(problem, jaxcvx.ConeADMM(tol=1e-6, phases="admm"))
    assert solution.scope == "global"
    assert float(solution.upper_bound) >= float(optimum.lower_bound)
    assert float(solution.lower_bound) <= float(optimum.upper_bound) * (1 + 1e-7)
    assert float(solution.upper_bound) == pytest.approx(float(adam.upper_bound), rel=0.1)
    again = jaxcvx.solve(problem, solver, init=solution.network)
    assert float(again.upper_bound) <= float(solution.upper_bound) * (1 + 1e-9)


def test_completion_of_a_matrix():
    problem = completion()
    solution = jaxcvx.solve(problem, LBFGS, key=jax.random.key(0))
    reference = jaxcvx.solve(problem, jaxcvx.GradientDescent(tol=1e-9), key=jax.random.key(0))
    assert abs(float(solution.objective) - float(reference.objective)) < 1e-6


@pytest.mark.routine("lbfgs")
@pytest.mark.parametrize("name", ["lbfgs", "gradient", "optax-lbfgs"])
def test_vmap_and_jit_equal_a_loop(name):
    targets = jnp.asarray(np.stack([Y, Y[::-1]]))

    def fit(y):
        return jaxcvx.solve(least_squares(y), MINIMISERS[name]).params

    for y, batched in zip(targets, jax.vmap(fit)(targets), strict=True):
        np.testing.assert_allclose(batched, fit(y), atol=1e-7)
        np.testing.assert_allclose(jax.jit(fit)(y), fit(y), atol=1e-7)


def test_gradient_of_a_jaxopt_solve_is_refused():
    with pytest.raises(jaxcvx.InvalidTypeError, match="Jaxopt"):
        jax.grad(lambda y: jaxcvx.solve(least_squares(y), LBFGS).objective)(jnp.asarray(Y))


@pytest.mark.parametrize("name", ["conjugate-gradient", "optax-adam"])
def test_an_interrupted_solve_ends_in_the_same_bits(name, tmp_path):
    solver = dataclasses.replace(MINIMISERS[name], check_every=1, tol=1e-9, max_steps=50)
    whole = jaxcvx.solve(least_squares(), solver, callback=lambda info: False)
    path = tmp_path / "solve.npz"
    stopped = jaxcvx.solve(least_squares(), solver, callback=[jaxcvx.Checkpoint(path), lambda info: info.step >= 3])
    resumed = jaxcvx.solve(least_squares(), solver, callback=jaxcvx.Checkpoint(path))
    assert stopped.num_steps == 3 < resumed.num_steps == whole.num_steps
    assert np.asarray(resumed.params).tobytes() == np.asarray(whole.params).tobytes()


def test_a_checkpoint_of_another_minimiser_is_not_used(tmp_path):
    path = tmp_path / "solve.npz"
    jaxcvx.solve(least_squares(), LBFGS, callback=jaxcvx.Checkpoint(path))
    seen = []
    callbacks = [jaxcvx.Checkpoint(path), lambda info: seen.append(info.objective) or False]
    jaxcvx.solve(least_squares(), MINIMISERS["bfgs"], callback=callbacks)
    assert float(seen[0]) == pytest.approx(0.5 * np.sum(Y**2))


def test_equal_solvers_share_a_compiled_program():
    first, second = (jaxcvx.Jaxopt(jaxopt.LBFGS, options={"history_size": 5, "maxls": 20}) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    jaxcvx.solve(least_squares(), first)
    programs = run_jitted._cache_size()
    jaxcvx.solve(least_squares(2 * Y), second)
    assert run_jitted._cache_size() == programs


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (jaxcvx.Jaxopt(None), "solver.*NoneType.*jaxopt.LBFGS"),
        (jaxcvx.Jaxopt("LBFGS"), "solver.*str"),
        (jaxcvx.Jaxopt(jaxopt.LBFGSB), "LBFGSB.*without constraints"),
        (jaxcvx.Jaxopt(jaxopt.ProjectedGradient), "ProjectedGradient.*without constraints"),
        (jaxcvx.Jaxopt(jaxopt.GaussNewton), "GaussNewton.*one function"),
        (jaxcvx.Jaxopt(jaxopt.ScipyMinimize), "solver"),
        (jaxcvx.Jaxopt(jaxopt.LBFGS, {"memory": 3}), "options.*memory.*LBFGS"),
        (jaxcvx.Jaxopt(jaxopt.OptaxSolver), "options.*OptaxSolver.*opt"),
        (jaxcvx.Jaxopt(jaxopt.LBFGS(lambda p: 0.0), {"history_size": 3}), "options.*instance"),
        (jaxcvx.Jaxopt(optax.adam(0.1), {"b1": 0.5}), "options.*optax"),
        (jaxcvx.Jaxopt(jaxopt.LBFGS, {"stepsize": np.ones(1)}), "hashable"),
        (jaxcvx.Jaxopt(jaxopt.LBFGS, width=0), "width"),
    ],
)
def test_refusals_name_the_argument(solver, words):
    with pytest.raises((jaxcvx.InvalidInputError, jaxcvx.InvalidTypeError), match=words):
        jaxcvx.solve(least_squares(), solver)


def test_without_jaxopt_optax_still_works(monkeypatch):
    for module in ("jaxopt", "jaxopt.base"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match="pip install jaxopt"):
        jaxcvx.solve(least_squares(), LBFGS)
    solution = jaxcvx.solve(least_squares(), MINIMISERS["optax-adam"])
    np.testing.assert_allclose(solution.params, OPTIMUM, atol=1e-5)
