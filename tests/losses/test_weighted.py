"""Weighted losses: the same as repeating samples, and duality that holds with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.losses.entrywise import Hinge, Huber, Interpolation, Logistic, Squared
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.losses.weighted import Weighted, WeightedLogistic, WeightedSoftmax, WeightedTargets

PAIRS = [(WeightedLogistic(), Logistic()), (WeightedSoftmax(), SoftmaxCrossEntropy())]
REPEATS = np.array([2, 0, 1, 4, 3])


def _data(loss):
    rng = np.random.default_rng(0)
    F = rng.standard_normal((5, 3))
    Y = np.eye(3)[rng.integers(0, 3, 5)]
    return F, Y if loss.kind == "label" else 2 * Y - 1


@pytest.mark.parametrize("weighted, plain", PAIRS)
def test_integer_weights_repeat_samples(weighted, plain):
    F, Y = _data(plain)
    top = REPEATS.max()
    weights = REPEATS / top
    again = np.repeat(np.arange(5), REPEATS)
    YW = jnp.asarray(Y * weights[:, None])
    np.testing.assert_allclose(top * weighted.value(F, YW), plain.value(F[again], Y[again]), rtol=1e-12)
    per_sample = np.asarray(plain.grad(F, Y))
    np.testing.assert_allclose(weighted.grad(F, YW), per_sample * weights[:, None], rtol=1e-12, atol=1e-14)
    slope = jax.grad(weighted.value)(jnp.asarray(F), YW)
    np.testing.assert_allclose(weighted.grad(F, YW), slope, rtol=1e-10, atol=1e-14)
    # Fenchel-Young holds with equality at minus the gradient, and s R is dual feasible up to the limit only.
    R = -weighted.grad(F, YW)
    expected = weighted.value(F, YW) + jnp.sum(F * R)
    np.testing.assert_allclose(weighted.dual_value(R, YW), expected, rtol=1e-10)
    repeated = plain.dual_value(-plain.grad(F[again], Y[again]), Y[again])
    np.testing.assert_allclose(top * weighted.dual_value(R, YW), repeated, rtol=1e-10)
    limit = float(weighted.max_scaling(R, YW))
    assert limit > 1 and np.isfinite(weighted.dual_value(0.999 * limit * R, YW))
    assert weighted.dual_value(1.01 * limit * R, YW) == -jnp.inf


@pytest.mark.parametrize("weighted, plain", PAIRS)
def test_prox_and_projection(weighted, plain):
    F, Y = _data(plain)
    weights = REPEATS / REPEATS.max()
    YW, step = jnp.asarray(Y * weights[:, None]), 0.7
    G = weighted.prox(jnp.asarray(F), YW, jnp.asarray(step))
    np.testing.assert_allclose(G - F, -step * weighted.grad(G, YW), atol=1e-7)
    np.testing.assert_array_equal(G[1], F[1])  # of weight 0
    R = weighted.project_dual(jnp.asarray(np.random.default_rng(1).standard_normal((5, 3))), YW)
    assert np.isfinite(weighted.dual_value(R, YW))
    np.testing.assert_array_equal(R[1], 0)


@pytest.mark.parametrize("weighted, plain", PAIRS)
def test_weights_of_one_change_nothing(weighted, plain):
    F, Y = _data(plain)
    R = -plain.grad(F, Y)
    for ours, theirs in (
        (weighted.value(F, Y), plain.value(F, Y)),
        (weighted.dual_value(0.6 * R, Y), plain.dual_value(0.6 * R, Y)),
        (weighted.max_scaling(R, Y), plain.max_scaling(R, Y)),
        (weighted.project_dual(3 * R, Y), plain.project_dual(3 * R, Y)),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "base", [Squared(), Logistic(), SoftmaxCrossEntropy(), Huber(0.7), Hinge(), Interpolation(2.0)]
)
def test_the_weighted_loss_of_any_loss_is_that_of_repeated_samples(base):
    F, Y = _data(base)
    F, Y, again = jnp.asarray(F), jnp.asarray(Y), np.repeat(np.arange(5), REPEATS)
    loss, targets = Weighted(base), WeightedTargets(Y, jnp.asarray(REPEATS, F.dtype))
    np.testing.assert_allclose(loss.value(F, targets), base.value(F[again], Y[again]), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss.value)(F, targets), loss.grad(F, targets), atol=1e-12)
    R, repeated = -loss.grad(F, targets), -base.grad(F[again], Y[again])
    np.testing.assert_allclose(loss.dual_value(R, targets), base.dual_value(repeated, Y[again]), rtol=1e-10)
    if loss.is_smooth:  # equality of Fenchel and Young
        np.testing.assert_allclose(loss.dual_value(R, targets), loss.value(F, targets) + jnp.sum(F * R), rtol=1e-10)
    for limit in (0.4, 3.0):
        scaled, expected = (
            each.dual_value(each.best_scaling(D, T, jnp.asarray(limit)) * D, T)
            for each, D, T in ((loss, R, targets), (base, repeated, Y[again]))
        )
        np.testing.assert_allclose(scaled, expected, rtol=1e-7)
    G = loss.prox(F, targets, jnp.asarray(0.3))
    np.testing.assert_array_equal(G[1], F[1])  # of weight 0
    one = base.prox(F[3:4], Y[3:4], jnp.asarray(0.3 * REPEATS[3]))
    np.testing.assert_allclose(G[3:4], one, atol=1e-9)
    anywhere = loss.project_dual(jnp.asarray(np.random.default_rng(1).standard_normal((5, 3))), targets)
    for D in (anywhere, loss.center_dual(R, targets), *loss.dual_candidates(F, targets)):
        assert np.isfinite(loss.dual_value(min(1.0, float(loss.max_scaling(D, targets))) * D, targets))
        np.testing.assert_array_equal(D[1], 0)
    np.testing.assert_allclose(jnp.sum(loss.center_dual(R, targets), axis=0), 0, atol=1e-12)
    assert loss.majorant(F, targets) <= loss.curvature_bound(targets) * jnp.sum(F**2) if loss.is_smooth else True
