"""polish: never worse on 20 networks trained by Adam; better on kinks; the hidden-weight program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx.networks.network import network_objective
from jaxcvx.solvers.polish import improve_hidden


def adam_networks(problem, count, width=12, steps=1500):
    """Train networks by Adam from several keys."""
    solver = jaxcvx.GradientDescent(width=width, max_steps=steps, schedule="cosine", check_every=100)
    keys = jax.random.split(jax.random.key(3), count)
    nets = jax.vmap(lambda key: jaxcvx.solve(problem, solver, key=key).network)(keys)
    return [jax.tree.map(lambda a, i=i: a[i], nets) for i in range(count)]


def data(outputs, seed=0, n=30, d=4):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, outputs))
    return X, Y + 0.3 * rng.standard_normal((n, outputs))


@pytest.mark.long
@pytest.mark.parametrize(("outputs", "count"), [(1, 12), (3, 8)])
def test_improves_or_keeps_adam_networks(outputs, count):
    X, Y = data(outputs)
    problem = jaxcvx.make_problem(X, Y, 0.5)
    improved = 0
    for net in adam_networks(problem, count):
        before = float(jaxcvx.training_objective(net, X, Y, 0.5))
        after = float(jaxcvx.training_objective(jaxcvx.polish(net, X, Y, 0.5), X, Y, 0.5))
        assert after <= before
        improved += after < before - 1e-9
    assert improved > 0  # it is not the identity


@pytest.mark.long
def test_unbalanced_network_is_at_least_balanced():
    X, Y = data(1)
    rng = np.random.default_rng(5)
    net = jaxcvx.Network(jnp.asarray(rng.standard_normal((12, 4))) * 10, jnp.asarray(rng.standard_normal((12, 1))))
    before = float(jaxcvx.training_objective(jaxcvx.balance(net), X, Y, 0.5))
    assert float(jaxcvx.training_objective(jaxcvx.polish(net, X, Y, 0.5), X, Y, 0.5)) <= before


@pytest.mark.long
def test_polish_with_one_output_is_optimal_on_the_networks_cells():
    X, Y = data(1)
    net = adam_networks(jaxcvx.make_problem(X, Y, 0.5), 1)[0]
    cells = jaxcvx.arrangements_of(net, X)
    certificate_problem = jaxcvx.make_problem(X, Y, 0.5, arrangements=cells)
    solution = jaxcvx.solve(certificate_problem, jaxcvx.ConeADMM(tol=1e-9))
    polished = jaxcvx.polish(net, X, Y, 0.5, tol=1e-9)
    value = float(jaxcvx.training_objective(polished, X, Y, 0.5))
    np.testing.assert_allclose(value, float(solution.upper_bound), rtol=1e-7)


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_other_losses_never_worse(loss):
    X, Y = data(1)
    Y = np.sign(Y)
    net = adam_networks(jaxcvx.make_problem(X, Y, 0.5, loss=loss), 1)[0]
    before = float(jaxcvx.training_objective(net, X, Y, 0.5, loss))
    after = jaxcvx.polish(net, X, Y, 0.5, loss=loss)
    assert float(jaxcvx.training_objective(after, X, Y, 0.5, loss)) <= before


def test_zero_network_survives():
    X, Y = data(1)
    net = jaxcvx.Network(jnp.zeros((3, 4)), jnp.zeros((3, 1)))
    polished = jaxcvx.polish(net, X, Y, 0.5)
    assert float(jaxcvx.training_objective(polished, X, Y, 0.5)) <= 0.5 * np.sum(Y**2) + 1e-9


@pytest.mark.long
def test_improve_hidden_keeps_neurons_in_their_cells():
    X, Y = data(3)
    problem = jaxcvx.make_problem(X, Y, 0.5)
    net = jaxcvx.balance(adam_networks(problem, 1)[0])
    improved = improve_hidden(problem, net, max_steps=40)
    signs = np.where(np.asarray(net.hidden) @ X.T >= 0, 1, -1)
    assert (signs * (np.asarray(improved.hidden) @ X.T)).min() >= -1e-9
    assert float(network_objective(improved, problem)) <= float(network_objective(net, problem))
