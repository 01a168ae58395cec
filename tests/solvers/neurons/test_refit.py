"""Refitted output weights are optimal for their group lasso and never worse; rounded neurons stay in their cells."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.networks.network import network_objective
from jaxcvx.solvers.neurons.refit import refit_outputs
from jaxcvx.solvers.neurons.rounding import round_gated

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((30, 4)), RNG.standard_normal((30, 2))


def network(width=8):
    rng = np.random.default_rng(1)
    return jaxcvx.Network(jnp.asarray(rng.standard_normal((width, 4))), jnp.asarray(rng.standard_normal((width, 2))))


def test_optimality_conditions_of_the_group_lasso():
    problem = jaxcvx.make_problem(X, Y, 2.0)
    fitted = refit_outputs(problem, network(), tol=1e-12, max_steps=20_000)
    unit = np.asarray(network().hidden)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    correlation = np.maximum(X @ unit.T, 0).T @ (Y - np.asarray(fitted(jnp.asarray(X))))
    size = np.linalg.norm(np.asarray(fitted.output), axis=1)
    strength = np.linalg.norm(correlation, axis=1)
    assert (strength <= 2.0 * (1 + 1e-5)).all()
    np.testing.assert_allclose(strength[size > 0], 2.0, rtol=1e-5)
    assert 0 < (size > 0).sum() < 8


def test_hidden_directions_are_kept():
    problem = jaxcvx.make_problem(X, Y, 0.5)
    before, after = np.asarray(network().hidden), np.asarray(refit_outputs(problem, network()).hidden)
    alive = np.linalg.norm(after, axis=1) > 0
    cosine = np.sum(before * after, axis=1)[alive] / np.linalg.norm(before[alive], axis=1)
    np.testing.assert_allclose(cosine / np.linalg.norm(after[alive], axis=1), 1.0, atol=1e-12)


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", ["squared", "huber", "softmax", "hinge"])
def test_never_worse_even_with_no_steps(loss):
    targets = {"softmax": np.arange(30) % 2, "hinge": np.sign(Y)}.get(loss, Y)
    problem = jaxcvx.make_problem(X, targets, 0.5, loss=loss)
    for steps in (1, 100):
        fitted = refit_outputs(problem, network(), max_steps=steps)
        assert float(network_objective(fitted, problem)) <= float(network_objective(network(), problem))


def test_skip_connection_is_kept():
    skip = jnp.asarray(np.random.default_rng(2).standard_normal((4, 2)))
    net = dataclasses.replace(network(), skip=skip, features=jaxcvx.Dense(skip=True))
    problem = jaxcvx.make_problem(X, Y, 0.5, features=jaxcvx.Dense(skip=True))
    fitted = refit_outputs(problem, net)
    np.testing.assert_array_equal(np.asarray(fitted.skip), np.asarray(skip))
    assert float(network_objective(fitted, problem)) < float(network_objective(net, problem))


@pytest.mark.long
def test_rounded_neurons_lie_in_the_cells_of_their_blocks():
    import jax

    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 15)
    problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=cells)
    solution = jaxcvx.solve(problem, jaxcvx.ProximalGradient(tol=1e-6))
    rounded = round_gated(problem, solution.params)
    signs = 2 * np.asarray(cells.masks).astype(float) - 1
    margins = np.einsum("nd,kd,pn->kpn", X, np.asarray(rounded.hidden), signs).min(axis=2)
    assert margins.max(axis=1).min() >= -1e-9
    assert float(network_objective(rounded, problem)) <= 0.5 * np.sum(Y**2)
