"""GradientDescent: any optax optimiser on the problem itself, as a baseline."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcvx.errors import invalid
from jaxcvx.numerics.precision import default_promotion
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.solvers.gradient.base import SmoothSolver, optax_step


class _State(NamedTuple):
    params: Any  # best seen at a check
    current: Any
    optimizer: Any
    key: Array | None
    step: Array
    residual: Array
    objective: Array
    gradient: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class GradientDescent(SmoothSolver):
    """Minimises the objective of a training problem, or of any smooth problem, with an optax optimiser.

    The variables of a training problem are a network's hidden, output and skip weights. The solution holds the best
    iterate of all checks, and networks are balanced. ``residual`` is the gradient norm, relative to the weight
    decay's part of it for networks, else to the largest seen. At kinks it does not go to zero, so networks usually
    end at ``max_steps``. There is no convex program, so ``program_gap`` is inf. If the problem has arrangements, the
    lower bound holds for networks in their cells and in the returned network's; else ``scope`` is "none". Variables
    on unit spheres move along tangents and are normalised after each step.

    Works under jit and vmap (over keys, beta, Y), in float32 and float64, with every loss.

    Example:
      >>> import jax
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0], [2.0], [-1.0]], [1.0, 2.0, 0.0], beta=0.1)
      >>> solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(width=4), key=jax.random.key(0))
      >>> print(f"{solution.objective:.3f}")
      0.099

    Attributes:
      width: number of hidden neurons m; a narrower network given as ``init`` gets small random ones.
      optimizer: an optax GradientTransformation; None means the problem's own, or Adam with the two fields below.
      learning_rate: Adam's learning rate.
      schedule: "constant", or "cosine" (to zero at max_steps).
      batch_size: samples per step, drawn with replacement; None is full batch.
      init_scale: scale of a network's random initial weights (1: He initialisation).
    """

    tol: float = 1e-6
    max_steps: int = 5_000
    check_every: int = 50
    width: int = 100
    optimizer: Any = None
    learning_rate: float = 1e-2
    schedule: str = "constant"
    batch_size: int | None = None
    init_scale: float = 1.0

    def _optimizer(self, smooth: SmoothProblem) -> Any:
        import optax

        optimizer = self.optimizer if self.optimizer is not None else smooth.default_optimizer(self.batch_size)
        if optimizer is not None:
            return optimizer
        rate: Any = self.learning_rate
        return optax.adam(optax.cosine_decay_schedule(rate, self.max_steps) if self.schedule == "cosine" else rate)

    def validate(self, problem: Any) -> None:
        super().validate(problem)
        if self.schedule not in ("constant", "cosine"):
            raise invalid("schedule", repr(self.schedule), "'constant' or 'cosine'")
        samples = getattr(problem, "num_samples", None)
        if self.batch_size is not None and not 1 <= self.batch_size <= (samples or self.batch_size):
            raise invalid("batch_size", self.batch_size, f"None or 1..{samples or ''}")

    def init(self, problem: Any, key: Any, params: Any) -> _State:
        if self.batch_size is not None and key is None:
            raise invalid("key", None, "a jax random key, for mini-batches")
        smooth = self.smooth(problem)
        seen, bound = self.start(problem, params), jnp.full((), -jnp.inf, problem.dtype)
        with default_promotion():
            optimizer = jax.tree.map(jnp.asarray, self._optimizer(smooth).init(params))
        return _State(
            current=params,
            optimizer=optimizer,
            key=key,
            step=jnp.asarray(0, jnp.int32),
            bound=bound,
            **seen._asdict(),
        )

    def _objective(self, smooth: SmoothProblem, key: Any) -> Any:
        """The objective of a step, of one batch or of all samples, as a function of params."""
        if self.batch_size is None:
            return smooth.objective
        return lambda params: smooth.sampled_objective(params, key, self.batch_size)

    def step(self, problem: Any, state: _State) -> _State:
        smooth = self.smooth(problem)
        key, use = (None, None) if state.key is None else jax.random.split(state.key)
        objective = self._objective(smooth, use)
        with default_promotion():
            moved, optimizer = optax_step(
                self._optimizer(smooth), state.optimizer, state.current, objective, smooth.tangent
            )
        current = smooth.retract(moved)
        return state._replace(current=current, optimizer=optimizer, key=key, step=state.step + 1)
