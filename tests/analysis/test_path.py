"""The regularisation path equals separate solves."""

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.solvers.gated.program import gated_objective

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 4)), RNG.standard_normal(30)
CELLS = jaxcvx.sample_arrangements(jax.random.key(0), X, 15)
SOLVER = jaxcvx.ProximalGradient(tol=1e-7)


def test_equals_separate_solves():
    problem = jaxcvx.make_problem(X, Y, 1.0, arrangements=CELLS)
    betas = np.array([0.5, 0.1, 0.02]) * float(problem.beta_max())
    path = jaxcvx.regularization_path(problem, betas, SOLVER)
    assert path.objective.shape == (3,)
    for k, beta in enumerate(betas):
        single = jaxcvx.solve(problem.replace(beta=beta), SOLVER)
        np.testing.assert_allclose(float(path.objective[k]), float(single.objective), rtol=1e-6)
        assert float(path.program_gap[k]) <= 1e-6


def test_warm_starts_save_steps():
    problem = jaxcvx.make_problem(X, Y, 1.0, arrangements=CELLS)
    betas = float(problem.beta_max()) * np.geomspace(0.9, 0.02, 20)
    path = jaxcvx.regularization_path(problem, betas, SOLVER)
    cold = jax.jit(lambda beta: jaxcvx.solve(problem.replace(beta=beta), SOLVER).num_steps)
    assert (np.asarray(path.program_gap) <= 1e-7).all()
    assert int(path.num_steps.sum()) < 0.3 * sum(int(cold(beta)) for beta in betas)


def test_extrapolation_is_used_only_if_it_is_better():
    problem = jaxcvx.make_problem(X, Y, 1.0, arrangements=CELLS)
    betas = float(problem.beta_max()) * np.geomspace(0.3, 0.2, 4)
    W = jaxcvx.regularization_path(problem, betas, SOLVER).params
    here = problem.replace(beta=betas[3])

    def excess(params):
        return float(gated_objective(here, params, here.operator.forward(params)))

    predicted = SOLVER.predict(here, (W[2], W[1], W[0]))
    best = excess(W[3])
    assert excess(predicted) - best < 0.2 * (excess(W[2]) - best)
    np.testing.assert_array_equal(SOLVER.predict(here, (W[2], -W[2], 5 * W[2])), W[2])  # a bad one is rejected


def test_first_beta_above_beta_max_gives_zero():
    problem = jaxcvx.make_problem(X, Y, 1.0, arrangements=CELLS)
    path = jaxcvx.regularization_path(problem, [1.01 * float(problem.beta_max())], SOLVER)
    assert not np.asarray(path.params).any()
    np.testing.assert_allclose(float(path.objective[0]), 0.5 * np.sum(Y**2), rtol=1e-6)


@pytest.mark.parametrize("betas", [[], [-1.0], [np.nan], [[1.0]]])
def test_bad_betas_are_named(betas):
    problem = jaxcvx.make_problem(X, Y, 1.0, arrangements=CELLS)
    with pytest.raises(jaxcvx.JaxcvxError, match="betas"):
        jaxcvx.regularization_path(problem, betas, SOLVER)
