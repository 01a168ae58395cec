"""Alternating training of a small convolutional network: the objective, monotone mode, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxcvx


class CNN(nnx.Module):
    def __init__(self, rngs, dropout=False):
        self.conv = nnx.Conv(1, 3, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs) if dropout else None
        self.dropout = nnx.Dropout(0.2, rngs=rngs) if dropout else None
        self.linear = nnx.Linear(12, 3, rngs=rngs)

    def __call__(self, x):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = nnx.relu(x).reshape(len(x), -1)
        return self.linear(x if self.dropout is None else self.dropout(x))


def images(n=30):
    """Draw noisy images of upright or lying bars. No single pixel determines the label."""
    rng = np.random.default_rng(0)
    x, label = 0.3 * rng.standard_normal((n, 4, 4, 1)), rng.integers(0, 2, n)
    for image, upright, place in zip(x, label, rng.integers(0, 4, n), strict=True):
        if upright:
            image[:, place] += 1
        else:
            image[place] += 1
    return x.astype(np.float32), np.eye(2, dtype=np.float32)[label]


def layer(**more):
    solver = jaxcvx.ProximalGradient(tol=1e-4, max_steps=400, phases="accelerated")
    return jaxcvx.flax.ConvexLayer(3, 2, 8, 0.3, solver=solver, rngs=nnx.Rngs(1), **more), solver


def objective(backbone, head, x, y, beta, decay=0.0):
    """Compute J in numpy from its definition, for a ConvexLayer."""
    backbone.eval()
    error = np.asarray(head(backbone(x)), np.float64) - y
    blocks = np.sqrt((np.asarray(head.weights[...], np.float64) ** 2).sum((1, 2))).sum()
    params = jax.tree.leaves(nnx.state(backbone, nnx.Param))
    squares = sum(float((np.asarray(a, np.float64) ** 2).sum()) for a in params)
    return 0.5 * (error**2).sum() + beta * blocks + 0.5 * decay * squares


@pytest.mark.float32
def test_monotone_mode_never_rises():
    x, y = images()
    backbone = CNN(nnx.Rngs(0))
    head, solver = layer()
    # The step is so long that J rises in a round, and the change is halved.
    record = jaxcvx.flax.alternate(
        backbone, head, (x, y), None, optax.adam(0.02), 8, steps_per_round=4, batch_size=8, solver=solver, decay=0.01
    )
    together = np.empty(17)
    together[0::2], together[1::2] = record.objective, record.after_backbone
    assert record.objective.shape == (9,) and np.all(np.diff(together) <= 0)
    assert np.any(record.kept < 1) and np.any(record.kept > 0)
    assert record.objective[-1] < 0.97 * record.objective[0]
    np.testing.assert_allclose(objective(backbone, head, x, y, 0.3, 0.01), record.objective[-1], rtol=1e-5)
    assert record.solution.program_gap < 1e-3
    undone = record.kept == 0
    np.testing.assert_array_equal(record.after_backbone[undone], record.objective[:-1][undone])


@pytest.mark.float32
def test_without_monotone_mode_the_objective_rises_and_is_recorded():
    x, y = images()
    backbone = CNN(nnx.Rngs(0))
    head, solver = layer()
    more = dict(steps_per_round=4, batch_size=8, solver=solver, monotone=False)
    record = jaxcvx.flax.alternate(backbone, head, (x, y), None, optax.adam(0.2), 8, **more)
    assert np.any(record.after_backbone > record.objective[:-1])
    np.testing.assert_array_equal(record.kept, 1.0)
    np.testing.assert_allclose(objective(backbone, head, x, y, 0.3), record.objective[-1], rtol=1e-5)


@pytest.mark.float32
def test_a_diverged_round_is_undone():
    x, y = images()
    backbone = CNN(nnx.Rngs(0), dropout=True)
    head, solver = layer()
    before = [np.asarray(a) for a in jax.tree.leaves(nnx.state(backbone, nnx.Param))]
    record = jaxcvx.flax.alternate(
        backbone, head, (x, y), None, optax.sgd(np.nan), 1, steps_per_round=1, batch_size=64, solver=solver
    )
    assert record.kept.tolist() == [0.0] and record.objective[1] <= record.objective[0]
    after = jax.tree.leaves(nnx.state(backbone, nnx.Param))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_with_a_relu_head():
    # The solver's cells may not contain those of the head: monotone mode rejects worse weights.
    x, y = (a.astype(np.float64) for a in images(12))

    class Backbone(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(16, 2, rngs=nnx.Rngs(0), param_dtype=jnp.float64)

        def __call__(self, x):
            return jnp.tanh(self.linear(x.reshape(len(x), -1)))

    backbone, head = Backbone(), jaxcvx.flax.ConvexReLU(2, 1, width=4, bias=False, rngs=nnx.Rngs(2))
    y = y[:, :1] - y[:, 1:]
    record = jaxcvx.flax.alternate(backbone, head, (x, y), 0.2, optax.adam(1e-2), 1, steps_per_round=5)
    assert record.objective[0] >= record.after_backbone[0] >= record.objective[1]
    network = jaxcvx.flax.from_nnx(head)
    np.testing.assert_allclose(jaxcvx.training_objective(network, backbone(x), y, 0.2), record.objective[-1], rtol=1e-9)
    np.testing.assert_allclose(record.solution.upper_bound, record.objective[-1], rtol=1e-9)
    assert record.solution.scope == "global"


@pytest.mark.float32
def test_bad_arguments_are_named():
    x, y = images(6)
    backbone, (head, _), adam = CNN(nnx.Rngs(0)), layer(), optax.adam(1e-3)
    relu = jaxcvx.flax.ConvexReLU(3, 2, rngs=nnx.Rngs(0))
    good = dict(backbone=backbone, head=head, data=(x, y), beta=None, optimizer=adam, rounds=1)
    for name, bad in (
        ("backbone", dict(backbone=lambda x: x)),
        ("head", dict(head=nnx.Linear(3, 2, rngs=nnx.Rngs(0)))),
        ("data", dict(data=x)),
        ("data", dict(data=(x, y[:, :1]))),
        ("Y", dict(data=(x, y[:3]))),
        ("beta", dict(beta=-1.0)),
        ("beta", dict(head=relu)),
        ("optimizer", dict(optimizer="adam")),
        ("rounds", dict(rounds=-1)),
        ("steps_per_round", dict(steps_per_round=0)),
        ("batch_size", dict(batch_size=2.5)),
        ("loss", dict(loss="logistic")),
    ):
        with pytest.raises((jaxcvx.InvalidInputError, jaxcvx.InvalidTypeError), match=name):
            jaxcvx.flax.alternate(**(good | bad))
