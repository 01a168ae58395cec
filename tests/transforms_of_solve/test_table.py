"""The table of solvers is complete, and every test of this folder runs on all of it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import jaxcvx
from jaxcvx.solvers.core.protocol import AnySolver
from tests.cases import CASES

TRANSFORMS = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py") if path.stem != "test_table")


def public_solvers() -> set[str]:
    """Names of the solver classes that the package exports."""
    classes = {name: getattr(jaxcvx, name) for name in jaxcvx.__all__}
    return {
        name
        for name, cls in classes.items()
        if inspect.isclass(cls) and issubclass(cls, AnySolver) and not inspect.isabstract(cls)
    }


def rows_of(module: ModuleType) -> set[str]:
    """Rows of the table that the tests of a module are parametrised with."""
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in test.pytestmark if mark.name == "parametrize"]
    return {value.values[0] for mark in marks if mark.args[0] == "name" for value in mark.args[1]}


def test_every_public_solver_has_a_routine_row() -> None:
    assert public_solvers() == {type(case.solver).__name__ for case in CASES.values() if case.routine}


def test_every_transform_runs_on_every_row() -> None:
    modules = [importlib.import_module(f"tests.transforms_of_solve.{name}") for name in TRANSFORMS]
    cells = {(name, row) for name, module in zip(TRANSFORMS, modules, strict=True) for row in rows_of(module)}
    assert cells == {(name, row) for name in TRANSFORMS for row in CASES}
    routine = sum(CASES[row].routine for _, row in cells)
    print(f"{len(CASES)} rows x {len(TRANSFORMS)} transforms = {len(cells)} cells, {routine} of them by default")
    assert len(cells) >= 20 * 9
