"""What solvers that need nothing but gradients have in common: they take every smooth problem."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.certificates.certificate import bound_scope, network_bound
from jaxcvx.errors import invalid
from jaxcvx.networks.objective import TrainingObjective
from jaxcvx.numerics.trees import tree_norm
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts


class BestSeen(NamedTuple):
    """The best params that the checks have seen, and the largest gradient."""

    params: Any
    objective: Float[Array, ""]
    residual: Float[Array, ""]
    gradient: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class SmoothSolver(Solver, abc.ABC):
    """Base of the solvers that train by gradients: the training problem of a network, or any SmoothProblem.

    Subclasses define ``init`` and ``step`` on a state with fields ``current, step`` and those of BestSeen.

    Attributes:
      width: number of hidden neurons m, where the problem is a network's.
      init_scale: scale of its random initial weights (1: He initialisation).
    """

    width: int = 100
    init_scale: float = 1.0

    requires = frozenset()
    problem_kinds = (Problem, SmoothProblem)

    def smooth(self, problem: Any) -> SmoothProblem:
        """The problem as a function of params."""
        return (
            problem if isinstance(problem, SmoothProblem) else TrainingObjective(problem, self.width, self.init_scale)
        )

    def validate(self, problem: Any) -> None:
        if not isinstance(self.width, int) or self.width < 1:
            raise invalid("width", self.width, "a positive integer")

    def initial_params(self, problem: Any, key: Any) -> Any:
        return self.smooth(problem).initial_params(key)

    def adopt(self, problem: Any, init: Any) -> Any:
        return self.smooth(problem).adopt(init)

    def start(self, problem: Any, params: Any) -> BestSeen:
        """Nothing seen yet."""
        one = jnp.ones((), problem.dtype)
        return BestSeen(params, jnp.inf * one, jnp.inf * one, 0 * one)

    def look(self, problem: Any, current: Any, best: BestSeen) -> BestSeen:
        """Merge ``current`` into the best seen; the residual is that of ``current``."""
        smooth = self.smooth(problem)
        objective, gradient = jax.value_and_grad(smooth.objective)(current)
        size = tree_norm(smooth.tangent(current, gradient))
        largest = jnp.maximum(size, best.gradient)
        wins = objective < best.objective
        params = jax.tree.map(lambda a, b: jnp.where(wins, a, b), current, best.params)
        scale = jnp.maximum(smooth.gradient_scale(current, largest), jnp.finfo(size.dtype).tiny)
        return BestSeen(params, jnp.minimum(objective, best.objective), size / scale, largest)

    def check(self, problem: Any, state: Any) -> Any:
        seen = self.look(problem, state.current, BestSeen(*(getattr(state, name) for name in BestSeen._fields)))
        return state._replace(**seen._asdict())

    def finish(self, problem: Any, state: Any) -> Outcome:
        return Outcome(state.params, None)

    def evaluate(self, problem: Any, outcome: Outcome) -> Parts:
        smooth = self.smooth(problem)
        network = smooth.network(outcome.params)
        objective = smooth.objective(outcome.params if network is None else network)
        nothing = jnp.full_like(objective, -jnp.inf)
        if isinstance(problem, SmoothProblem):
            return Parts(network, objective, nothing, problem.lower_bound())
        lower = nothing if problem.arrangements is None else network_bound(problem, network)
        return Parts(network, objective, nothing, lower)

    def scope(self, problem: Any) -> str:
        if isinstance(problem, SmoothProblem):
            # A method that proves a bound returns it; asking for its value under jit is not possible.
            proves = type(problem).lower_bound is not SmoothProblem.lower_bound
            return "global" if proves else "none"
        if problem.arrangements is None:
            return "none"
        return bound_scope(problem.arrangements, problem.num_columns)
