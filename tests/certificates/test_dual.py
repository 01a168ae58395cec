"""Dual norms against brute force, and bounds that stay below the optimum for every residual."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from jaxcvx import Dense, Network, enumerate_arrangements, make_problem
from jaxcvx.certificates import dual
from jaxcvx.losses.entrywise import LOSSES
from tests.helpers import distinct_cells, gated_optimum, gaussian_data, neurons_in_the_plane, targets_for

seeds = st.integers(0, 10**6)
gated_norm = jax.jit(dual.gated_dual_norm)
cone_norm = jax.jit(dual.cone_dual_norm, static_argnames="grouping")
relaxed_norm = jax.jit(dual.relaxed_dual_norm)
free_norm = jax.jit(dual.all_networks_dual_norm)
atom_norm = jax.jit(dual.atom_dual_norm)
scaled_bound = jax.jit(dual.scaled_bound)


def in_cone(rows: np.ndarray, signs: np.ndarray, target: np.ndarray) -> float:
    """Largest ``target @ u`` over unit u (or 0) with ``signs * (rows @ u) >= 0``, by NNLS on the polar."""
    A = signs[:, None] * rows
    multipliers, _ = nnls(A.T, -target, maxiter=1000)
    return float(np.linalg.norm(target + A.T @ multipliers))


def brute_force(Z: np.ndarray, R: np.ndarray) -> float:
    """``max_u ||R^T (Z u)_+||`` over many unit u in the plane: a bound from below, tight to 1e-7 or so."""
    return float(np.linalg.norm(R.T @ neurons_in_the_plane(Z), axis=0).max())


def plane(seed: int, n: int = 7, c: int = 1, features: Dense = Dense()):
    """All cells of points in the plane (14 of them in general position), and a random residual."""
    X, R = gaussian_data(seed, n, 2, c)
    problem = make_problem(X, R, 0.1, arrangements=enumerate_arrangements(X), features=features)
    return problem, X, jnp.asarray(R)


@settings(max_examples=25)
@given(seeds)
def test_cone_norm_of_one_output_is_the_maximum_over_neurons(seed):
    problem, X, R = plane(seed)
    exact = float(cone_norm(problem.operator, R))
    grid = brute_force(X, np.asarray(R))
    assert grid <= exact * (1 + 1e-12)
    assert exact == pytest.approx(grid, rel=1e-6)
    assert float(relaxed_norm(problem.operator, R)) == pytest.approx(exact, rel=1e-13)


@settings(max_examples=15)
@given(seeds)
def test_norm_over_many_cells_is_the_largest_norm_of_a_cell(seed):
    # 100 cells: more than one chunk of the pruned search.
    X, R = gaussian_data(seed, 12, 3, 2)
    cells = distinct_cells(seed, X, 100)
    operator = make_problem(X, R, 0.1, arrangements=cells).operator
    masks = np.asarray(cells.masks, float)
    G = np.einsum("qn,np,nc->qpc", masks, X, R)
    sides = np.array(
        [
            [[in_cone(X, 2 * mask - 1, sign * g) for g in block.T] for sign in (1, -1)]
            for mask, block in zip(masks, G, strict=True)
        ]
    )  # (cells, signs, outputs)
    assert float(gated_norm(operator, R)) == pytest.approx(np.sqrt((G**2).sum((1, 2))).max(), rel=1e-13)
    assert float(cone_norm(operator, R, "per-output")) == pytest.approx(sides.max(), rel=1e-9)
    assert float(cone_norm(operator, R, "shared")) == pytest.approx(np.linalg.norm(sides, axis=2).max(), rel=1e-9)
    decoupled = np.linalg.norm(sides.max(axis=1), axis=1)
    spectral = np.linalg.norm(G, ord=2, axis=(1, 2))
    assert float(relaxed_norm(operator, R)) == pytest.approx(np.minimum(decoupled, spectral).max(), rel=1e-9)


@pytest.mark.routine(2)
@pytest.mark.parametrize("c", [1, 2])
@pytest.mark.parametrize("grouping", ["shared", "per-output"])
def test_search_gives_the_same_norm_from_every_start(c, grouping):
    search = jax.jit(dual.search_cones, static_argnames="grouping")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, R = gaussian_data(seed, 25, 5, c)  # thin cones, most of them cut short
        operator = make_problem(X, R, 0.1, arrangements=distinct_cells(seed, X, 50)).operator
        G = np.einsum("qn,np,nc->qpc", np.asarray(operator.masks, float), X, R)
        sides = np.array(
            [
                [[in_cone(X, 2 * mask - 1, sign * g) for g in block.T] for sign in (1, -1)]
                for mask, block in zip(np.asarray(operator.masks, float), G, strict=True)
            ]
        )
        exact = sides.max() if grouping == "per-output" else np.linalg.norm(sides, axis=2).max()
        cold = search(operator, jnp.asarray(R), grouping)
        near = search(operator, jnp.asarray(R + 1e-3 * rng.standard_normal(R.shape)), grouping)
        far = search(operator, jnp.asarray(rng.standard_normal(R.shape)), grouping)
        first = jnp.asarray(rng.random(50) < 0.1)
        for found in (
            cold,
            search(operator, jnp.asarray(R), grouping, first=first),
            *(search(operator, jnp.asarray(R), grouping, rows=other.rows) for other in (cold, near, far)),
        ):
            assert float(found.norm) == pytest.approx(exact, rel=1e-9) and float(found.norm) >= exact * (1 - 1e-13)


def test_search_ends_only_when_no_remaining_cell_can_win():
    """The preferred cells fill two chunks, the second of which has small values only. The best cell comes last."""
    bounds, truth = np.linspace(2.0, 9.0, 60), np.full(60, 0.1)
    truth[[3, 40, 0]] = 1.5, 3.0, 2.0
    first = np.zeros(60, bool)
    first[[3, *range(4, 35)]] = True
    bounds[4:35], bounds[0] = 1.0, 3.5

    def exact(index, best, seen):
        return jnp.asarray(truth)[index], seen.at[index].set(True)

    best, seen = dual._max_over_cells(jnp.asarray(bounds), exact, jnp.zeros(60, bool), jnp.asarray(first))
    assert float(best) == 3.0
    assert np.all(seen | (bounds <= 3.0))
    alone, _ = dual._max_over_cells(jnp.asarray(bounds), exact, jnp.zeros(60, bool))
    assert float(alone) == 3.0


@pytest.mark.float32
def test_lengths_are_rounded_up():
    """The point is a sum of large terms that cancel, in float32; the reference is the same sum in float64."""
    below = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        Z = (rng.standard_normal((60, 6)) * [1, 1, 1, 1, 1, 1e-2]).astype(np.float32)
        signs = np.where(Z @ rng.standard_normal(6) >= 0, 1, -1).astype(np.float32)
        target = rng.standard_normal(6).astype(np.float32)
        point, rows = jax.jit(dual.project_cone)(Z, signs, target)
        index, value = np.asarray(rows.index), np.where(rows.used, rows.value, 0).astype(float)
        normals = signs[index, None] * Z[index].astype(float)
        true = np.linalg.norm(target.astype(float) + (normals / np.linalg.norm(normals, axis=1)[:, None]).T @ value)
        batch = jax.tree.map(lambda a: a[None], rows)
        assert float(dual._lengths(point[:, None], jnp.asarray(target)[:, None], batch)[0]) >= true
        below += float(jnp.linalg.norm(point)) < true
    assert below > 5  # without the allowance the length is often too short


def test_norms_of_nan_residuals_are_nan():
    X, R = gaussian_data(0, 12, 3, 1)
    operator = make_problem(X, R, 0.1, arrangements=distinct_cells(0, X, 40)).operator
    for broken in (np.nan, np.inf):
        spoilt = jnp.asarray(R).at[3].set(broken)
        assert np.isnan(cone_norm(operator, spoilt)) or np.isinf(cone_norm(operator, spoilt))


@settings(max_examples=25)
@given(seeds)
def test_relaxed_norms_are_never_too_small(seed):
    for c in (1, 3):
        problem, X, R = plane(seed, c=c)
        true = brute_force(X, np.asarray(R))
        relaxed = float(relaxed_norm(problem.operator, R))
        without_cells = float(free_norm(problem.replace(arrangements=None), R))
        assert true <= relaxed * (1 + 1e-12) <= without_cells * (1 + 1e-9)
        assert without_cells <= np.linalg.norm(X, 2) * np.linalg.norm(np.asarray(R))  # no cruder than Cauchy-Schwarz
        assert relaxed <= float(gated_norm(problem.operator, R)) * (1 + 1e-10)


@settings(max_examples=25)
@given(seeds)
def test_norm_of_the_networks_own_neurons(seed):
    problem, X, R = plane(seed, c=3)
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((6, 2)) * 10.0 ** rng.uniform(-3, 3, (6, 1))
    hidden[1] = 0
    own = float(atom_norm(Network(jnp.asarray(hidden), jnp.ones((6, 3))), problem, R))
    values = np.linalg.norm(np.maximum(X @ hidden.T, 0).T @ R, axis=1)
    sizes = np.linalg.norm(hidden, axis=1)
    assert own == pytest.approx(np.max(values[sizes > 0] / sizes[sizes > 0]), rel=1e-12)
    assert own <= float(relaxed_norm(problem.operator, R)) * (1 + 1e-12)


def test_a_skip_connection_enters_every_norm():
    problem, X, R = plane(0, c=2, features=Dense(skip=True))
    R = R + 10 * jnp.sign(jnp.asarray(X)[:, :1])  # so that Z^T R is large
    skip = np.linalg.norm(X.T @ R)
    network = Network(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((2, 2)), Dense(skip=True))
    norms = [cone_norm(problem.operator, R, "shared"), relaxed_norm(problem.operator, R)]
    norms += [gated_norm(problem.operator, R), free_norm(problem.replace(arrangements=None), R)]
    norms.append(atom_norm(network, problem, R))
    assert all(float(norm) >= skip * (1 - 1e-12) for norm in norms)
    columns = np.linalg.norm(X.T @ R, axis=0).max()
    assert float(cone_norm(problem.operator, R, "per-output")) >= columns * (1 - 1e-12)
    assert float(dual.skip_dual_norm(problem.operator, R)) == pytest.approx(skip, rel=1e-12)
    assert float(dual.skip_dual_norm(plane(0)[0].operator, R)) == 0


OPTIMA: dict[str, tuple] = {}


def gated_case(loss: str):
    """A small gated problem of this loss and its optimum by Clarabel."""
    if loss not in OPTIMA:
        X, raw = gaussian_data(5, 10, 2, 3 if loss == "softmax" else 1)
        Y = targets_for(loss, raw)
        cells = distinct_cells(0, X, 8)
        problem = make_problem(X, Y, 0.3, loss=loss, arrangements=cells)
        OPTIMA[loss] = problem, gated_optimum(X, cells.masks, Y, 0.3, loss=loss)
    return OPTIMA[loss]


@pytest.mark.routine(2)
@pytest.mark.parametrize("loss", sorted(LOSSES))
@settings(max_examples=40)
@given(seed=seeds, log_size=st.floats(-3, 3))
def test_scaled_bounds_never_exceed_the_optimum(loss, seed, log_size):
    problem, optimum = gated_case(loss)
    rng = np.random.default_rng(seed)
    F = jnp.asarray(10.0**log_size * rng.standard_normal(problem.Y.shape))
    for R in problem.loss.dual_candidates(F, problem.Y):
        bound = float(scaled_bound(problem, R, gated_norm(problem.operator, R)))
        assert 0 <= bound <= optimum * (1 + 1e-8)
    R = problem.loss.project_dual(F, problem.Y)  # a residual that is not of a gradient
    assert 0 <= float(scaled_bound(problem, R, gated_norm(problem.operator, R))) <= optimum * (1 + 1e-8)


def test_scaled_bound_of_the_squared_loss_is_the_formula():
    problem, X, R = plane(3)
    rng = np.random.default_rng(0)
    for size in (0.01, 1.0, 100.0):
        R = size * rng.standard_normal((7, 1))
        for sign in (1, -1):  # <R, Y> of both signs
            norm = float(cone_norm(problem.operator, jnp.asarray(sign * R)))
            Y = np.asarray(problem.Y)
            s = np.clip(np.sum(sign * R * Y) / np.sum(R**2), -0.1 / norm, 0.1 / norm)
            expected = s * np.sum(sign * R * Y) - 0.5 * s**2 * np.sum(R**2)
            found = float(scaled_bound(problem, jnp.asarray(sign * R), norm))
            assert found == pytest.approx(expected, rel=1e-12) and found > 0


def test_degenerate_bounds():
    problem, X, R = plane(3)
    assert float(scaled_bound(problem, 0 * R, 0.0)) == 0
    assert float(scaled_bound(problem.replace(beta=0.0), R, gated_norm(problem.operator, R))) == 0
    assert float(scaled_bound(problem, problem.Y, 0.0)) == pytest.approx(0.5 * float(jnp.sum(problem.Y**2)))


@pytest.mark.float32
def test_bounds_are_rounded_down_in_float32():
    problem, optimum = gated_case("squared")
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype != bool else a, problem)
    rng = np.random.default_rng(0)
    for _ in range(20):
        R = jnp.asarray(rng.standard_normal((10, 1)) + 0.3 * np.asarray(problem.Y), jnp.float32)
        bound = scaled_bound(single, R, gated_norm(single.operator, R))
        assert bound.dtype == jnp.float32 and float(bound) <= optimum


@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_bound_from_residuals_is_the_best_that_holds_for_the_network_too(loss):
    problem, _ = gated_case(loss)
    rng = np.random.default_rng(0)
    network = Network(jnp.asarray(rng.standard_normal((3, 2))), jnp.asarray(rng.standard_normal((3, 1))))
    F = network(problem.X)
    residuals = dual.dual_residuals(problem, F, jnp.asarray(rng.standard_normal(problem.Y.shape)))
    assert len(residuals) == 2 and len(dual.dual_residuals(problem, F)) == 1
    np.testing.assert_array_equal(residuals[0], -problem.loss.grad(F, problem.Y))
    for norms in ([0.0, 0.0], [gated_norm(problem.operator, R) for R in residuals]):  # 0: the network's neurons decide
        separate = [
            float(dual.proved_bound(problem, R, jnp.maximum(norm, atom_norm(network, problem, R))))
            for R, norm in zip(residuals, norms, strict=True)
        ]
        together = float(dual.bound_from_residuals(problem, network, residuals, norms))
        assert together == pytest.approx(max(separate), rel=1e-14)
