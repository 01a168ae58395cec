"""What a solver may require of a training problem, by name, and the refusals that follow from it.

A solver declares ``requires = frozenset({"cells", "smooth loss"})``. ``solve`` refuses a problem that lacks one of
them, with a message that names the argument, what was got and what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxcvx.errors import invalid
from jaxcvx.numerics.trees import is_traced
from jaxcvx.problems.training import Problem


class Requirement(NamedTuple):
    """A property that a training problem may lack.

    Attributes:
      argument: the argument to name in the refusal.
      holds: tells whether a problem has the property, from shapes, static fields and concrete numbers only.
      got: the value to show in the refusal.
      expected: the words after "expected" in the refusal. The solver's name follows.
      remedy: the end of the refusal, in brackets, or nothing.
    """

    argument: str
    holds: Callable[[Problem], bool]
    got: Callable[[Problem], Any]
    expected: str
    remedy: str = ""


REQUIREMENTS: dict[str, Requirement] = {
    "cells": Requirement(
        "problem.arrangements",
        lambda p: p.arrangements is not None,
        lambda p: None,
        "cells",
        "from jaxcvx.enumerate_arrangements(X) or jaxcvx.sample_arrangements(key, X, num)",
    ),
    "smooth loss": Requirement(
        "loss",
        lambda p: p.loss.is_smooth,
        lambda p: repr(p.loss.name),
        "a smooth loss",
        "ConeADMM takes every loss",
    ),
    "no sample weights": Requirement(
        "sample_weight", lambda p: p.sample_weight is None, lambda p: "weights", "None", "ConeADMM takes weights"
    ),
    "squared loss": Requirement("loss", lambda p: p.loss.is_quadratic, lambda p: repr(p.loss.name), "'squared'"),
    "no skip": Requirement("features", lambda p: not p.features.skip, lambda p: "a skip connection", "none"),
    "no free bias": Requirement(
        "features",
        lambda p: not p.features.output_bias,
        lambda p: "FreeBias()" if p.features.free_bias else "output_bias=True",
        "a penalised bias or none",
        "Dense(bias=True) or Dense()",
    ),
    "no free hidden bias": Requirement(
        "features",
        lambda p: not p.features.free_bias,
        lambda p: "FreeBias()",
        "penalised hidden biases or none",
        "Dense(bias=True, output_bias=True)",
    ),
    "positive beta": Requirement(
        "beta", lambda p: is_traced(p.beta) or float(p.beta) > 0, lambda p: float(p.beta), "a positive number"
    ),
}


def unmet(problem: Problem, requires: Iterable[str]) -> list[str]:
    """The names among ``requires`` that the problem lacks, in the table's order."""
    wanted = frozenset(requires)
    return [name for name, requirement in REQUIREMENTS.items() if name in wanted and not requirement.holds(problem)]


def refuse_unmet(problem: Problem, requires: Iterable[str], solver: str) -> None:
    """Raise InvalidInputError for the first requirement that the problem lacks."""
    for name in unmet(problem, requires):
        requirement = REQUIREMENTS[name]
        remedy = f" ({requirement.remedy})" if requirement.remedy else ""
        expected = f"{requirement.expected} for {solver}{remedy}"
        raise invalid(requirement.argument, requirement.got(problem), expected)
