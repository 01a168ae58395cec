"""A second solve of problems of the same shapes compiles nothing."""

from __future__ import annotations

import pytest

from tests.cases import CASES, compiled_programs, rows


@pytest.mark.parametrize("name", rows())
def test_a_second_solve_compiles_nothing(caplog: pytest.LogCaptureFixture, name: str) -> None:
    case, problem = CASES[name], CASES[name].make()
    case.solve(problem)
    assert compiled_programs(caplog, lambda: case.solve(problem)) == []


@pytest.mark.parametrize("name", rows())
def test_other_data_of_the_same_shapes_compile_no_solver(caplog: pytest.LogCaptureFixture, name: str) -> None:
    """The returned network is cut to its width after the solve, with shapes that depend on the data."""
    case, problem = CASES[name], CASES[name].make()
    case.solve(problem)
    other = case.replaced(problem, 0.999 * case.value(problem))
    programs = compiled_programs(caplog, lambda: case.solve(other))
    assert not {"jit(_run_jitted)", "jit(run_jitted)", "jit(run)"} & set(programs)
    assert len(programs) < 40
