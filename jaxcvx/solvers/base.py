"""The solver protocol and the solution object.

A solver is a frozen dataclass of hyper-parameters with pure methods; :mod:`jaxcvx.solvers.loop` runs them:

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
import enum
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network
from jaxcvx.numerics.implicit import Optimality
from jaxcvx.problems.training import Problem

Scalar = Any  # a jax scalar under jit, a numpy scalar outside


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
        """What to do about it, in one sentence."""
        return {
            Status.RUNNING: "The solve has not ended.",
            Status.CONVERGED: "The tolerance was met.",
            Status.MAX_STEPS: "Raise max_steps or tol; the bounds are valid all the same.",
            Status.DIVERGED: "Numbers overflowed; rescale X and Y, or use float64.",
            Status.INFEASIBLE: "The constraints admit no point.",
            Status.INVALID_INPUT: "X, Y or beta held NaN, inf or a negative beta inside jit.",
            Status.STOPPED: "The callback asked to stop.",
        }[self]


class History(NamedTuple):
    """What each check saw; entries from ``count`` on are unused (zeros).

    ``objective`` and ``bound`` belong to the solver's own program.
    """

    step: Int[Array, H]
    objective: Float[Array, H]
    bound: Float[Array, H]
    count: Int[Array, ""]  # type: ignore[assignment]


class Outcome(NamedTuple):
    """What a solver hands over: its variables and, where it has one, a dual point (a residual R (n, c) for most)."""

    params: Any
    dual: Any


class Parts(NamedTuple):
    """What is computed from the returned params alone."""

    network: Network
    objective: Float[Array, ""]
    program_bound: Float[Array, ""]
    lower_bound: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """Result of :func:`jaxcvx.solve`, a pytree.

    Every number is recomputed from the returned weights (outside jit in float64 on the host).

    Attributes:
      params: the solver's own variables.
      network: a real network; its training objective is ``upper_bound``.
      objective: value of the solver's own program at ``params``.
      program_gap: ``(objective - the program's own dual value) / max(|objective|, tiny)``; inf for solvers
        without a program of their own.
      upper_bound: training objective of ``network``.
      lower_bound: proved lower bound on the training objective of every network in ``scope``; -inf if none.
      gap: ``(upper_bound - lower_bound) / max(|upper_bound|, tiny)``.
      heuristic_bound: estimate of the lower bound that is not proved; -inf if none was made.
      status: see :class:`Status`.
      num_steps: steps taken, all phases together.
      history: what the checks saw.
      scope: static; "global" (all networks, exact), "relaxation" (all networks, by a relaxation),
        "sampled-cells" (networks whose neurons lie in the given cells), "heuristic", "none".
      dual: multipliers of a smooth problem's constraints, from solvers that have them (PrimalDual); else None.
    """

    params: Any
    network: Network
    objective: Scalar
    program_gap: Scalar
    upper_bound: Scalar
    lower_bound: Scalar
    gap: Scalar
    heuristic_bound: Scalar
    status: Scalar
    num_steps: Scalar
    history: History | None
    scope: str = dataclasses.field(default="none", metadata={"static": True})
    dual: Any = None

    @property
    def converged(self) -> Any:
        """True where the tolerance was met."""
        return self.status == Status.CONVERGED


class StepInfo(NamedTuple):
    """What a callback is told after each block of steps; plain Python numbers.

    ``objective`` and ``bound`` belong to the solver's own program; ``residual`` is what ``tol`` is compared with.
    """

    solver: str
    step: int
    max_steps: int
    objective: float
    bound: float
    residual: float
    params: Any


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

    needs_arrangements = True
    resumable = True  # whether StepInfo.params is something to start from
    problem_kinds: ClassVar[tuple[type, ...]] = (Problem,)
    takes_free_bias = False

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


def _tiny(x: Array) -> Array:
    return jnp.asarray(jnp.finfo(x.dtype).tiny, x.dtype)


def relative_gap(upper: Array, lower: Array) -> Array:
    """``(upper - lower) / max(|upper|, tiny)``; inf where upper is not finite."""
    finite = jnp.isfinite(upper)
    safe = jnp.where(finite, upper, 1.0)
    return jnp.where(finite, (safe - lower) / jnp.maximum(jnp.abs(safe), _tiny(safe)), jnp.inf)
