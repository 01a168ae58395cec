"""Callbacks of ``solve``: functions of a StepInfo, and objects that also see the start and the end of a solve."""

from __future__ import annotations

from typing import Any

from jaxcvx.errors import wrong_type
from jaxcvx.solvers.core.protocol import AnySolver, CallbackFunction
from jaxcvx.solvers.core.snapshot import Snapshot
from jaxcvx.solvers.core.solution import Solution, StepInfo


class Callback:
    """Base class of callbacks that also see the start and the end of a solve. All methods have a default.

    Example:
      >>> import jaxcvx
      >>> class CountChecks(jaxcvx.Callback):
      ...     count = 0
      ...     def __call__(self, info):
      ...         self.count += 1
      >>> X, Y = [[0.0], [1.0], [2.0]], [1.0, 0.0, 1.0]
      >>> problem = jaxcvx.make_problem(X, Y, 0.1, arrangements=jaxcvx.enumerate_arrangements(X))
      >>> checks = CountChecks()
      >>> solution = jaxcvx.solve(problem, jaxcvx.ProximalGradient(), callback=checks)
      >>> checks.count > 0
      True
    """

    def begin(self, problem: Any, solver: AnySolver) -> Any:
        """Called before the solve.

        Args:
          problem: the argument of ``solve``.
          solver: the argument of ``solve``.

        Returns:
          None, or what replaces the caller's ``init``: the solver's params, a Network, or a ``Saved`` state.
        """
        return None

    def keep(self, snapshot: Snapshot) -> None:
        """Called before ``__call__`` with everything needed to resume the solve. Host solvers do not call it."""

    def __call__(self, info: StepInfo) -> Any:
        """Called after each block of steps. A true return value stops the solve."""
        return False

    def end(self, solution: Solution | None) -> None:
        """Called after the solve. ``solution`` is None if the solve failed or was interrupted."""


def as_callbacks(callback: Any) -> tuple[CallbackFunction, ...]:
    """The public ``callback`` argument as a tuple of callables.

    Raises:
      InvalidTypeError: an element cannot be called.
    """
    callbacks = tuple(callback) if isinstance(callback, list | tuple) else (callback,)
    for each in callbacks:
        if not callable(each):
            raise wrong_type("callback", each, "a callable or a list of callables")
    return callbacks
