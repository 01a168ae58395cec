"""The solver protocol and the solution object.

A solver is a frozen dataclass of hyper-parameters with pure methods; :mod:`jaxcvx.solvers.core.loop` runs them:

    init(problem, key, params) -> state       step(problem, state) -> state
    check(problem, state) -> state            (fills residual, objective, bound; once per block of steps)
    finish(problem, state) -> Outcome         (feasible params and a dual residual)
    evaluate(problem, outcome) -> Parts       (network, objective and bounds, from the params alone)

A state is a NamedTuple with at least ``params, step, residual, objective, bound``. Solvers that work in
phases list them in ``run_phases``; each phase starts from the params of the one before.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from jaxtyping import PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import Outcome, Parts, Solution, StepInfo

Callback = Callable[[StepInfo], Any]


@dataclasses.dataclass(frozen=True)
class AnySolver:
    """What all solvers have in common.

    Attributes:
      tol: relative tolerance on the solver's residual; for convex solvers the relative program gap. Taken as
        256 units of rounding where it is smaller (3e-5 in float32), as no gap below that can be seen.
      max_steps: limit on steps.
      check_every: steps between checks of the residual.
    """

    tol: float = 1e-6
    max_steps: int = 10_000
    check_every: int = 20

    requires: ClassVar[frozenset[str]] = frozenset({"cells", "no free bias"})
    """Names of :data:`jaxcvx.solvers.core.requirements.REQUIREMENTS`; ``solve`` refuses problems that lack one."""
    resumable = True  # whether StepInfo.params is something to start from
    problem_kinds: ClassVar[tuple[type, ...]] = (Problem,)

    def validate(self, problem: Problem) -> None:
        """Raise if this solver can't take ``problem``; shapes and static fields only."""
        return

    def scope(self, problem: Problem) -> str:
        """What ``lower_bound`` covers."""
        return "none"


@dataclasses.dataclass(frozen=True)
class HostSolver(AnySolver, abc.ABC):
    """A solver whose loop runs on the host, because the sizes of what it works on depend on the values.

    Its pieces are compiled, but ``solve`` with it works neither under jit nor under vmap.
    """

    @abc.abstractmethod
    def solve_on_host(self, problem: Problem, init: Any, key: Any, callback: Callback | None) -> Solution:
        """The whole solve."""


@dataclasses.dataclass(frozen=True)
class Solver(AnySolver, abc.ABC):
    """Base class of the solvers that run as one compiled program."""

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        """Solvers to run one after the other; only the shapes in ``problem`` may matter."""
        return (self,)

    def prepare(self, problem: Problem) -> Problem:
        """The problem with everything attached that must be computed on the host, once, outside the loop.

        ``solve`` calls it after ``validate``; all other methods are given what it returns. A solver that needs more
        than Problem holds returns an instance of a subclass, and takes one that is already prepared as it is, so
        that ``solve(solver.prepare(problem), solver)`` works under jit.
        """
        return problem

    def warm(self) -> Solver:
        """This solver with the phases that suit a start near the solution, as along a path of betas."""
        return self

    def predict(self, problem: Problem, earlier: Sequence[Any]) -> Any:
        """Params to start from, given those of problems at equal distances before this one, the nearest first."""
        return earlier[0]

    keeps_better_start: ClassVar[bool] = False
    """Whether params are feasible at every check, so that given ones are returned if none of a lower objective come."""

    @abc.abstractmethod
    def initial_params(self, problem: Problem, key: PRNGKeyArray | None) -> Any:
        """Params to start from when the caller gives none."""

    def params_from_network(self, problem: Problem, network: Network) -> Any:
        """Params that a network given as ``init`` stands for, where that makes sense."""
        raise invalid("init", "a Network", f"the params of {type(self).__name__}")

    def adopt(self, problem: Problem, init: Any) -> Any:
        """Params that ``init`` stands for."""
        return self.params_from_network(problem, init) if isinstance(init, Network) else init

    @abc.abstractmethod
    def init(self, problem: Problem, key: PRNGKeyArray | None, params: Any) -> Any:
        """State at the start."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: Any) -> Any:
        """One iteration."""

    @abc.abstractmethod
    def check(self, problem: Problem, state: Any) -> Any:
        """Fill in ``residual``, ``objective`` and ``bound``."""

    def gives_up(self, problem: Problem, state: Any) -> Any:
        """True at a check if more steps of this phase would not help; the next phase takes over."""
        return False

    @abc.abstractmethod
    def finish(self, problem: Problem, state: Any) -> Outcome:
        """Feasible params and a dual residual from the last state."""

    @abc.abstractmethod
    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        """Network, objective and bounds, computed from the params."""

    def room(self, problem: Problem, outcome: Outcome) -> int | None:
        """On the host: how many blocks ``evaluate`` has to round, where it can be told (its argument ``room`` then)."""
        return None

    def optimality(self, problem: Problem, params: Any) -> Optimality | None:
        """What returned params are optimal for, to differentiate them; None for solvers without derivatives."""
        return None
