"""The gated program from its definition: objective, bounds, blocks of a network, the inverse of its Hessian."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxcvx import Network, make_problem
from jaxcvx.solvers.gated import program as gated
from tests.helpers import distinct_cells, gated_optimum, gaussian_data, targets_for

N, D, P = 12, 3, 7


def problem_of(c: int = 2, loss: str = "squared"):
    X, Y = gaussian_data(0, N, D, c)
    return make_problem(X, targets_for(loss, Y), 0.6, loss=loss, arrangements=distinct_cells(0, X, P))


def some_blocks(c: int = 2, dead: int = 2):
    W = np.random.default_rng(1).standard_normal((P, D, c))
    W[:dead] = 0
    return jnp.asarray(W)


def test_objective_and_bound_are_the_definitions():
    problem, W = problem_of(), some_blocks()
    X, Y, masks = (np.asarray(a, float) for a in (problem.X, problem.Y, problem.arrangements.masks))
    F = np.einsum("qn,np,qpc->nc", masks, X, W)
    value = 0.5 * ((F - Y) ** 2).sum() + 0.6 * np.sqrt((np.asarray(W) ** 2).sum((1, 2))).sum()
    assert float(gated.gated_objective(problem, W, jnp.asarray(F))) == pytest.approx(value)
    R = Y - F
    norm = np.sqrt((np.einsum("qn,np,nc->qpc", masks, X, R) ** 2).sum((1, 2))).max()
    t = np.clip((R * Y).sum() / (R**2).sum(), -0.6 / norm, 0.6 / norm)
    dual = t * (R * Y).sum() - 0.5 * t**2 * (R**2).sum()
    assert float(gated.gated_bound(problem, jnp.asarray(R))) == pytest.approx(dual)
    assert dual <= gated_optimum(X, masks, Y, 0.6) <= value


def test_blocks_of_a_network_collect_its_neurons_by_cell():
    problem = problem_of()
    gates, rng = np.asarray(problem.arrangements.gates), np.random.default_rng(2)
    hidden = np.concatenate([2 * gates[[0, 3, 3]], -gates[:1]])  # the last one's cell is not among the problem's
    output = rng.standard_normal((4, 2))
    W = gated.gated_from_network(problem, Network(jnp.asarray(hidden), jnp.asarray(output), None, problem.features))
    expected = np.zeros((P, D, 2))
    expected[0] = np.outer(hidden[0], output[0])
    expected[3] = np.outer(hidden[1], output[1] + output[2])
    masks = np.asarray(problem.arrangements.masks)
    opposite = (masks == (hidden[3] @ np.asarray(problem.X).T >= 0)).all(axis=1)
    expected[opposite] += np.outer(hidden[3], output[3])
    np.testing.assert_allclose(W, expected, atol=1e-12)


@pytest.mark.routine(1)
@pytest.mark.parametrize("c", [1, 2])
def test_inverse_hessian_is_the_inverse(c):
    """Against the dense Hessian of the objective on the live blocks; dead ones pass as they are."""
    problem, W = problem_of(c), some_blocks(c)
    flat, unravel = ravel_pytree(W)
    H = jax.hessian(lambda w: gated.gated_objective(problem, unravel(w), problem.operator.forward(unravel(w))))(flat)
    live = np.asarray(flat) != 0
    x = np.random.default_rng(3).standard_normal(flat.size)
    expected = x.copy()
    expected[live] = np.linalg.solve(np.asarray(H)[np.ix_(live, live)], x[live])
    found = ravel_pytree(gated.inverse_hessian(problem, W)(unravel(jnp.asarray(x))))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_for_other_losses_and_many_samples_it_preconditions(monkeypatch):
    problem, W = problem_of(1, "logistic"), some_blocks(1)
    flat, unravel = ravel_pytree(W)

    def value(w):
        return gated.gated_objective(problem, unravel(w), problem.operator.forward(unravel(w)))

    live = np.asarray(flat) != 0
    H = np.asarray(jax.hessian(value)(flat))[np.ix_(live, live)]
    for rows in (4096, 1):  # the second: as if there were too many samples to factorise
        monkeypatch.setattr(gated, "_MAX_ROWS", rows)
        apply = gated.inverse_hessian(problem, W)
        columns = [ravel_pytree(apply(unravel(e)))[0] for e in jnp.eye(flat.size)]
        M = np.stack(columns)[np.ix_(live, live)]
        np.testing.assert_allclose(M, M.T, atol=1e-6 * np.abs(M).max())
        assert np.linalg.eigvalsh(M).min() > 0 and np.linalg.eigvals(M @ H).real.min() > 0
