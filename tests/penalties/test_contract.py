"""The contract of a penalty, for every penalty: weak duality, the prox and its derivative, transforms and dtypes."""

from __future__ import annotations

import dataclasses

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcvx.penalties.base import Penalty
from jaxcvx.penalties.cones import ConeGroups
from jaxcvx.penalties.groups import ColumnGroups, FrobeniusGroups
from jaxcvx.penalties.nuclear import NuclearNorm

P, D, C, N = 5, 3, 2, 7


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AbsoluteValues(Penalty):
    """A user's penalty with the three methods that have no default."""

    def value(self, W):
        return jnp.sum(jnp.abs(W))

    def dual_norm(self, G):
        return jnp.max(jnp.abs(G))

    def prox(self, W, t):
        return jnp.sign(W) * jnp.maximum(jnp.abs(W) - t, 0)


def cones(groups: FrobeniusGroups | ColumnGroups) -> ConeGroups:
    """Cones of P cells of N rows; the last block is unconstrained."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, D))
    signs = np.where(rng.standard_normal((P, D)) @ rows.T >= 0, 1.0, -1.0)
    signs[-1] = 0
    return ConeGroups(jnp.asarray(rows), jnp.asarray(signs), groups)


NAMES = ["frobenius", "columns", "nuclear", "nuclear and frobenius", "cones", "cones by column", "absolute values"]


def penalty_of(name: str) -> Penalty:
    """Built in the precision of the test."""
    return {
        "frobenius": FrobeniusGroups,
        "columns": ColumnGroups,
        "nuclear": NuclearNorm,
        "nuclear and frobenius": lambda: NuclearNorm(num_frobenius=1),
        "cones": lambda: cones(FrobeniusGroups()),
        "cones by column": lambda: cones(ColumnGroups()),
        "absolute values": AbsoluteValues,
    }[name]()


def blocks(seed: int) -> jax.Array:
    """Blocks of very different sizes, one of them zero."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((P, D, C)) * 10.0 ** rng.uniform(-2, 1, (P, 1, 1))
    W[1] = 0
    return jnp.asarray(W)


@jax.jit
def measure(penalty, W, G, t):
    V = penalty.prox(W, t)
    return V, penalty.value(V), penalty.value(3 * V), penalty.dual_norm(W - V), penalty.dual_norm(G)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), log_t=st.floats(-2, 1))
def test_weak_duality_and_the_optimality_of_the_prox(name, seed, log_t):
    """``V = prox(W, t)`` exactly if ``<W - V, V> = t h(V)`` and ``h°(W - V) <= t``; always ``<G, V> <= h(V) h°(G)``."""
    penalty, W, G, t = penalty_of(name), blocks(seed), blocks(seed + 1), 10.0**log_t
    V, value, tripled, rest, dual = (np.asarray(x) for x in measure(penalty, W, G, t))
    size = float(jnp.linalg.norm(W))
    assert value >= 0 and tripled == pytest.approx(3 * value, rel=1e-12)
    assert np.sum(G * V) <= value * dual * (1 + 1e-12) + 1e-12
    assert np.sum((W - V) * V) == pytest.approx(t * value, abs=1e-10 * size**2)
    assert rest <= t * (1 + 1e-10) + 1e-12
    assert penalty.group_norms(W).shape[0] == P and np.broadcast_shapes(penalty.group_norms(W).shape, W.shape)


@pytest.mark.parametrize("name", NAMES)
def test_the_dual_norm_is_the_least_threshold_whose_prox_is_zero(name):
    penalty, W = penalty_of(name), blocks(0)
    norm = penalty.dual_norm(W)
    assert not np.any(penalty.prox(W, norm * (1 + 1e-12)))
    assert np.any(penalty.prox(W, norm * (1 - 1e-9)))


def _cvxpy_value(name: str, variables: list[cp.Variable]):
    if "columns" in name or "column" in name:
        return sum(cp.norm(v[:, k], 2) for v in variables for k in range(C))
    if name == "absolute values":
        return sum(cp.sum(cp.abs(v)) for v in variables)
    frobenius = [cp.norm(cp.vec(v, order="F"), 2) for v in variables]
    if name == "nuclear":
        return sum(cp.normNuc(v) for v in variables)
    if name == "nuclear and frobenius":
        return sum(cp.normNuc(v) for v in variables[:-1]) + frobenius[-1]
    return sum(frobenius)


@pytest.mark.routine(7)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("t", [0.3, 0.0, 2.0])
def test_the_prox_against_a_numerical_minimiser(name, t):
    penalty, W = penalty_of(name), np.random.default_rng(1).standard_normal((P, D, C))
    variables = [cp.Variable((D, C)) for _ in range(P)]
    cost = t * _cvxpy_value(name, variables) + 0.5 * sum(
        cp.sum_squares(v - w) for v, w in zip(variables, W, strict=True)
    )
    constraints = []
    if isinstance(penalty, ConeGroups):
        rows = np.asarray(penalty.rows)
        signs = np.asarray(penalty.signs)
        constraints = [(s[:, None] * rows) @ v >= 0 for s, v in zip(signs, variables, strict=True)]
    program = cp.Problem(cp.Minimize(cost), constraints)
    program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    V = penalty.prox(jnp.asarray(W), jnp.asarray(t))
    assert t * float(penalty.value(V)) + 0.5 * np.sum((V - W) ** 2) == pytest.approx(program.value, abs=1e-7)
    np.testing.assert_allclose(V, np.stack([v.value for v in variables]), atol=1e-4)
    if constraints:
        assert np.min(signs[:, :, None] * np.einsum("np,qpc->qnc", rows, V)) >= -1e-12


@pytest.mark.parametrize("name", [n for n in NAMES if "cones" not in n])
def test_the_derivative_is_that_of_the_prox(name):
    penalty, W = penalty_of(name), jnp.asarray(np.random.default_rng(2).standard_normal((P, D, C)))
    E, t, h = jnp.asarray(np.random.default_rng(3).standard_normal((P, D, C))), 0.8, 1e-6
    slope = penalty.derivative(W, t)
    difference = (penalty.prox(W + h * E, t) - penalty.prox(W - h * E, t)) / (2 * h)
    np.testing.assert_allclose(slope(E), difference, atol=1e-8)
    np.testing.assert_allclose(jnp.sum(slope(E) * W), jnp.sum(E * slope(W)), rtol=1e-10)  # symmetric
    zero = penalty.derivative(jnp.zeros_like(W), t)(E)
    np.testing.assert_array_equal(zero, 0)


@pytest.mark.parametrize("name", NAMES)
def test_under_jit_and_vmap(name):
    penalty, W, t = penalty_of(name), jnp.stack([blocks(0), blocks(1)]), jnp.array([0.3, 2.0])
    for method in (penalty.prox, lambda W, t: penalty.value(W), lambda W, t: penalty.dual_norm(W)):
        batched = jax.jit(jax.vmap(method))(W, t)
        for k in range(2):
            np.testing.assert_allclose(batched[k], method(W[k], t[k]), rtol=1e-12, atol=1e-14)


@pytest.mark.float32
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_kept(name):
    penalty = jax.tree.map(lambda a: a.astype(jnp.float32), penalty_of(name))
    W, t = blocks(0).astype(jnp.float32), jnp.float32(0.5)
    V, memory = penalty.prox_with_memory(W, t, penalty.start_memory(W))
    results = (V, penalty.value(V), penalty.dual_norm(W), penalty.group_norms(W))
    assert {x.dtype for x in results} == {jnp.dtype(jnp.float32)}
    jax.tree.map(lambda a, b: np.testing.assert_(a.dtype == b.dtype), memory, penalty.start_memory(W))
    assert float(jnp.sum((W - V) * V)) == pytest.approx(0.5 * float(penalty.value(V)), rel=1e-4)
