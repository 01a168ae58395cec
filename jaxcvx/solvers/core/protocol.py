"""The solver protocol: the base classes of all solvers and the contract of their methods.

A solver is a frozen dataclass of hyper-parameters with pure methods. :mod:`jaxcvx.solvers.core.loop` runs them:

    init(problem, key, params) -> state       step(problem, state) -> state
    check(problem, state) -> state            (fills residual, objective, bound; once per block of steps)
    finish(problem, state) -> Outcome         (feasible params and a dual residual)
    evaluate(problem, outcome) -> Parts       (network, objective and bounds, from the params alone)

A state is a NamedTuple with at least the fields ``params, step, residual, objective, bound``. Solvers that work in
phases list them in ``run_phases``. Each phase starts from the params of the phase before. The other methods are hooks
with a default; the docstring of each says which solvers need it. A complete example is on the documentation's page
"Extend".
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import PRNGKeyArray

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.networks.network import Network
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import Outcome, Parts, Solution
from jaxcvx.status import CallbackFunction

"""A function that ``solve(callback=...)`` calls after each block of steps. A true return value stops the solve."""


@dataclasses.dataclass(frozen=True)
class AnySolver:
    """The settings and the declarations that all solvers have in common.

    Attributes:
      tol: relative tolerance on the solver's residual; for convex solvers the relative program gap. A value below 256
        units of rounding (3e-5 in float32) is raised to that number, as rounding hides smaller gaps.
      max_steps: limit on steps.
      check_every: steps between checks of the residual.
    """

    tol: float = 1e-6
    max_steps: int = 10_000
    check_every: int = 20

    requires: ClassVar[frozenset[str]] = frozenset({"cells", "no free bias"})
    """Names of :data:`jaxcvx.solvers.core.requirements.REQUIREMENTS`. ``solve`` refuses problems that lack one."""
    resumable: ClassVar[bool] = True
    """True if a solve can start from the params of a StepInfo. ``Checkpoint`` refuses other solvers."""
    problem_kinds: ClassVar[tuple[type, ...]] = (Problem,)
    """The classes of problems that the solver takes."""

    def validate(self, problem: Problem) -> None:
        """Raise if this solver cannot take ``problem``. It may read shapes and static fields only.

        Most solvers will not need this: ``requires`` covers the usual refusals.
        """
        return

    def scope(self, problem: Problem) -> str:
        """The set of networks for which ``lower_bound`` holds: see the attribute ``scope`` of ``Solution``."""
        return "none"


@dataclasses.dataclass(frozen=True)
class HostSolver(AnySolver, abc.ABC):
    """Base class of the solvers whose loop runs on the host, because their array sizes depend on values.

    Their parts are compiled. ``solve`` with such a solver works under jit and vmap only if it has a ``solve_traced``.
    """

    @abc.abstractmethod
    def solve_on_host(self, problem: Problem, init: Any, key: Any, callback: CallbackFunction | None) -> Solution:
        """Run the whole solve.

        Args:
          problem: checked, concrete and valid.
          init: the argument of ``solve``.
          key: the argument of ``solve``.
          callback: to be called after each step, or None. If it returns a true value, the solve must end.
        """

    def solve_traced(self, problem: Problem, init: Any, key: Any) -> Solution:
        """The whole solve with fixed shapes, under jit or vmap.

        Most solvers will not need this: by default traced arrays are refused.

        Raises:
          InvalidTypeError: the solver runs on concrete arrays only.
        """
        raise InvalidTypeError(
            f"problem: got traced arrays, expected concrete ones: {type(self).__name__} runs on the host, "
            "outside jit, vmap and grad."
        )

    def solve_path(
        self, problem: Problem, betas: Any, key: Any, callback: CallbackFunction | None = None
    ) -> Solution | None:
        """The batched solution along a path of betas (k,); None if this solver follows none.

        The callback is called after each beta, and the path ends after a true value.

        Most solvers will not need this.
        """
        return None

    def largest_beta(self, problem: Problem, key: Any) -> Any:
        """The beta from which on the solution is zero, for solvers that follow paths; None for others.

        Most solvers will not need this.
        """
        return None


@dataclasses.dataclass(frozen=True)
class Solver(AnySolver, abc.ABC):
    """Base class of the solvers that run as one compiled program."""

    def run_phases(self, problem: Problem) -> tuple[Solver, ...]:
        """Solvers to run one after the other. They may depend on shapes and static fields of ``problem`` only.

        Most solvers will not need this: by default the solver itself is the only phase.
        """
        return (self,)

    def prepare(self, problem: Problem) -> Problem:
        """Compute once, on the host, everything the loop needs beyond the problem's own fields.

        Most solvers will not need this. ``solve`` calls it after ``validate`` and gives the result to all other
        methods. A solver that needs more than the fields of Problem returns an instance of a subclass. It returns a
        prepared problem unchanged, so that ``solve(solver.prepare(problem), solver)`` works under jit.
        """
        return problem

    def warm(self) -> Solver:
        """This solver with the phases that suit a start near the solution, as along a path of betas.

        Most solvers will not need this.
        """
        return self

    def predict(self, problem: Problem, earlier: Sequence[Any]) -> Any:
        """Params to start from on a path of problems at equal distances.

        Most solvers will not need this.

        Args:
          problem: the next problem of the path.
          earlier: solutions' params of the problems before it, the nearest first.
        """
        return earlier[0]

    keeps_better_start: ClassVar[bool] = False
    """True if the params are feasible at every check.

    If a solve then ends above the objective of the given start, the start is returned.
    """
    differentiable: ClassVar[bool] = False
    """True if ``optimality`` is implemented. ``solve`` refuses derivatives of other solvers."""

    @abc.abstractmethod
    def initial_params(self, problem: Problem, key: PRNGKeyArray | None) -> Any:
        """Params to start from when the caller gives none."""

    def params_from_network(self, problem: Problem, network: Network) -> Any:
        """The params of a network that the caller gave as ``init``.

        Most solvers will want this if their params can represent any network. By default a network is refused.
        """
        raise invalid("init", "a Network", f"the params of {type(self).__name__}")

    def adopt(self, problem: Problem, init: Any) -> Any:
        """The params of the caller's ``init``: a network's, or ``init`` itself.

        Most solvers will not need to override this.
        """
        return self.params_from_network(problem, init) if isinstance(init, Network) else init

    def completed(self, problem: Problem, params: Any, key: PRNGKeyArray | None) -> Any:
        """The caller's params with fresh values for parts that no step could move, such as neurons of zero weights.

        Most solvers will not need this.
        """
        return params

    @abc.abstractmethod
    def init(self, problem: Problem, key: PRNGKeyArray | None, params: Any) -> Any:
        """The state at the start, with ``step`` 0. The loop checks it before the first step."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: Any) -> Any:
        """One iteration. It must raise ``step`` by one."""

    @abc.abstractmethod
    def check(self, problem: Problem, state: Any) -> Any:
        """Fill in ``residual`` (compared with ``tol``), ``objective`` and ``bound`` of the solver's own program.

        A solver without a bound leaves it at -inf.
        """

    def gives_up(self, problem: Problem, state: Any) -> Any:
        """True after a check if more steps of this phase would not help. The next phase then starts.

        Most solvers will not need this.
        """
        return False

    @abc.abstractmethod
    def finish(self, problem: Problem, state: Any) -> Outcome:
        """Feasible params and a dual point, from the last state."""

    @abc.abstractmethod
    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        """Network, objective and bounds, computed from the outcome alone.

        ``solve`` reports these numbers, so nothing that ``step`` or ``check`` computed may enter them.
        """

    def room(self, problem: Problem, outcome: Outcome) -> int | None:
        """Host only: the number of blocks that ``evaluate`` must round, at most; None if unknown.

        Most solvers will not need this. A solver that returns a number takes it in ``evaluate`` as the argument
        ``room`` and rounds that many blocks instead of all.
        """
        return None

    def optimality(self, problem: Problem, params: Any) -> Optimality | None:
        """The optimality conditions of returned params, from which their derivatives follow.

        Most solvers will not need this. Solvers with ``differentiable = True`` return None only for problems whose
        solutions have no derivatives (a loss that is not smooth).
        """
        return None
