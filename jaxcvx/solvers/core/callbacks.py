"""What ``solve(callback=...)`` accepts: functions of a StepInfo, and hooks that also see the start and the end."""

from __future__ import annotations

from typing import Any

from jaxcvx.errors import InvalidTypeError
from jaxcvx.solvers.core.protocol import AnySolver, Callback
from jaxcvx.solvers.core.snapshot import Snapshot
from jaxcvx.solvers.core.solution import Solution, StepInfo


class Hook:
    """A callback that is also told when a solve starts and when it ends. Subclasses override what they need."""

    def begin(self, problem: Any, solver: AnySolver) -> Any:
        """Called before the solve; params to start from, a ``Saved`` state, or None to leave the caller's ``init``."""
        return None

    def keep(self, snapshot: Snapshot) -> None:
        """Called before ``__call__`` with all that it takes to go on from there; not by loops on the host."""

    def __call__(self, info: StepInfo) -> Any:
        """Called after each block of steps; a true value stops the solve."""
        return False

    def end(self, solution: Solution | None) -> None:
        """Called after the solve, also where it failed or was interrupted: then without a solution."""


def as_callbacks(callback: Any) -> tuple[Callback, ...]:
    """The public ``callback`` argument as a tuple: of one callable, or of those in a list or tuple.

    Raises:
      InvalidTypeError: something in it cannot be called.
    """
    callbacks = tuple(callback) if isinstance(callback, list | tuple) else (callback,)
    for each in callbacks:
        if not callable(each):
            raise InvalidTypeError(f"callback: got {type(each).__name__}, expected a callable or a list of them.")
    return callbacks
