"""Binds the methods of problems whose functions lie in higher layers: the facade imports this file, nobody else.

``problem.beta_max()`` and ``problem.memory_estimate(solver)`` are conveniences for users. Inside the library the
functions are called.
"""

from __future__ import annotations

from jaxcvx.certificates.beta_max import beta_max
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.memory_estimate import memory_estimate

Problem.beta_max = beta_max  # type: ignore[method-assign,assignment]
Problem.memory_estimate = memory_estimate  # type: ignore[method-assign,assignment]
SmoothProblem.memory_estimate = memory_estimate  # type: ignore[method-assign,assignment]
