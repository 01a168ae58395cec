"""The fit of output weights by proximal Newton steps, against the optimality conditions of the group lasso."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.features.readout import Readout
from jaxcvx.solvers.neurons.proximal_newton import OutputFit, fit_outputs
from tests.helpers import gaussian_data, targets_for

FEATURES = {
    "dense": jaxcvx.Dense(),
    "bias": jaxcvx.Dense(output_bias=True),
    "flatten": jaxcvx.ConvFlatten((2,), output_bias=True),
}


def program(loss, features="dense", outputs=1, weighted=False, beta=1.5):
    X, Y = gaussian_data(0, 40, 4, outputs)
    kind = FEATURES[features]
    X = X[:, :, None] if features == "flatten" else X
    weight = np.arange(40) % 4.0 if weighted else None
    problem = jaxcvx.make_problem(X, targets_for(loss, Y), beta, loss=loss, features=kind, sample_weight=weight)
    U = jax.random.normal(jax.random.key(1), (9, problem.rows.shape[1])).at[8].set(0.0)
    return problem, jax.nn.relu(problem.rows @ (U / jnp.maximum(jnp.linalg.norm(U, axis=1, keepdims=True), 1e-9)).T)


def fitted(problem, atoms, steps=3000, start=None):
    zero = OutputFit(jnp.zeros((atoms.shape[1], problem.num_columns)), jnp.zeros(problem.num_outputs))
    bias = problem.features.output_bias
    start = zero if start is None else start
    return fit_outputs(problem.loss, problem.targets, atoms, problem.beta, problem.readout, start, steps, bias)


def value(problem, atoms, fit):
    F = problem.readout.apply(atoms, fit.weights) + fit.bias
    return float(problem.loss.value(F, problem.targets) + problem.beta * jnp.sum(jnp.linalg.norm(fit.weights, axis=1)))


CASES = [
    ("squared", "dense", 1, False),
    ("squared", "bias", 2, True),
    ("logistic", "bias", 1, False),
    ("softmax", "bias", 3, False),
    ("huber", "dense", 1, True),
    ("squared", "flatten", 2, False),
]


@pytest.mark.routine(4)
@pytest.mark.parametrize(("loss", "features", "outputs", "weighted"), CASES)
def test_optimality_conditions(loss, features, outputs, weighted):
    """Prices are beta at neurons with weight, along their weights, and at most beta elsewhere; R sums to zero."""
    problem, atoms = program(loss, features, outputs, weighted)
    fit = fitted(problem, atoms)
    for _ in range(4):
        fit = fitted(problem, atoms, start=fit)
    R = -problem.loss.grad(problem.readout.apply(atoms, fit.weights) + fit.bias, problem.targets)
    G = problem.readout.price(atoms, R)
    size = jnp.linalg.norm(fit.weights, axis=1, keepdims=True)
    used = size[:, 0] > 0
    assert 0 < int(used.sum()) and not bool(used[8])
    np.testing.assert_allclose(G[used], (problem.beta * fit.weights / size)[used], atol=1e-5)
    assert jnp.max(jnp.linalg.norm(G, axis=1)) <= problem.beta * (1 + 1e-5)
    if problem.features.output_bias:
        np.testing.assert_allclose(jnp.sum(R, axis=0), 0.0, atol=1e-5)
    else:
        assert not np.any(np.asarray(fit.bias))


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_never_worse_and_the_same_under_vmap(loss):
    problem, atoms = program(loss, beta=0.5)
    good = fitted(problem, atoms)
    again = fitted(problem, atoms, steps=1, start=good)
    assert value(problem, atoms, again) <= value(problem, atoms, good) * (1 + 1e-14)
    betas = jnp.array([0.5, 2.0, 1e9])
    many = jax.vmap(lambda beta: fitted(problem.replace(beta=beta), atoms))(betas)
    np.testing.assert_allclose(many.weights[0], good.weights, atol=1e-9)
    assert not np.any(np.asarray(many.weights[2]))


def test_neurons_with_opposite_activations_and_a_bias():
    """The top eigenvector of their centred Gram matrix is at right angles to ones. The steps are short enough."""
    x = jnp.linspace(-1.0, 1.0, 30)
    atoms = jnp.stack([x + 1, 2 - x + 1.1 * jnp.sin(20 * x), jnp.zeros(30)], axis=1)
    Y = (x + 0.1 * jnp.sin(9 * x))[:, None]
    start = OutputFit(jnp.zeros((3, 1)), jnp.zeros(1))
    fit = fit_outputs(jaxcvx.Squared(), Y, atoms, jnp.asarray(0.1), Readout(), start, 150, True)
    assert bool(jnp.isfinite(fit.weights).all()) and float(fit.weights[0, 0]) > 0.1
