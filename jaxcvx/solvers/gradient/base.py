"""The base class of the solvers that need gradients only. They take every smooth problem."""

from __future__ import annotations

import abc
import dataclasses
import inspect
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


def optax_step(
    optimizer: Any, state: Any, params: Any, objective: Any, tangent: Any, gradient: Any = None
) -> tuple[Any, Any]:
    """One step of an optax optimiser with all that optimisers may ask for. Returns the new params and state.

    Line searches, L-BFGS, Polyak steps and plateaus take ``value``, ``grad`` and ``value_fn``. Perturbed gradients and
    sharpness-aware steps take ``grad_fn``, and estimates of the Hessian ``obj_fn``. Values that an optimiser does not
    take cost nothing once compiled.

    Args:
      optimizer: an optax transformation.
      state: its state.
      params: the current params.
      objective: the function of params to minimise.
      tangent: the projection of a gradient at params to the allowed directions, ``smooth.tangent``.
      gradient: the gradient to use, or None for that of ``objective`` at ``params``.
    """
    import optax

    def gradient_at(at: Any, *_: Any) -> Any:
        return tangent(at, jax.grad(objective)(at))

    def value_at(at: Any, *_: Any, grad_fn: Any = None, obj_fn: Any = None) -> Any:
        return objective(at)  # line searches insist that value_fn takes all that no other part takes

    value, exact = jax.value_and_grad(objective)(params)
    gradient = tangent(params, exact) if gradient is None else gradient
    more = {"value": value, "grad": gradient, "value_fn": value_at, "grad_fn": gradient_at, "obj_fn": value_at}
    update = optax.with_extra_args_support(optimizer).update
    taken = inspect.signature(update).parameters.values()
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken):
        more = {name: more[name] for name in more.keys() & {parameter.name for parameter in taken}}
    updates, after = update(gradient, state, params, **more)
    return like(optax.apply_updates(params, updates), params), like(after, state)


def like(new: Any, old: Any) -> Any:
    """``new`` in the dtypes of ``old``: the state of a loop must keep them, and that of optimisers does not always."""
    return jax.tree.map(lambda a, b: a if a.dtype == b.dtype else a.astype(b.dtype), new, old)


class BestSeen(NamedTuple):
    """The best params of all checks, and the largest gradient.

    Attributes:
      params: those of the lowest objective.
      objective: theirs.
      residual: of the latest check.
      gradient: the largest gradient norm.
    """

    params: Any
    objective: Float[Array, ""]
    residual: Float[Array, ""]
    gradient: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class SmoothSolver(Solver, abc.ABC):
    """Base class of the solvers that minimise a network's training problem, or any SmoothProblem, by gradients.

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

    def completed(self, problem: Any, params: Any, key: Any) -> Any:
        return self.smooth(problem).completed(params, jax.random.key(0) if key is None else key)

    def start(self, problem: Any, params: Any) -> BestSeen:
        """The values before the first check."""
        infinite = jnp.full((), jnp.inf, problem.dtype)
        return BestSeen(params, infinite, infinite, jnp.zeros((), problem.dtype))

    def look(self, problem: Any, current: Any, best: BestSeen) -> BestSeen:
        """Merge ``current`` into the best seen. The residual is that of ``current``."""
        smooth = self.smooth(problem)
        objective, gradient = jax.value_and_grad(smooth.objective)(current)
        size = tree_norm(smooth.tangent(current, gradient))
        largest = jnp.maximum(size, best.gradient)
        wins = objective < best.objective
        params = jax.tree.map(lambda a, b: jnp.where(wins, a, b), current, best.params)
        scale = jnp.maximum(smooth.gradient_scale(current, largest), jnp.finfo(size.dtype).tiny)
        residual = size / scale
        # A point at which gradients vanish may be a saddle point, or have neurons that no gradient moves.
        at_rest = residual <= max(self.tol, 256 * float(jnp.finfo(problem.dtype).eps))
        stuck = jax.lax.cond(at_rest, lambda: smooth.improvable(current), lambda: jnp.zeros((), bool))
        return BestSeen(params, jnp.minimum(objective, best.objective), jnp.where(stuck, jnp.inf, residual), largest)

    def check(self, problem: Any, state: Any) -> Any:
        seen = self.look(problem, state.current, BestSeen(*(getattr(state, name) for name in BestSeen._fields)))
        return state._replace(**seen._asdict())

    def finish(self, problem: Any, state: Any) -> Outcome:
        return Outcome(state.params, None)

    def evaluate(self, problem: Any, outcome: Outcome) -> Parts:
        smooth = self.smooth(problem)
        network = smooth.network(outcome.params)
        objective = smooth.objective(outcome.params if network is None else network)
        no_bound = jnp.full_like(objective, -jnp.inf)
        if isinstance(problem, SmoothProblem):
            return Parts(network, objective, no_bound, problem.lower_bound())
        lower = no_bound if problem.arrangements is None else network_bound(problem, network)
        return Parts(network, objective, no_bound, lower)

    def scope(self, problem: Any) -> str:
        if isinstance(problem, SmoothProblem):
            # Under jit the value of the bound is unknown, but a class that proves one overrides this method.
            proves = type(problem).lower_bound is not SmoothProblem.lower_bound
            return "global" if proves else "none"
        if problem.arrangements is None:
            return "none"
        return bound_scope(problem.arrangements, problem.num_columns)
