"""Declared requirements: what lacks one is refused by name, and every solver's declaration is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxcvx
from jaxcvx.errors import InvalidInputError
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.requirements import REQUIREMENTS, refuse_unmet, unmet
from tests.helpers import distinct_cells, gaussian_data

SOLVERS = [
    value
    for name in jaxcvx.__all__
    if isinstance(value := getattr(jaxcvx, name), type) and issubclass(value, AnySolver)
]


def whole_problem(**changes):
    """A problem that meets every requirement."""
    X, Y = gaussian_data(0, 12, 3)
    options = {"beta": 0.5, "arrangements": distinct_cells(0, X, 4)} | changes
    return jaxcvx.make_problem(X, np.sign(Y), options.pop("beta"), **options)


LACKING = {
    "cells": lambda: whole_problem(arrangements=None),
    "smooth loss": lambda: whole_problem(loss="hinge"),
    "squared loss": lambda: whole_problem(loss="logistic"),
    "no skip": lambda: whole_problem(features=jaxcvx.Dense(skip=True)),
    "no free bias": lambda: whole_problem(features=jaxcvx.Dense(output_bias=True)),
    "no free hidden bias": lambda: whole_problem(features=jaxcvx.FreeBias(), arrangements=None),
    "positive beta": lambda: whole_problem(beta=0.0),
    "no sample weights": lambda: whole_problem(sample_weight=np.ones(12)),
}


def test_a_problem_that_lacks_nothing_is_taken():
    assert unmet(whole_problem(), REQUIREMENTS) == []
    refuse_unmet(whole_problem(), REQUIREMENTS, "Mine")


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_lacking_problem_is_refused_by_argument_value_and_solver(name):
    problem, requirement = LACKING[name](), REQUIREMENTS[name]
    assert name in unmet(problem, REQUIREMENTS)
    with pytest.raises(InvalidInputError) as caught:
        refuse_unmet(problem, {name}, "Mine")
    words = str(caught.value)
    assert words.startswith(f"{requirement.argument}: got ") and f"{requirement.expected} for Mine" in words
    assert unmet(problem, set(REQUIREMENTS) - set(unmet(problem, REQUIREMENTS))) == []


def test_both_kinds_of_free_biases_are_refused_by_their_own_name():
    free, output = (LACKING[name]() for name in ("no free hidden bias", "no free bias"))
    assert unmet(free, REQUIREMENTS) == ["cells", "no free bias", "no free hidden bias"]
    assert unmet(output, REQUIREMENTS) == ["no free bias"]
    for problem, words in ((free, r"FreeBias\(\)"), (output, "output_bias=True")):
        with pytest.raises(InvalidInputError, match=f"^features: got {words}, expected a penalised bias or none"):
            refuse_unmet(problem, {"no free bias"}, "Mine")


def test_beta_is_not_asked_for_inside_jit():
    refused = jax.jit(lambda beta: len(unmet(whole_problem().replace(beta=beta), {"positive beta"})))
    assert int(refused(0.0)) == 0


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.__name__)
def test_solvers_declare_known_requirements(solver):
    assert solver.requires <= set(REQUIREMENTS)
