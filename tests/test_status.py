"""Statuses and what callbacks are told: numbers that stay, advice, pickles of earlier modules."""

from __future__ import annotations

import pickle

import jax
import numpy as np

import jaxcvx
from jaxcvx.solvers.core.solution import Status as StatusOfOldPickles
from jaxcvx.solvers.core.solution import StepInfo as StepInfoOfOldPickles
from jaxcvx.status import Status, StepInfo


def test_every_status_has_advice_of_its_own():
    advice = [status.advice for status in Status]
    assert len(set(advice)) == len(Status) and all(text.endswith(".") for text in advice)
    assert "max_steps" in Status.MAX_STEPS.advice


def test_numbers_of_statuses_stay_since_files_hold_them():
    names = "RUNNING CONVERGED MAX_STEPS DIVERGED INFEASIBLE INVALID_INPUT STOPPED".split()
    assert [(status.name, int(status)) for status in Status] == [(name, k) for k, name in enumerate(names)]


def test_old_modules_and_the_facade_name_the_same_classes():
    assert StatusOfOldPickles is Status is jaxcvx.Status and StepInfoOfOldPickles is StepInfo is jaxcvx.StepInfo
    old = pickle.dumps(Status.STOPPED, protocol=0).replace(b"jaxcvx.status", b"jaxcvx.solvers.core.solution")
    assert b"solvers.core" in old and pickle.loads(old) is Status.STOPPED


def test_callbacks_of_solvers_and_of_searches_get_the_same_kind_of_record():
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20.0)
    seen: list[StepInfo] = []
    problem = jaxcvx.make_problem(X, y, 0.5)
    descent = jaxcvx.GradientDescent(width=4, max_steps=20, check_every=10)
    network = jaxcvx.solve(problem, descent, key=jax.random.key(0), callback=seen.append).network
    jaxcvx.certify(network, X, y, 0.5, method="branch", tol=1e-3, callback=seen.append)
    assert {info.solver for info in seen} == {"GradientDescent", "certify"}
    for info in seen:
        assert isinstance(info, StepInfo) and 0 <= info.step <= info.max_steps
        assert all(isinstance(number, float) for number in (info.objective, info.bound, info.residual))
