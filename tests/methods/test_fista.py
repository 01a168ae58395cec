"""The accelerated step: its step size, what it carries along, restarts, and where it ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx.losses.entrywise import Logistic, Squared
from jaxcvx.methods.fista import LinearMap, accelerated_step, refresh, start
from jaxcvx.proximal.norms import shrink_groups
from tests.helpers import gaussian_data, targets_for

A, Y = gaussian_data(0, 15, 6)
BETA = 0.8
LINEAR = LinearMap(lambda W: jnp.asarray(A) @ W[:, :, 0], lambda R: (jnp.asarray(A).T @ R)[:, :, None])


def lasso(W, step, carry):
    return shrink_groups(W, BETA * step), carry + 1


def run(loss, Y, steps, lipschitz=1.0, prox=lasso):
    first = start(LINEAR, jnp.zeros((6, 1, 1)), jnp.asarray(lipschitz), 0)
    one = jax.jit(lambda s: accelerated_step(loss, jnp.asarray(Y), LINEAR, prox, s))
    states = [first]
    for _ in range(steps):
        states.append(one(states[-1]))
    return states


def objective(loss, Y, W):
    F = A @ np.asarray(W)[:, :, 0]
    return float(loss.value(jnp.asarray(F), jnp.asarray(Y))) + BETA * np.abs(np.asarray(W)).sum()


@pytest.mark.parametrize("name, loss", [("squared", Squared()), ("logistic", Logistic())])
def test_ends_where_the_subgradient_vanishes(name, loss):
    targets = targets_for(name, Y)
    W = np.asarray(run(loss, targets, 400)[-1].params)[:, 0, 0]
    slope = A.T @ np.asarray(loss.grad(jnp.asarray(A @ W)[:, None], jnp.asarray(targets)))[:, 0]
    np.testing.assert_allclose(slope[W != 0], -BETA * np.sign(W[W != 0]), atol=1e-7)
    assert (np.abs(slope) <= BETA + 1e-7).all() and (W != 0).any()


def test_a_first_guess_far_too_small_is_corrected_by_the_curvature_met():
    """From 1e-6 of the true constant: every step still meets the condition, so the first one does not go up."""
    states = run(Squared(), Y, 30, lipschitz=1e-6)
    largest = np.linalg.norm(A, 2) ** 2
    values = [objective(Squared(), Y, s.params) for s in states]
    known = objective(Squared(), Y, run(Squared(), Y, 30, lipschitz=largest)[-1].params)
    assert values[1] < values[0] and values[-1] <= known + 1e-3 * (values[0] - known)
    for before, after in zip(states, states[1:], strict=False):
        change = np.asarray(after.params - before.point)
        moved = float(np.sum(np.asarray(LINEAR.forward(after.params) - before.F_point) ** 2))
        assert moved <= float(after.lipschitz) * np.sum(change**2) * (1 + 1e-9)
        assert after.lipschitz <= 1.2 * largest


def test_predictions_are_carried_along_and_refreshed():
    states = run(Squared(), Y, 25)
    last = states[-1]
    np.testing.assert_allclose(last.F, LINEAR.forward(last.params), atol=1e-12)
    np.testing.assert_allclose(last.F_point, LINEAR.forward(last.point), atol=1e-12)
    spoiled = refresh(LINEAR, last._replace(F=last.F + 1))
    np.testing.assert_allclose(spoiled.F, LINEAR.forward(last.params), atol=1e-12)
    assert spoiled.lipschitz == 0.8 * last.lipschitz
    assert last.carry >= 25  # the prox's own state went through every attempt


def test_momentum_is_dropped_where_it_points_uphill():
    states = run(Squared(), Y, 200)
    momentum = [float(s.momentum) for s in states]
    assert momentum[1] > 1 and 1.0 in momentum[2:]
    k = 2 + momentum[2:].index(1.0)
    np.testing.assert_array_equal(states[k].point, states[k].params)
