"""Progress: a callback that displays the progress of a solve."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

from jaxcvx.errors import invalid, require_extra
from jaxcvx.solvers.core.callbacks import Callback
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.solution import Solution, Status, StepInfo

KINDS = ("auto", "rich", "text", "silent")


class Progress(Callback):
    """Show the solver, its step, objective and residual on stderr: ``solve(..., callback=Progress())``.

    Args:
      kind: "rich" is a live bar. "text" is a line every ``seconds`` seconds and one at the end. "silent" shows nothing.
        "auto" is silent if stderr is not a terminal; on a terminal it is "rich" if rich is installed, "text" otherwise.
      seconds: least time between two lines of text.

    Raises:
      InvalidInputError: the kind is unknown, or the time is negative.
      MissingExtraError: the kind is "rich" and rich is not installed.

    Example:
      >>> import jax, jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0], [2.0]], [1.0, 0.0], beta=0.1)
      >>> solver = jaxcvx.GradientDescent(width=3, max_steps=200)
      >>> key, progress = jax.random.key(0), jaxcvx.Progress("text")
      >>> solution = jaxcvx.solve(problem, solver, key=key, callback=progress)  # prints to stderr
    """

    def __init__(self, kind: str = "auto", *, seconds: float = 1.0):
        if kind not in KINDS:
            raise invalid("kind", repr(kind), "one of " + ", ".join(map(repr, KINDS)))
        if not seconds >= 0:
            raise invalid("seconds", seconds, "a number >= 0")
        if kind == "auto":
            plain = "rich" if importlib.util.find_spec("rich") else "text"
            kind = plain if sys.stderr.isatty() else "silent"
        if kind == "rich":
            require_extra("rich", "cli")
        self.kind, self.seconds = kind, seconds
        self._bar: Any = None
        self._last: StepInfo | None = None
        self._shown = -float("inf")

    def begin(self, problem: Any, solver: AnySolver) -> None:
        self._last, self._shown = None, -float("inf")
        if self.kind == "rich":
            self._bar = _bar()
            self._bar.start()
            self._bar.add_task(type(solver).__name__, total=solver.max_steps, numbers="compiling")

    def __call__(self, info: StepInfo) -> bool:
        self._last = info
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(
                task,
                description=info.solver,
                total=info.max_steps,
                completed=min(info.step, info.max_steps),
                numbers=_numbers(info),
            )
        elif self.kind == "text" and time.monotonic() - self._shown >= self.seconds:
            self._shown = time.monotonic()
            _print(f"{info.solver} step {info.step}/{info.max_steps}  {_numbers(info)}")
        return False

    def end(self, solution: Solution | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self.kind == "text" and solution is not None and self._last is not None:
            status = Status(int(solution.status)).name
            _print(f"{self._last.solver} {status} after {int(solution.num_steps)} steps  {_numbers(self._last)}")


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return RichProgress(*columns, TextColumn("{task.fields[numbers]}"), console=Console(stderr=True))


def _numbers(info: StepInfo) -> str:
    return f"objective {info.objective:.8g}  residual {info.residual:.1e}"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
