"""What is run on several devices: functions, their arguments, and which axes of those may be split.

The axes of an argument are a word with one letter per axis: n samples or rows, P cells, other letters stay whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx import (
    Arrangements,
    CopositiveADMM,
    Problem,
    Solution,
    solve,
)
from jaxcvx.features.readout import Readout
from jaxcvx.operators.cells import CellOperator
from jaxcvx.penalties.cones import ConeGroups
from jaxcvx.pricing.faces import face_table, price_exact
from jaxcvx.pricing.multistart import price_multistart
from jaxcvx.pricing.semidefinite import semidefinite_dual_norm
from jaxcvx.proximal.polyhedral_cone import project_cone
from jaxcvx.solvers.copositive.program import CellFacets
from jaxcvx.solvers.neurons.group_lasso import fit_atoms
from jaxcvx.solvers.semi_infinite.neuron_path import empty_start, follow, pace_of
from jaxcvx.solvers.semi_infinite.pool import Pool, fit_pool, pool_objective
from jaxcvx.solvers.semi_infinite.sliding import Settings, move_all
from tests.cases import CASES, D, N, P, distinct_cells, random_data, training


class Case(NamedTuple):
    """A computation and its data.

    Attributes:
      function: pure, of arrays and pytrees.
      args: its arguments, built in the precision of the moment.
      axes: the same pytrees with words for arrays.
    """

    function: Callable[..., Any]
    args: tuple
    axes: tuple


def _cells(Z: np.ndarray, num: int) -> Arrangements:
    return distinct_cells(Z, num, jnp.result_type(float))


def _array(a: Any) -> jax.Array:
    return jnp.asarray(a, jnp.result_type(float))


def _problem_axes(problem: Problem) -> Problem:
    cells = None if problem.arrangements is None else Arrangements("Pn", "Pd")
    return dataclasses.replace(problem, X="nd", Y="nc", beta="", arrangements=cells)


def _report(solution: Solution) -> dict[str, Any]:
    return {
        "params": solution.params,
        "objective": solution.objective,
        "upper_bound": solution.upper_bound,
        "lower_bound": solution.lower_bound,
        "num_steps": solution.num_steps,
        "status": solution.status,
    }


def _solve_case(problem: Problem, axes: Problem, solver: Any, **options: Any) -> Case:
    return Case(lambda problem: _report(solve(problem, solver, **options)), (problem,), (axes,))


def _row(name: str, **changes: Any) -> Callable[[], Case]:
    """A row of tests/cases.py with some settings of its solver changed."""

    def build() -> Case:
        row = CASES[name]
        problem, key = row.make(), None if row.key is None else jax.random.key(row.key)
        return _solve_case(problem, _problem_axes(problem), dataclasses.replace(row.solver, **changes), key=key)

    return build


def _copositive() -> Case:
    problem = CASES["copositive"].prepared()
    axes = dataclasses.replace(
        _problem_axes(problem),
        facets=CellFacets("Pk", "Pk", "Pkp"),
        faces=None if problem.faces is None else jax.tree.map(lambda a: "-" * a.ndim, problem.faces),
    )
    return _solve_case(problem, axes, CopositiveADMM(tol=1e-8, phases="admm", max_steps=100))


def _operator(readout: Readout, c: int = 2) -> Callable[[], Case]:
    def build() -> Case:
        Z, _ = random_data(N * readout.positions, D, 1)
        rng = np.random.default_rng(2)
        W, R = _array(rng.standard_normal((P, D, readout.columns(c)))), _array(rng.standard_normal((N, c)))
        operator = CellOperator(_array(Z), _cells(Z, P).masks, readout=readout)

        def every_map(operator: CellOperator, W: Any, R: Any) -> Any:
            return operator.forward(W), operator.adjoint(R), operator.gram(), operator.cone_margin(W)

        axes = dataclasses.replace(operator, Z="nd", masks="Pn")
        return Case(every_map, (operator, W, R), (axes, "Pdq", "nc"))

    return build


def _project_cone() -> Case:
    Z, _ = random_data(N, D, 1)
    signs = _array(2.0 * np.asarray(_cells(Z, P).masks[0]) - 1)
    return Case(lambda Z, s, t: project_cone(Z, s, t)[0], (_array(Z), signs, _array(-Z[0])), ("nd", "n", "d"))


def _project_cells() -> Case:
    Z, _ = random_data(N, D, 1)
    signs = _array(2.0 * np.asarray(_cells(Z, P).masks) - 1)
    targets = _array(np.random.default_rng(3).standard_normal((P, D, 2)))

    def project(Z, signs, targets):
        cones = ConeGroups(Z, signs)
        return cones.project(targets, cones.start_memory(targets))[0]

    return Case(project, (_array(Z), signs, targets), ("nd", "Pn", "Pdc"))


def _price_exact() -> Case:
    Z, R = random_data(N, D, 2)
    cells = _cells(Z, P)
    table = face_table(_array(Z), cells.masks, cells.gates)
    axes = jax.tree.map(lambda a: "-" * a.ndim, table)
    args = (table, _array(Z), cells.masks, _array(R))
    return Case(lambda *args: price_exact(*args, num=2), args, (axes, "nd", "Pn", "nc"))


def _price_multistart() -> Case:
    Z, R = random_data(N, D, 1)
    starts = _array(np.random.default_rng(4).standard_normal((8, D)))

    def values(Z: Any, R: Any, starts: Any) -> Any:
        return price_multistart(Z, R, starts, num=2, rounds=4, inner_steps=24).values

    return Case(values, (_array(Z), _array(R), starts), ("nd", "nc", "sd"))


def _fit_atoms() -> Case:
    Z, Y = random_data(N, D, 2)
    atoms = np.maximum(Z @ np.random.default_rng(5).standard_normal((D, P)), 0)

    def fit(atoms: Any, Y: Any, beta: Any) -> Any:
        found = fit_atoms(atoms, Y, beta)
        return {"params": found.output, "objective": found.objective}

    return Case(fit, (_array(atoms), _array(Y), _array(1.0)), ("nP", "nc", ""))


def _dual_norm() -> Case:
    Z, R = random_data(8, 2, 1)
    return Case(lambda Z, R: semidefinite_dual_norm(Z, R, max_steps=50), (_array(Z), _array(R)), ("nd", "nc"))


def _pool(function: Callable[[Problem, Pool], Pool]) -> Callable[[], Case]:
    def build() -> Case:
        problem = training(c=2, cells=None)(jnp.result_type(float))
        rng = np.random.default_rng(6)
        directions = rng.standard_normal((P, D))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        pool = Pool(_array(directions), _array(0.1 * rng.standard_normal((P, 2))), _array(np.zeros(2)))
        return Case(function, (problem, pool), (_problem_axes(problem), Pool("--", "--", "-")))

    return build


def _path() -> Case:
    """Two betas of a path with a few short rounds each: pools, objectives and numbers of rounds."""
    problem = training(c=1, cells=None)(jnp.result_type(float))
    sizes = Settings(new_neurons=4, starts=8, ascent_rounds=2, ascent_steps=4, refit_steps=20, move_steps=10)

    def run(problem: Problem) -> Any:
        betas = problem.beta * _array([2.0, 1.0])
        pace = pace_of(problem, sizes, 3e-3)._replace(max_rounds=jnp.asarray(2, jnp.int32))
        keys = jax.random.split(jax.random.key(0), 2)
        path = follow(problem, betas, empty_start(problem, 8, sizes), keys, sizes, pace)
        objectives = jax.vmap(lambda pool, beta: pool_objective(problem.replace(beta=beta), pool))(path.pools, betas)
        return {"params": path.pools, "objective": objectives, "rounds": path.rounds}

    return Case(run, (problem,), (_problem_axes(problem),))


_TIGHT = 1e-8  # so that the float32 in Newton's systems, whose rounding depends on the split, leaves no trace
_FIXED = {"tol": 0.0, "max_steps": 40, "check_every": 20}  # as many steps wherever it runs

OPERATIONS: dict[str, Callable[[], Case]] = {
    "operator-plain": _operator(Readout()),
    "operator-pool": _operator(Readout("pool", 2, 0.5)),
    "operator-flatten": _operator(Readout("flatten", 2)),
    "project_cone": _project_cone,
    "project_cells": _project_cells,
    "price_exact": _price_exact,
}
ITERATIONS: dict[str, Callable[[], Case]] = {
    "price_multistart": _price_multistart,
    "fit_atoms": _fit_atoms,
    "semidefinite_dual_norm": _dual_norm,
    "pool-reweight": _pool(lambda problem, pool: fit_pool(problem, pool, 20)),
    "pool-move": _pool(lambda problem, pool: move_all(problem, pool, 20, jnp.asarray(0.01))),
    "path": _path,
    "gated-accelerated": _row("gated-accelerated", **_FIXED),
    "gated-logistic": _row("gated-logistic", phases="accelerated", **_FIXED),
    "gated": _row("gated", tol=_TIGHT),
    "cone": _row("cone", tol=_TIGHT),
    "cone-admm": _row("cone-admm", **_FIXED),
    "nuclear": _row("nuclear", phases="accelerated", **_FIXED),
    "copositive-admm": _copositive,
    "svd": _row("svd"),
    "adam": _row("adam", **_FIXED),
}
