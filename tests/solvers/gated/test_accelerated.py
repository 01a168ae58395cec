"""GatedGradient with penalties of its user: the program's optimum, and a bound that holds for every network."""

from __future__ import annotations

import dataclasses

import cvxpy as cp
import numpy as np
import pytest

from jaxcvx import ConeADMM, Status, make_problem, solve
from jaxcvx.penalties.groups import ColumnGroups
from jaxcvx.solvers.gated.accelerated import GatedGradient
from tests.helpers import distinct_cells, gaussian_data
from tests.penalties.test_contract import AbsoluteValues

N, D, C, P = 12, 3, 2, 6


@dataclasses.dataclass(frozen=True)
class ColumnGradient(GatedGradient):
    def penalty(self, problem):
        return ColumnGroups()


@dataclasses.dataclass(frozen=True)
class LassoGradient(GatedGradient):
    def penalty(self, problem):
        return AbsoluteValues()


@pytest.mark.routine("solver0-accelerated")
@pytest.mark.parametrize("phases", ["auto", "accelerated"])
@pytest.mark.parametrize("solver", [ColumnGradient(tol=1e-8), LassoGradient(tol=1e-8)])
def test_the_optimum_and_a_bound_on_training(solver, phases):
    """A neuron costs more than its norms here, so the program's dual value bounds no network."""
    X, Y = gaussian_data(0, N, D, C)
    problem = make_problem(X, Y, 0.5, arrangements=distinct_cells(0, X, P))
    solution = solve(problem, dataclasses.replace(solver, phases=phases))
    blocks = [cp.Variable((D, C)) for _ in range(P)]
    F = sum((mask[:, None] * X) @ B for mask, B in zip(np.asarray(problem.arrangements.masks), blocks, strict=True))
    lasso = isinstance(solver, LassoGradient)
    values = [cp.sum(cp.abs(B)) if lasso else cp.sum(cp.norm(B, 2, axis=0)) for B in blocks]
    program = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(F - Y) + 0.5 * sum(values)))
    program.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10)
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-8
    assert float(solution.objective) == pytest.approx(program.value, rel=1e-7)
    network = solve(problem, ConeADMM(grouping="per-output"))
    assert solution.lower_bound <= network.upper_bound and solution.lower_bound < solution.objective * (1 - 1e-4)
