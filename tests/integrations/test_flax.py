"""Networks as flax modules and back; the head that a convex program trains."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxcvx
from tests.helpers import gaussian_data
from tests.integrations.test_flax_features import Backbone


def _network(bias=False, skip=False, c=2, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 3)
    p = 3 + bias
    S = jax.random.normal(keys[2], (p, c), dtype) if skip else None
    features = jaxcvx.Dense(bias=bias, skip=skip)
    hidden, output = (jax.random.normal(k, (4, q), dtype) for k, q in zip(keys, (p, c), strict=False))
    return jaxcvx.Network(hidden, output, S, features)


@pytest.mark.routine(2)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_converting_to_nnx_and_back_changes_nothing(bias, skip):
    network = _network(bias, skip)
    X, _ = gaussian_data(0, 6, 3)
    module = jaxcvx.flax.to_nnx(network)
    np.testing.assert_allclose(module(jnp.asarray(X)), network(jnp.asarray(X)), rtol=1e-12, atol=1e-12)
    back = jaxcvx.flax.from_nnx(module)
    assert back.features == network.features
    jax.tree.map(np.testing.assert_array_equal, back, network)


def test_output_biases_are_layers_biases():
    network = dataclasses.replace(
        _network(True, True), features=jaxcvx.Dense(True, True, True), output_bias=jnp.asarray([3.0, -1.0])
    )
    X = jnp.asarray(gaussian_data(0, 6, 3)[0])
    module = jaxcvx.flax.to_nnx(network)
    np.testing.assert_allclose(module(X), network(X), rtol=1e-12, atol=1e-12)
    jax.tree.map(np.testing.assert_array_equal, jaxcvx.flax.from_nnx(module), network)
    np.testing.assert_allclose(module.penalty(), jaxcvx.networks.network.weight_penalty(network), rtol=1e-12)
    without = dataclasses.replace(network, output_bias=None)
    np.testing.assert_allclose(jaxcvx.flax.to_nnx(without)(X), without(X), rtol=1e-12, atol=1e-12)


@pytest.mark.float32
def test_float32_networks_become_float32_modules():
    module = jaxcvx.flax.to_nnx(_network(True, dtype=jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(module))} == {jnp.dtype("float32")}


def test_from_a_sequential_module():
    rngs = nnx.Rngs(1)
    layers = [nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs)]
    module = nnx.Sequential(*layers)
    X = jnp.asarray(gaussian_data(0, 6, 3)[0])
    np.testing.assert_allclose(jaxcvx.flax.from_nnx(module)(X), module(X), rtol=1e-6, atol=1e-6)
    layers[2].bias[...] = jnp.ones(2, layers[2].bias.dtype)
    network = jaxcvx.flax.from_nnx(module)
    assert network.features == jaxcvx.Dense(bias=True, output_bias=True)
    np.testing.assert_allclose(network(X), module(X), rtol=1e-6, atol=1e-6)
    with pytest.raises(jaxcvx.InvalidTypeError, match="module"):
        jaxcvx.flax.from_nnx(nnx.Sequential(layers[0], nnx.tanh, layers[2]))
    with pytest.raises(jaxcvx.InvalidTypeError, match="network"):
        jaxcvx.flax.to_nnx(module)
    with pytest.raises(jaxcvx.InvalidTypeError, match="Dense"):
        jaxcvx.flax.to_nnx(dataclasses.replace(_network(), features=jaxcvx.ConvPool((2,))))


def test_biases_are_certified_as_they_are():
    X, Y = gaussian_data(0, 12, 2)
    rngs = nnx.Rngs(2)
    layers = [nnx.Linear(2, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 1, rngs=rngs)]
    layers[0].bias[...] = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
    layers[2].bias[...] = np.asarray([0.7], np.float32)
    U, b, V, c = (np.asarray(a[...], np.float64) for at in (0, 2) for a in (layers[at].kernel, layers[at].bias))
    F = np.maximum(X @ U + b, 0) @ V + c
    value = 0.5 * ((F - Y) ** 2).sum() + 0.3 / 2 * ((U**2).sum() + (b**2).sum() + (V**2).sum())
    certificate = jaxcvx.certify(jaxcvx.flax.from_nnx(nnx.Sequential(*layers)), X, Y, 0.3)
    assert certificate.upper == pytest.approx(value, rel=1e-9)
    assert certificate.scope == "global" and 0 < certificate.lower <= certificate.upper


def test_a_fitted_head_is_certified_and_can_be_trained_further():
    rngs = nnx.Rngs(0)
    X, Y = (jnp.asarray(a) for a in gaussian_data(1, 12, 5))
    backbone = nnx.Linear(5, 2, rngs=rngs)
    features, beta = jnp.tanh(backbone(X)), 0.05
    head = jaxcvx.flax.ConvexReLU(2, 1, width=8, rngs=rngs)
    solution = head.fit(features, Y, beta)
    assert solution.scope == "global" and solution.gap < 1e-5
    np.testing.assert_allclose(head(features), solution.network(features), rtol=1e-10, atol=1e-10)

    def objective(module):
        return 0.5 * jnp.sum((module(features) - Y) ** 2) + beta * module.penalty()

    np.testing.assert_allclose(objective(head), solution.upper_bound, rtol=1e-10)
    optimizer = nnx.Optimizer(head, optax.sgd(1e-4), wrt=nnx.Param)

    @nnx.jit
    def train(module, optimizer):
        for _ in range(3):
            optimizer.update(module, nnx.grad(objective)(module))

    train(head, optimizer)
    after = float(objective(head))
    assert after >= solution.lower_bound  # training cannot go below a global bound
    np.testing.assert_allclose(after, solution.upper_bound, rtol=1e-3)  # training started from the solution


def test_head_takes_any_solver_and_checks_its_data():
    X, Y = gaussian_data(0, 8, 2)
    head = jaxcvx.flax.ConvexReLU(2, 1, bias=False, skip=True, rngs=nnx.Rngs(0))
    cells = jaxcvx.enumerate_arrangements(X)
    solution = head.fit(X, Y, 0.1, solver=jaxcvx.ConeADMM(), arrangements=cells)
    X = jnp.asarray(X)
    np.testing.assert_allclose(head(X), solution.network(X), rtol=1e-10, atol=1e-10)
    with pytest.raises(jaxcvx.InvalidInputError, match="features"):
        head.fit(X[:, :1], Y, 0.1)
    with pytest.raises(jaxcvx.InvalidInputError, match="targets"):
        head.fit(X, np.c_[Y, Y], 0.1)


def test_fit_head_of_a_frozen_backbone():
    model, beta = Backbone(nnx.Rngs(0)), 0.05
    X, Y = gaussian_data(1, 12, 5)
    solution = jaxcvx.flax.fit_head(model, X, Y, beta, batch_size=5)
    assert solution.scope == "global" and solution.gap < 1e-5
    features = jaxcvx.flax.extract_features(model, X)
    head = jaxcvx.flax.to_nnx(solution.network)  # the head of the solution
    reference = jaxcvx.training_objective(jaxcvx.flax.from_nnx(head), features, Y, beta)
    np.testing.assert_allclose(solution.upper_bound, reference, rtol=1e-6)

    own = jaxcvx.flax.ConvexReLU(2, 1, width=3, param_dtype=jnp.float32, rngs=nnx.Rngs(1))
    cheaper = jaxcvx.flax.fit_head(
        model, X, Y, beta, head=own, solver=jaxcvx.ProximalGradient(), num_cells=20, key=jax.random.key(3)
    )
    assert cheaper.scope in ("sampled-cells", "relaxation") and cheaper.upper_bound >= solution.lower_bound
    np.testing.assert_allclose(own(features), cheaper.network(features), rtol=1e-5, atol=1e-6)


def test_fit_head_refuses_bad_arguments():
    X, Y = gaussian_data(0, 8, 2)
    identity = jnp.asarray
    for error, name, call in (
        (jaxcvx.InvalidTypeError, "model", lambda: jaxcvx.flax.fit_head(3, X, Y, 0.1)),
        (jaxcvx.InvalidTypeError, "head", lambda: jaxcvx.flax.fit_head(identity, X, Y, 0.1, head=identity)),
        (jaxcvx.InvalidInputError, "model", lambda: jaxcvx.flax.fit_head(lambda x: x[:, 0], X, Y, 0.1)),
        (jaxcvx.InvalidInputError, "model", lambda: jaxcvx.flax.fit_head(lambda x: x[:1], X, Y, 0.1)),
        (jaxcvx.InvalidInputError, "outputs", lambda: jaxcvx.flax.fit_head(lambda x: x / 0, X, Y, 0.1)),
        (jaxcvx.InvalidInputError, "Y", lambda: jaxcvx.flax.fit_head(identity, X, Y[:4], 0.1)),
        (jaxcvx.InvalidInputError, "inputs", lambda: jaxcvx.flax.fit_head(identity, X[:0], Y[:0], 0.1)),
        (jaxcvx.InvalidInputError, "batch_size", lambda: jaxcvx.flax.fit_head(identity, X, Y, 0.1, batch_size=0)),
        (jaxcvx.InvalidInputError, "num", lambda: jaxcvx.flax.fit_head(identity, X, Y, 0.1, num_cells=0)),
    ):
        with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(error, match=name):
            call()


@pytest.mark.parametrize("shift", [0.0, 293.0, 10_000.0])
@pytest.mark.parametrize("head", ["module", "fit_head", "solver without output bias"])
def test_a_constant_added_to_the_targets_is_added_to_the_predictions(head, shift):
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = np.abs(X[:, 0]) - X[:, 1]
    if head == "solver without output bias":
        module = jaxcvx.flax.ConvexReLU(2, 1, rngs=nnx.Rngs(0))
        cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 20, features=jaxcvx.Dense(bias=True))
        solution = module.fit(X, y + shift, 0.1, solver=jaxcvx.ProximalGradient(max_steps=50), arrangements=cells)
        assert np.all(np.asarray(module.output.bias[...]) == 0)
        np.testing.assert_allclose(module(jnp.asarray(X)), solution.network(X), rtol=1e-5, atol=1e-4 * (1 + shift))
        return
    if head == "module":
        module = jaxcvx.flax.ConvexReLU(2, 1, rngs=nnx.Rngs(0))
        module.fit(X, y + shift, 0.1)
    else:
        module = jaxcvx.flax.to_nnx(jaxcvx.flax.fit_head(lambda x: x, X, y + shift, 0.1).network)
    error = np.asarray(module(jnp.asarray(X)))[:, 0] - (y + shift)
    assert 1 - np.var(error) / np.var(y) > 0.99 and abs(error.mean()) < 1e-3
