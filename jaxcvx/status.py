"""How a solve or a search ended, and what callbacks are told on the way."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple


class Status(enum.IntEnum):
    """How a solve ended. ``solution.status`` holds the number, so that it exists inside jit."""

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    DIVERGED = 3
    INFEASIBLE = 4
    INVALID_INPUT = 5
    STOPPED = 6

    @property
    def advice(self) -> str:
        """The remedy, in one sentence."""
        return {
            Status.RUNNING: "The solve has not ended.",
            Status.CONVERGED: "The tolerance was met.",
            Status.MAX_STEPS: "Raise max_steps or tol; the bounds are valid all the same.",
            Status.DIVERGED: "Numbers overflowed; rescale X and Y, or use float64.",
            Status.INFEASIBLE: "The constraints admit no point.",
            Status.INVALID_INPUT: "X, Y or beta held NaN, inf or a negative beta inside jit.",
            Status.STOPPED: "The callback asked to stop.",
        }[self]


class StepInfo(NamedTuple):
    """The argument of callbacks after each block of steps, in plain Python numbers.

    ``objective`` and ``bound`` belong to the solver's own program; ``residual`` is compared with ``tol``.
    """

    solver: str
    step: int
    max_steps: int
    objective: float
    bound: float
    residual: float
    params: Any


CallbackFunction = Callable[[StepInfo], Any]
