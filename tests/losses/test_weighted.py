"""Weighted losses: the same as repeating samples, and duality that holds with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.losses.entrywise import Hinge, Huber, Interpolation, Logistic, Squared
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.losses.weighted import Weighted, WeightedTargets

REPEATS = np.array([2, 0, 1, 4, 3])


def _data(loss):
    rng = np.random.default_rng(0)
    F = rng.standard_normal((5, 3))
    Y = np.eye(3)[rng.integers(0, 3, 5)]
    return F, Y if loss.kind == "label" else 2 * Y - 1


@pytest.mark.rare("base2", "base1")
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
