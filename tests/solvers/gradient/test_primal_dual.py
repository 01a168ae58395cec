"""PrimalDual: multipliers are zero where bounds are slack, and satisfy the optimality conditions where they bind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx

SHAPE, RANK = (30, 24), 2
RNG = np.random.default_rng(0)
LEFT, RIGHT = (RNG.uniform(-1, 1, (d, RANK)) for d in SHAPE)
X = LEFT @ RIGHT.T / np.abs(LEFT @ RIGHT.T).max()
PLACES = np.nonzero(RNG.random(SHAPE) < 0.7)


def completion():
    return jaxcvx.MatrixCompletion(*PLACES, X[PLACES], SHAPE, RANK)


def one_bit(row_bound=0.9):
    signs = np.where(X + 0.3 * np.random.default_rng(1).standard_normal(SHAPE) > 0, 1, -1)
    return jaxcvx.OneBitCompletion(*PLACES, signs[PLACES], SHAPE, RANK, "probit", 0.3, row_bound)


@pytest.fixture(scope="module")
def bound_solutions():
    with jax.enable_x64(True):
        problem = one_bit()
        keys = (None, jax.random.key(0))
        return [jaxcvx.solve(problem, jaxcvx.PrimalDual(balance=0.0), key=key) for key in keys]


@pytest.mark.long
def test_slack_bounds_have_zero_multipliers_and_the_matrix_is_recovered():
    problem = completion()
    solution = jaxcvx.solve(problem, jaxcvx.PrimalDual(), key=jax.random.key(0))
    assert solution.converged and solution.scope == "global"
    np.testing.assert_allclose(problem.matrix(solution.params), X, atol=1e-4)
    assert max(map(np.max, solution.dual)) == 0
    U, V = solution.params
    np.testing.assert_allclose(U.T @ U, V.T @ V, atol=1e-4)  # the balancing term


def test_binding_bounds_satisfy_the_optimality_conditions(bound_solutions):
    problem, solution = one_bit(), bound_solutions[0]
    assert solution.converged
    gradient = jax.grad(problem.objective)(solution.params)
    scale = max(float(np.abs(g).max()) for g in gradient)
    for F, g, multiplier in zip(solution.params, gradient, solution.dual, strict=True):
        excess = np.sum(np.asarray(F) ** 2, axis=1) - 0.9**2
        assert excess.max() < 1e-5 and (multiplier >= 0).all()
        assert (np.asarray(multiplier) > 1e-2).any()  # they do bind
        np.testing.assert_allclose(multiplier * np.minimum(excess, 0), 0, atol=1e-5)
        np.testing.assert_allclose(g + 2 * multiplier[:, None] * F, 0, atol=1e-4 * scale)


def test_random_and_spectral_starts_agree(bound_solutions):
    problem, (spectral, random) = one_bit(), bound_solutions
    np.testing.assert_allclose(spectral.objective, random.objective, rtol=1e-6)
    np.testing.assert_allclose(*(problem.matrix(s.params) for s in bound_solutions), atol=1e-3)


def test_looser_bounds_have_smaller_multipliers_and_lower_losses(bound_solutions):
    tight = bound_solutions[0]
    loose = jaxcvx.solve(one_bit(1.1), jaxcvx.PrimalDual(balance=0.0))
    assert loose.objective < tight.objective
    # To first order the loss falls by the multipliers times the change of the squared bounds; the rest is convex.
    total = sum(float(jnp.sum(m)) for m in tight.dual)
    assert tight.objective - loose.objective < total * (1.1**2 - 0.9**2)


def test_other_problems_are_refused_by_name():
    problem = jaxcvx.make_problem(np.ones((3, 2)), np.ones(3), 0.1)
    with pytest.raises(jaxcvx.InvalidTypeError, match="Problem.*LowRankProblem.*PrimalDual"):
        jaxcvx.solve(problem, jaxcvx.PrimalDual())
    for name in ("penalty", "inner_steps"):
        with pytest.raises(jaxcvx.InvalidInputError, match=name):
            jaxcvx.solve(completion(), jaxcvx.PrimalDual(**{name: 0}))
