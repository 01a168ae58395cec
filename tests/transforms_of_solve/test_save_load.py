"""Solutions come back from a file as they were; solvers are equal to their copies, and most can be pickled."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import chex
import jax
import pytest

import jaxcvx
from tests.cases import CASES, rows, solved


@pytest.mark.parametrize("name", rows())
def test_solution_is_loaded_as_it_was_saved(tmp_path: Path, name: str) -> None:
    solution = solved(name)
    jaxcvx.save(tmp_path / "solution.npz", solution)
    loaded = jaxcvx.load(tmp_path / "solution.npz")
    assert jax.tree.structure(loaded) == jax.tree.structure(solution)
    chex.assert_trees_all_equal(loaded, solution)
    chex.assert_trees_all_equal_dtypes(loaded, solution)


@pytest.mark.parametrize("name", rows())
def test_solver_equals_its_copies(name: str) -> None:
    """Solvers are static arguments of compiled functions: equal ones must be equal and have the same hash."""
    solver = CASES[name].solver
    copies = [dataclasses.replace(solver), copy.deepcopy(solver)]
    if name != "momentum":  # optax's transformations are made of local functions
        copies.append(pickle.loads(pickle.dumps(solver)))
    assert all(each == solver and hash(each) == hash(solver) for each in copies)
    assert dataclasses.replace(solver, max_steps=solver.max_steps + 1) != solver
