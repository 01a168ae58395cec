"""The semidefinite bound on prices: above the maximum for all multipliers, and close to it on small data."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import enumerate_arrangements, make_problem
from jaxcvx.certificates.dual import all_networks_dual_norm, cone_dual_norm
from jaxcvx.pricing.semidefinite import (
    _Best,
    _lift,
    _pairs,
    _proved,
    _repair,
    relaxation_order,
    semidefinite_dual_norm,
)
from tests.helpers import gaussian_data, neurons_in_the_plane

bound = jax.jit(semidefinite_dual_norm, static_argnames=("max_steps", "tol"))


def residuals(n: int, c: int, seed: int) -> np.ndarray:
    """Residuals of many kinds: Gaussian, one-signed, sparse, near-balanced."""
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((n, c))
    kind = seed % 4
    if kind == 1:
        R = np.abs(R)
    if kind == 2:
        R *= rng.random((n, 1)) < 0.3
    if kind == 3:
        R -= R.mean(axis=0)
    return R * 10.0 ** rng.uniform(-3, 3)


def brute_force(Z: np.ndarray, R: np.ndarray) -> float:
    return float(np.linalg.norm(neurons_in_the_plane(Z).T @ R, axis=1).max())


@pytest.mark.routine(2)
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("max_steps", [25, 400])
def test_never_below_the_maximum_in_the_plane(c, max_steps):
    ratios = []
    for seed in range(16):
        Z, _ = gaussian_data(seed, 9, 2)
        R = residuals(9, c, seed)
        ratios.append(float(bound(Z, R, max_steps=max_steps)) / max(brute_force(Z, R), 1e-300))
    assert min(ratios) >= 1 - 1e-12
    if max_steps == 400:
        assert max(ratios) < 1.05 and np.median(ratios) < 1.002


@pytest.mark.parametrize(("n", "d"), [(12, 3), (10, 5)])
def test_never_below_the_exact_value_over_all_cells(n, d):
    exact = jax.jit(cone_dual_norm)
    for seed in range(6):
        Z, _ = gaussian_data(seed, n, d)
        R = residuals(n, 1, seed)
        problem = make_problem(Z, R, 1.0, arrangements=enumerate_arrangements(Z))
        truth = float(exact(problem.operator, problem.Y))
        assert truth * (1 - 1e-12) <= float(bound(Z, R)) < 1.02 * truth
        if seed % 4 == 0:
            assert float(all_networks_dual_norm(problem, problem.Y)) > 1.05 * truth


@pytest.mark.parametrize("c", [1, 2])
def test_any_multipliers_prove_a_bound(c):
    Z, _ = gaussian_data(0, 7, 2)
    R = residuals(7, c, 4)
    lift = _lift(jnp.asarray(Z), jnp.asarray(R), c == 1)
    pairs = _pairs(lift)
    activations = neurons_in_the_plane(Z).T @ R
    truth = float(activations.max()) if c == 1 else float(np.linalg.norm(activations, axis=1).max())

    @jax.jit
    def proved(G):
        multipliers = jnp.where(pairs, G, jnp.maximum(G, 0.0))
        t, shift = _repair(lift, multipliers)
        return lift.scale * jnp.sqrt(_proved(lift, _Best(t, multipliers, shift)))

    for seed in range(20):
        G = np.random.default_rng(seed).standard_normal(pairs.shape) * 10.0 ** (seed % 5 - 3)
        assert float(proved(jnp.asarray(G + G.T))) >= truth * (1 - 1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("c", [1, 2])
def test_reaches_the_value_of_the_relaxation(c):
    """The semidefinite program written from its definition, by Clarabel."""
    n, d = 10, 3
    Z, R = gaussian_data(5, n, d, c)
    values = []
    for sign in (1, -1) if c == 1 else (1,):
        X = cp.Variable((d + n, d + n), PSD=True)
        uu, ss, zs = X[:d, :d], X[d:, d:], Z @ X[:d, d:]
        constraints = [cp.trace(uu) <= 1, cp.diag(ss) == cp.diag(zs), ss >= 0, ss - zs >= 0]
        constraints.append(ss - zs - zs.T + Z @ uu @ Z.T >= 0)
        if c == 1:
            constraints += [sign * ss @ R >= 0, sign * (ss - zs) @ R >= 0]
        program = cp.Problem(cp.Maximize(cp.trace(R.T @ ss @ R)), constraints)
        values.append(program.solve(solver=cp.CLARABEL))
    reached = float(bound(Z, R, max_steps=2000, tol=1e-5))
    assert reached == pytest.approx(max(values) ** 0.5, rel=3e-3)
    assert reached >= max(values) ** 0.5 * (1 - 1e-7)


def test_scales_with_the_data():
    Z, R = gaussian_data(1, 9, 2)
    scaled = float(bound(1e3 * Z, 1e-5 * R))
    assert scaled == pytest.approx(1e-2 * float(bound(Z, R)), rel=1e-6)


def test_stops_at_the_floor():
    Z, R = gaussian_data(2, 9, 2)
    full, truth = float(bound(Z, R, tol=1e-9)), brute_force(Z, R)
    early = float(bound(Z, R, tol=0.1, floor=truth))
    assert truth <= full < early <= 1.1 * truth


def test_degenerate_data():
    Z, R = gaussian_data(3, 9, 2)
    Z[2] = 0
    assert brute_force(Z, R) <= float(bound(Z, R)) < 1.05 * brute_force(Z, R)
    assert float(bound(Z, 0 * R)) == 0 and float(bound(0 * Z, R)) == 0
    assert np.isfinite(float(bound(np.ones((9, 2)), np.ones((9, 1)))))
    assert float(bound(np.ones((9, 2)), np.ones((9, 1)))) == pytest.approx(9 * 2**0.5, rel=1e-3)


def test_more_weights_than_rows():
    Z, R = gaussian_data(4, 6, 40)
    assert relaxation_order(6, 40) == 12
    best = float(bound(Z, R))
    positive = np.linalg.pinv(Z) @ np.maximum(R, 0)
    assert best >= float(np.linalg.norm(R.T @ np.maximum(Z @ positive, 0)) / np.linalg.norm(positive))
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    assert float(bound(Z @ rotation, R)) == pytest.approx(best, rel=1e-6)


@pytest.mark.float32
def test_single_precision_stays_above():
    for seed in range(6):
        Z, _ = gaussian_data(seed, 9, 2)
        R = residuals(9, 1, seed)
        value = bound(Z.astype(np.float32), R.astype(np.float32))
        assert value.dtype == jnp.float32
        truth = brute_force(Z.astype(np.float32).astype(float), R.astype(np.float32).astype(float))
        assert truth <= float(value) < 1.1 * truth
