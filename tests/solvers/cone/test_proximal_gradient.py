"""Proximal gradient on the cone program: the optimum that ADMM and Clarabel find, by points that are feasible."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx import ConeADMM, Status, make_problem, solve
from jaxcvx.solvers.cone.proximal_gradient import ConeProximal
from tests.helpers import cone_optimum, gaussian_data
from tests.solvers.gated.test_proximal_gradient import problem_of


def test_optimum_is_clarabels_and_every_point_is_feasible():
    X, Y = gaussian_data(0, 20, 3)
    for fraction in (0.3, 0.02):
        problem = problem_of(X, Y, fraction)
        optimum = cone_optimum(X, problem.arrangements.masks, Y, float(problem.beta))
        seen = []
        solution = solve(problem, ConeProximal(tol=1e-7), callback=lambda info, seen=seen: seen.append(info) or False)
        assert solution.status == Status.CONVERGED and 0 <= solution.program_gap <= 1e-7
        assert solution.objective == pytest.approx(optimum, rel=1e-6)
        assert solution.lower_bound <= optimum * (1 + 1e-7)
        signs = 2 * np.asarray(problem.arrangements.masks) - 1.0
        for info in seen:
            assert info.bound <= optimum * (1 + 1e-7)
            for blocks in info.params:
                slack = signs[:, :, None] * np.einsum("np,qpc->qnc", X, blocks)
                assert slack.min() >= -1e-12 * np.abs(blocks).max()


@pytest.mark.routine(1)
@pytest.mark.parametrize("loss", ["logistic", "huber", "softmax"])
def test_admm_finds_the_same_for_other_losses(loss):
    X, Y = gaussian_data(1, 24, 3)
    Y = {"logistic": np.sign(Y), "huber": Y, "softmax": (Y[:, 0] > 0).astype(int)}[loss]
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 10)
    problem = make_problem(X, Y, 0.5, loss=loss, arrangements=cells)
    auto, admm = (solve(problem, ConeADMM(tol=1e-5, phases=phases)) for phases in ("auto", "admm"))
    assert auto.status == Status.CONVERGED and admm.lower_bound <= auto.upper_bound
    assert auto.objective == pytest.approx(float(admm.objective), rel=3e-5)
    assert auto.num_steps < admm.num_steps


@pytest.mark.routine("1-admm")
@pytest.mark.parametrize("phases", ["auto", "admm"])
@pytest.mark.parametrize("max_steps", [1, 2000])
def test_an_infeasible_start_is_projected_before_it_counts(phases, max_steps):
    """The gated optimum lies below the cone program's: taken as it is, nothing feasible would ever be better."""
    X, Y = gaussian_data(0, 20, 3)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 10)
    problem = make_problem(X, np.sign(Y), 0.5, loss="logistic", arrangements=cells)
    gated = solve(problem, jaxcvx.ProximalGradient(tol=1e-6)).params
    solver = ConeADMM(tol=1e-5, phases=phases, max_steps=max_steps, check_every=1 if max_steps == 1 else 50)
    solution = solve(problem, solver, init=(gated, 0 * gated))
    signs = 2 * np.asarray(cells.masks) - 1.0
    for blocks in solution.params:
        assert (signs[:, :, None] * np.einsum("np,qpc->qnc", X, blocks)).min() >= -1e-12
    assert solution.objective >= solve(problem, ConeADMM(tol=1e-5)).objective * (1 - 1e-5)


def test_many_rows_choose_the_proximal_phase():
    """Newton's systems have a row for each target; the hinge has no gradient."""
    X, Y = gaussian_data(2, 5000, 2)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 4)
    problem = make_problem(X, Y, 30.0, arrangements=cells)
    assert [type(phase) for phase in ConeADMM().run_phases(problem)] == [ConeProximal]
    solution = solve(problem, ConeADMM(tol=1e-4))
    assert solution.status == Status.CONVERGED and solution.program_gap <= 1e-4
    hinge = make_problem(X, np.sign(Y), 30.0, arrangements=cells, loss="hinge")
    assert [type(phase) for phase in ConeADMM().run_phases(hinge)] == [ConeADMM]
