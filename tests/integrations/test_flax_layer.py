"""The convex layer: derivatives of both outer objectives against finite differences, nnx, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxcvx
from tests.helpers import gaussian_data, targets_for

N, M, D, P = 16, 6, 3, 6
OUTPUTS = {"squared": 2, "logistic": 1, "softmax": 3}
EXACT = jaxcvx.ProximalGradient(tol=1e-13, max_steps=4000, check_every=4000, phases="accelerated")


class Model(nnx.Module):
    def __init__(self, loss="squared", beta=0.02, solver=EXACT, d=D, **more):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(4, d, rngs=rngs, param_dtype=jnp.float64)
        self.head = jaxcvx.flax.ConvexLayer(
            d, OUTPUTS[loss], P, beta, loss=loss, solver=solver, beta_scale="per-sample", rngs=rngs, **more
        )

    def features(self, x):
        return jnp.tanh(self.linear(x))

    def __call__(self, x):
        return self.head(self.features(x))


def batch(loss, seed=0):
    X, Y = gaussian_data(seed, N + M, 4, OUTPUTS[loss])
    Y = targets_for(loss, Y)
    Y = np.eye(OUTPUTS[loss])[Y] if loss == "softmax" else Y
    return jnp.asarray(X), jnp.asarray(Y)


def value(model, x, y):
    return model.head.value(model.features(x), y)


def held_out(model, x, y):
    z = model.features(x)
    k = len(x) * N // (N + M)
    return model.head.held_out_loss(z[:k], y[:k], z[k:], y[k:])


def perturbed(model, size, direction):
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return nnx.merge(graph, jax.tree.map(lambda a, t: a + size * t, params, direction), rest)


@pytest.mark.routine(2)
@pytest.mark.parametrize("objective", [value, held_out])
@pytest.mark.parametrize("loss", OUTPUTS)
def test_gradients_agree_with_finite_differences(objective, loss):
    x, y = batch(loss)
    model = Model(loss)
    both = nnx.jit(nnx.value_and_grad(objective))
    _, gradient = both(model, x, y)
    solved = model.head.weights[...]
    live = np.any(np.asarray(solved) != 0, axis=(1, 2))
    assert live.any()
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), nnx.state(model, nnx.Param))
    h = 1e-5
    up, down = (float(both(perturbed(model, s, direction), x, y)[0]) for s in (h, -h))
    slopes = jax.tree.map(lambda g, t: float(jnp.sum(g * t)), gradient, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(slopes)), (up - down) / (2 * h), rtol=1e-5)


def test_derivatives_in_targets_and_beta():
    x, y = batch("squared")
    model, h = Model(), 1e-5
    z = model.features(x)
    rng = np.random.default_rng(1)
    change = jnp.asarray(rng.standard_normal((N, 2)))

    def loss(layer, amount, beta):
        return layer.held_out_loss(z[:N], y[:N] + amount * change, z[N:], y[N:], beta)

    both = nnx.jit(nnx.value_and_grad(loss, argnums=(1, 2)))
    for i, slope in enumerate(both(model.head, 0.0, 0.02)[1]):
        step = np.eye(2)[i] * h
        up, down = (float(both(model.head, s * step[0], 0.02 + s * step[1])[0]) for s in (1, -1))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-5)


def test_the_linear_solve_for_many_weights_gives_the_same_gradient(monkeypatch):
    # Beyond 1024 unknowns the linear solve uses an n x n factorisation. Here the limit is set to 0.
    x, y = batch("squared")
    model = Model()
    dense = nnx.jit(nnx.grad(held_out))(model, x, y)
    monkeypatch.setattr("jaxcvx.numerics.implicit._MAX_DENSE", 0)
    other = nnx.jit(nnx.grad(lambda *a: held_out(*a)))(Model(), x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), dense, other)


def test_value_is_the_optimum_and_does_not_depend_on_the_scale_of_features():
    x, y = batch("squared")
    model = Model()
    z = model.features(x)
    layer = model.head
    solution = layer.freeze(z, y, solver=jaxcvx.ProximalGradient(tol=1e-10))
    assert solution.converged and solution.program_gap <= 1e-10
    rows = np.asarray(z) / np.sqrt(np.mean(np.asarray(z) ** 2, axis=1, keepdims=True))
    rows = np.hstack([rows, np.ones((N + M, 1))])
    W, gates = np.asarray(layer.weights[...]), np.asarray(layer.gates[...])
    F = np.einsum("nq,np,qpc->nc", rows @ gates.T >= 0, rows, W)
    expected = 0.5 * np.sum((F - np.asarray(y)) ** 2) + 0.02 * (N + M) * np.sqrt((W**2).sum((1, 2))).sum()
    np.testing.assert_allclose(solution.objective, expected, rtol=1e-9)
    np.testing.assert_allclose(layer(z), F, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.penalty(), np.sqrt((W**2).sum((1, 2))).sum(), rtol=1e-12)
    np.testing.assert_allclose(layer(7 * z), F, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.value(7 * z, y), expected, rtol=1e-8)
    assert solution.upper_bound >= solution.lower_bound > 0


def test_beta_is_absolute_by_default():
    X, Y = gaussian_data(0, 10, 3)
    layer = jaxcvx.flax.ConvexLayer(3, 1, 4, 0.3, normalise=False, bias=False, rngs=nnx.Rngs(0))
    problem = layer.problem(X, Y)
    assert float(problem.beta) == 0.3
    np.testing.assert_array_equal(problem.X, X)
    reference = jaxcvx.solve(problem, jaxcvx.ProximalGradient())
    np.testing.assert_allclose(layer.freeze(X, Y).objective, reference.objective, rtol=1e-5)
    np.testing.assert_allclose(layer(X), problem.operator.forward(reference.params), atol=1e-2)
    scaled = jaxcvx.flax.ConvexLayer(3, 1, 4, 0.3, beta_scale="per-sample", rngs=nnx.Rngs(0))
    np.testing.assert_allclose(scaled.problem(X, Y).beta, 3.0)
    np.testing.assert_allclose(scaled.problem(X, Y, 0.1).beta, 1.0)


@pytest.mark.long
@pytest.mark.routine("held_out")
@pytest.mark.parametrize("objective", [value, held_out])
def test_training_end_to_end(objective):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((60, 4)))
    y = jnp.abs(jnp.tanh(x @ rng.standard_normal((4, 2))))
    model = Model(solver=jaxcvx.ProximalGradient(tol=1e-4, max_steps=40, phases="accelerated"), beta=0.01)
    gates = np.asarray(model.head.gates[...])
    optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradient = nnx.value_and_grad(objective)(model, x, y)
        optimizer.update(model, gradient)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    np.testing.assert_array_equal(model.head.gates[...], gates)
    assert set(nnx.state(model, nnx.Param)) == {"linear"}  # the optimiser changes neither gates nor weights
    solution = model.head.freeze(model.features(x), y)
    assert solution.converged
    np.testing.assert_array_equal(model.head.weights[...], solution.params)
    assert jnp.sum((model(x) - y) ** 2) < 0.3 * jnp.sum((y - y.mean(0)) ** 2)


def test_the_last_solution_is_the_next_start():
    x, y = batch("squared")
    model = Model(solver=jaxcvx.ProximalGradient(tol=1e-8, phases="accelerated", check_every=1))
    z = model.features(x)
    cold = model.head.solve(z, y)
    warm = model.head.solve(z, y)
    assert cold.num_steps > 10 and warm.num_steps == 0
    np.testing.assert_allclose(model.head.value(z, y), cold.objective, rtol=1e-12)


@pytest.mark.float32
def test_single_precision_stays_finite_at_zero_features():
    layer = jaxcvx.flax.ConvexLayer(3, 2, 5, 0.1, rngs=nnx.Rngs(0))
    assert layer.weights[...].dtype == jnp.float32
    z = jnp.zeros((4, 3)).at[0].set(1.0)
    y = jnp.ones((4, 2))
    slopes = nnx.grad(lambda layer, z: layer.value(z, y), argnums=1)(layer, z)
    assert bool(jnp.all(jnp.isfinite(slopes)))


def test_bad_arguments_are_named():
    def make(*sizes, **more):
        return jaxcvx.flax.ConvexLayer(*sizes, rngs=nnx.Rngs(0), **more)

    for arguments, more, name in (
        ((0, 1, 4, 0.1), {}, "in_features"),
        ((3, 1.5, 4, 0.1), {}, "out_features"),
        ((3, 1, True, 0.1), {}, "num_gates"),
        ((3, 1, 4, -0.1), {}, "beta"),
        ((3, 1, 4, 0.1), {"beta_scale": "relative"}, "beta_scale"),
        ((3, 1, 4, 0.1), {"loss": "hinge"}, "loss"),
    ):
        with pytest.raises(jaxcvx.InvalidInputError, match=name):
            make(*arguments, **more)
    with pytest.raises(jaxcvx.InvalidTypeError, match="solver"):
        make(3, 1, 4, 0.1, solver=jaxcvx.ConeADMM())
    layer = make(3, 2, 4, 0.1)
    X, Y = gaussian_data(0, 6, 3, 2)
    for call, name in (
        (lambda: layer(X[:, :2]), "features"),
        (lambda: layer.value(X[:, :2], Y), "features"),
        (lambda: layer.value(X, Y[:, :1]), "targets"),
        (lambda: layer.value(X, Y[:3]), "Y"),
        (lambda: layer.predict(X, Y, X[:, :2]), "queries"),
        (lambda: layer.value(X * np.nan, Y), "features"),
    ):
        with pytest.raises(jaxcvx.InvalidInputError, match=name):
            call()
