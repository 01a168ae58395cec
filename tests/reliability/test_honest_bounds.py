"""Bounds are bounds whatever the rounding, and whatever weights, residuals or cells they are computed from."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
from jaxcvx import (
    Arrangements,
    ConeADMM,
    Network,
    NuclearProximalGradient,
    ProximalGradient,
    certify,
    enumerate_arrangements,
    make_problem,
    solve,
)
from jaxcvx.certificates.dual import cone_dual_norm, proved_bound, relaxed_dual_norm
from jaxcvx.solvers.core.solution import Outcome
from tests.helpers import cone_optimum, gated_optimum, relaxed_optimum, targets_for
from tests.reliability.inputs import Counts, objective

CLARABEL = 1e-7  # what an optimum of Clarabel may be off by, of the zero network's objective


@dataclasses.dataclass(frozen=True)
class Known:
    """A small problem with all of its cells, and its optima by Clarabel."""

    problem: Any
    X: np.ndarray
    Y: np.ndarray
    beta: float
    loss: str
    optimum: float
    gated: float

    @property
    def allowance(self) -> float:
        return CLARABEL * (float((self.Y**2).sum()) / 2 + 1)


@functools.cache
def known(seed: int, c: int = 1, loss: str = "squared", dtype: Any = np.float64) -> Known:
    """Six points in the plane (12 cells); for two outputs the relaxation is exact there."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((6, 2)).astype(dtype)
    Y = targets_for(loss, rng.standard_normal((6, c))).astype(dtype)
    beta = float(dtype((0.3, 0.05, 1e-3)[seed % 3]))
    cells = enumerate_arrangements(X)
    assert cells.complete and len(cells) == 12
    problem = make_problem(X, Y, beta, loss=loss, arrangements=cells)
    wide = X.astype(float), cells.masks, Y.astype(float), beta
    optimum = cone_optimum(*wide, loss=loss) if c == 1 else relaxed_optimum(*wide)
    return Known(problem, wide[0], wide[2], beta, loss, optimum, gated_optimum(*wide, loss=loss))


@pytest.mark.routine(1)
@pytest.mark.float32
@pytest.mark.parametrize(
    "solver",
    [
        ProximalGradient(tol=1e-7),
        NuclearProximalGradient(),
        pytest.param(ConeADMM(tol=1e-7), marks=pytest.mark.soak),
    ],
)
def test_float32_solutions_under_jit_against_clarabel_and_float64(solver):
    run = jax.jit(lambda problem: solve(problem, solver))
    checked, several = 0, 2 if isinstance(solver, NuclearProximalGradient) else 1
    for seed in range(6):
        case = known(seed, several, dtype=np.float32)
        traced, host = run(case.problem), solve(case.problem, solver)
        assert traced.lower_bound.dtype == jnp.float32 and host.lower_bound.dtype == np.float64
        limit = case.gated if isinstance(solver, ProximalGradient) else case.optimum
        for solution in (traced, host):
            assert float(solution.lower_bound) <= limit + case.allowance
            assert float(solution.upper_bound) >= case.optimum * (1 - 1e-6) - case.allowance
            checked += 1
        assert float(traced.lower_bound) <= float(host.lower_bound) * (1 + 1e-4)
        certificate = certify(host.network, case.problem.X, case.problem.Y, case.beta)
        assert certificate.precision == "float64" and certificate.lower.dtype == np.float64
        assert certificate.lower <= case.optimum + case.allowance
    print(f"{type(solver).__name__}: {checked} bounds of solutions checked")


# What can go wrong with an array of weights or a dual point.
CORRUPTIONS = (
    *("noise", "scale", "sign", "zero row", "swap", "one entry", "huge", "tiny", "shift", "random"),
    *("nan", "inf", "-inf"),
)


def corrupted(rng: np.random.Generator, A: np.ndarray, kind: str) -> np.ndarray:
    """A copy of A with one thing wrong."""
    A = np.array(A)
    at = tuple(int(rng.integers(k)) for k in A.shape)
    if kind == "noise":
        A = A + 10.0 ** rng.uniform(-12, 1) * rng.standard_normal(A.shape)
    elif kind == "scale":
        A = A * 10.0 ** rng.uniform(-4, 4)
    elif kind == "sign":
        A = A * rng.choice([-1.0, 1.0], A.shape)
    elif kind == "zero row":
        A[at[0]] = 0.0
    elif kind == "swap":
        A = rng.permutation(A)
    elif kind == "one entry":
        A[at] = A[at] * 3 + 1
    elif kind in ("huge", "tiny"):
        A = A * (1e25 if kind == "huge" else 1e-25)
    elif kind == "shift":
        A = A + rng.standard_normal()
    elif kind == "random":
        A = rng.standard_normal(A.shape)
    else:
        A[at] = float(kind)
    return A


@functools.partial(jax.jit, static_argnames="solver")
def evaluate(problem: Any, solver: Any, params: Any, dual: Any) -> tuple[Any, Any]:
    """Bounds as ``solve`` under jit reports them, of many params and dual points at once."""
    from jaxcvx.solvers.core.report import _numbers

    def one(params, dual):
        numbers = _numbers(problem, solver.evaluate(problem, Outcome(params, dual)))
        return numbers.lower_bound, numbers.upper_bound

    return jax.vmap(one)(params, dual)


def corrupt_solutions(many: int, cases: list[Known], *solvers: tuple[Any, ...]) -> int:
    """Lower bounds from corrupted params and dual points stay below the optimum; upper ones above.

    The solvers are those for each case, or the same for all.
    """
    checked = 0
    for number, case in enumerate(cases):
        for solver in solvers[number % len(solvers)]:
            found = solve(case.problem, solver)
            rng = np.random.default_rng(number)
            R = np.asarray(-case.problem.loss.grad(found.network(case.problem.X), case.problem.Y))
            rows = []
            for k in range(many):
                kind = CORRUPTIONS[k % len(CORRUPTIONS)]
                bad = jax.tree.map(lambda a: corrupted(rng, a, kind if k % 3 else "noise"), found.params)  # noqa: B023
                rows.append((bad, corrupted(rng, R, kind if k % 3 != 1 else "scale")))
            dtype = case.problem.X.dtype
            stacked = jax.tree.map(lambda *a: jnp.asarray(np.stack(a), dtype), *rows)  # noqa: B023
            lower, upper = (np.asarray(a, float) for a in evaluate(case.problem, solver, *stacked))
            limit = case.gated if isinstance(solver, ProximalGradient) else case.optimum
            assert not np.isnan(lower).any() and not np.isnan(upper).any()
            assert (lower <= limit + case.allowance).all(), (solver, (lower - limit).max())
            resolution = 1e-9 if dtype == jnp.float64 else 1e-5
            assert (upper >= case.optimum * (1 - resolution) - case.allowance).all()
            assert (lower <= upper).all()
            checked += many
    return checked


GATED = (ProximalGradient(), NuclearProximalGradient())


def test_corrupted_solutions():
    checked = corrupt_solutions(260, [known(0), known(1, 2)], GATED[:1], GATED[1:])
    print(f"{checked} corrupted solutions: no bound on the wrong side")


@pytest.mark.long
@pytest.mark.float32
def test_corrupted_solutions_in_float32():
    checked = corrupt_solutions(520, [known(1, 2, "squared", np.float32)], GATED[:1])
    print(f"{checked} corrupted solutions in float32: no bound on the wrong side")


@pytest.mark.soak
def test_many_corrupted_solutions():
    cases = [known(seed, c) for seed in range(3) for c in (1, 2)]
    checked = corrupt_solutions(1300, cases, (*GATED, ConeADMM()))
    checked += corrupt_solutions(1300, [known(2, 1, "logistic")], (ProximalGradient(), ConeADMM()))
    print(f"{checked} corrupted solutions: no bound on the wrong side")


WIDTH = 6


def corrupted_cells(rng: np.random.Generator, cells: Arrangements) -> Arrangements:
    """Cells flipped, dropped, doubled or scaled, of two shapes; never said to be complete, but where they are."""
    masks, gates = np.array(cells.masks), np.array(cells.gates)
    kind = rng.integers(6)
    if kind == 0:
        return cells
    if kind == 1:
        keep = rng.permutation(12)[:8][np.arange(16) % 8]
        return Arrangements(jnp.asarray(masks[keep]), jnp.asarray(gates[keep]))
    if kind == 2:
        again = np.append(np.arange(12), rng.integers(12, size=4))
        return Arrangements(jnp.asarray(masks[again]), jnp.asarray(gates[again]), True)
    if kind == 3:
        masks[rng.integers(12), rng.integers(6)] ^= True
        return Arrangements(jnp.asarray(masks), jnp.asarray(gates))
    if kind == 4:
        scales = 10.0 ** rng.uniform(-6, 6, (12, 1))
        return Arrangements(jnp.asarray(masks), jnp.asarray(gates * scales), True)
    order = rng.permutation(12)
    return Arrangements(jnp.asarray(masks[order]), jnp.asarray(gates[order]), True)


def corrupt_networks(many: int, cases: list[Known], every: int) -> None:
    """Certificates of corrupted networks over corrupted cells. Optima over sampled cells for one in ``every``."""
    counts = Counts()
    for number, case in enumerate(cases):
        rng = np.random.default_rng(number)
        cells, c = case.problem.arrangements, case.Y.shape[1]
        best = solve(case.problem, ConeADMM() if c == 1 else jaxcvx.ColumnGeneration()).network
        start = np.zeros((WIDTH, 2)), np.zeros((WIDTH, c))
        for array, weights in zip(start, (best.hidden, best.output), strict=True):
            array[: min(WIDTH, len(weights))] = np.asarray(weights)[:WIDTH]
        for k in range(many):
            kind = CORRUPTIONS[k % len(CORRUPTIONS)]
            which = rng.integers(3)
            hidden = corrupted(rng, start[0], kind) if which != 1 else start[0]
            output = corrupted(rng, start[1], kind) if which != 0 else start[1]
            network = Network(jnp.asarray(hidden), jnp.asarray(output))
            own = corrupted_cells(rng, cells) if k % 5 else None
            method = ("auto", "exact", "auto", "relaxed")[k % 4] if own is None else ("auto", "exact")[k % 2]
            found = counts.call(certify, network, case.X, case.Y, case.beta, arrangements=own, method=method)
            if found is None:
                assert kind in ("nan", "inf", "-inf"), kind
                continue
            assert kind not in ("nan", "inf", "-inf")
            counts[found.scope] += 1
            hidden, output = (np.asarray(a, np.longdouble) for a in (hidden, output))
            sizes = [np.sqrt((a**2).sum(axis=1)) for a in (hidden, output)]
            F = np.maximum(case.X @ hidden.T, 0) @ output
            loss = ((F - case.Y) ** 2).sum() / 2
            balanced = float(loss + case.beta * (sizes[0] * sizes[1]).sum())
            upper = float(loss + case.beta * sum((a**2).sum() for a in sizes) / 2)
            assert float(found.balanced) == pytest.approx(balanced, rel=1e-9)
            assert float(found.upper) == pytest.approx(upper, rel=1e-9)
            assert float(found.balanced) >= case.optimum * (1 - 1e-9) - case.allowance
            assert found.lower <= found.balanced <= found.upper * (1 + 1e-9)
            if found.scope in ("global", "relaxation"):
                assert float(found.lower) <= case.optimum + case.allowance, (k, kind, method)
            elif own is not None and k % every == 1 and c == 1:
                limit = cone_optimum(case.X, own.masks, case.Y, case.beta)
                assert float(found.lower) <= limit + case.allowance, (k, kind, method)
                counts["optima over sampled cells"] += 1
    counts.report("corrupted networks and cells given to certify")


def test_corrupted_networks_and_cells():
    corrupt_networks(160, [known(0), known(1, 2)], 5)


@pytest.mark.soak
def test_many_corrupted_networks_and_cells():
    corrupt_networks(1500, [known(s, c) for s in (0, 1, 2) for c in (1, 2)], 20)


def test_upper_bounds_are_objectives_in_extended_precision():
    case = known(0)
    solution = solve(case.problem, ProximalGradient())
    exact = objective(solution.network, case.X, case.Y, case.beta)
    assert float(solution.upper_bound) == pytest.approx(exact, rel=1e-13)


def norms_of_cells(problem: Any, R: Any) -> tuple[Any, Any]:
    operator = problem.operator.carefully()
    return cone_dual_norm(operator, R), relaxed_dual_norm(operator, R)


@pytest.mark.float32
def test_dual_norms_over_cones_in_float32_are_no_less_than_neurons_prices():
    """Thin cones: the multipliers of a projection cancel, and its length is not right to a few units of rounding."""
    checked, norms = 0, jax.jit(norms_of_cells)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((6, 2))
        X[1] = X[0] + 10.0 ** -rng.uniform(1, 5) * rng.standard_normal(2)
        X = X.astype(np.float32)
        with jax.enable_x64(True):
            gates = np.asarray(enumerate_arrangements(X.astype(float)).gates)
        masks = gates @ X.T.astype(float) >= 0
        masks, gates = (np.concatenate([a, a[:1].repeat(12 - len(a), 0)]) for a in (masks, gates))
        cells = Arrangements(jnp.asarray(masks), jnp.asarray(gates, jnp.float32), True)
        R = rng.standard_normal((6, 1)).astype(np.float32)
        problem = make_problem(X, R, 0.1, arrangements=cells)
        kinks = np.stack([-X[:, 1], X[:, 0]], axis=1).astype(float)
        tops = np.stack([(mask[:, None] * X * R).sum(axis=0) for mask in masks])
        U = np.concatenate([kinks, -kinks, tops, -tops])
        U = U[np.any(U != 0, axis=1)]
        U /= np.linalg.norm(U, axis=1, keepdims=True)
        price = np.abs(R[:, 0].astype(float) @ np.maximum(X.astype(float) @ U.T, 0)).max()
        value = proved_bound(problem, jnp.asarray(R), norms(problem, jnp.asarray(R))[0])
        scale = min(0.1 / price, 1.0)
        truth = float((R.astype(float) ** 2).sum()) * (scale - scale**2 / 2)
        assert float(value) <= truth * (1 + 1e-9), seed
        checked += 1
    print(f"{checked} bounds over thin cones checked")


def test_certificates_name_their_precision_and_older_files_load(tmp_path):
    from jaxcvx.serialisation import _pack, _unpack

    found = certify(Network(np.eye(2), np.ones((2, 1))), np.eye(2, dtype=np.float32), np.ones(2), 0.1)
    assert found.precision == "float64"
    jaxcvx.save(tmp_path / "certificate", found)
    assert jaxcvx.load(tmp_path / "certificate").precision == "float64"
    arrays: dict[str, Any] = {}
    node = _pack(found, "certificate", arrays, 0)
    for field in ("precision", "balanced"):  # as files were before there were these fields
        removed = node["fields"].pop(field)
        arrays.pop(removed.get("key"), None)
    assert _unpack(node, arrays, 0).lower == found.lower
    fields = (found.upper, found.lower, found.gap, found.heuristic_bound)
    assert jaxcvx.Certificate(*fields, "global").precision == "float64"
