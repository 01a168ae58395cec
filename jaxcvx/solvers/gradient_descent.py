"""GradientDescent: any optax optimiser on the training problem itself; the honest baseline."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcvx.certificates.certificate import bound_scope, network_bound
from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network, balance, network_objective, zero_network
from jaxcvx.networks.recovery import widen
from jaxcvx.problems.relu import Problem
from jaxcvx.solvers.base import Outcome, Parts, Solver


class _State(NamedTuple):
    params: Network  # best seen at a check
    current: Network
    optimizer: Any
    key: Array | None
    step: Array
    residual: Array
    objective: Array
    bound: Array


@dataclasses.dataclass(frozen=True)
class GradientDescent(Solver):
    """Trains hidden, output (and skip) weights by gradients of the training objective.

    The best iterate seen at a check is returned, balanced. ``residual`` is the gradient norm relative to
    the weight decay's part of it; at kinks it does not go to zero, so runs usually end at ``max_steps``.
    There is no convex program behind it: ``program_gap`` is inf. With arrangements in the problem the
    result is certified over them (and over the network's own neurons), else ``scope`` is "none".

    Works under jit and vmap (over keys, beta, Y), in float32 and float64, with every loss.

    Attributes:
      width: number of hidden neurons m; a narrower network given as ``init`` is padded with zero neurons.
      optimizer: an optax GradientTransformation; None means Adam with the two fields below.
      learning_rate: Adam's learning rate.
      schedule: "constant", or "cosine" (to zero at max_steps).
      batch_size: samples per step, drawn with replacement; None is full batch.
      init_scale: scale of the random initial weights (1: He initialisation).
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

    needs_arrangements = False
    takes_free_bias = True

    def _optimizer(self) -> Any:
        import optax

        if self.optimizer is not None:
            return self.optimizer
        rate: Any = self.learning_rate
        return optax.adam(
            optax.cosine_decay_schedule(rate, self.max_steps) if self.schedule == "cosine" else rate
        )

    def validate(self, problem: Problem) -> None:
        if not isinstance(self.width, int) or self.width < 1:
            raise invalid("width", self.width, "a positive integer")
        if self.schedule not in ("constant", "cosine"):
            raise invalid("schedule", repr(self.schedule), "'constant' or 'cosine'")
        if self.batch_size is not None and not 1 <= self.batch_size <= problem.num_samples:
            raise invalid("batch_size", self.batch_size, f"None or 1..{problem.num_samples}")

    def initial_params(self, problem: Problem, key: Any) -> Network:
        zero = zero_network(problem, self.width)
        if key is None:
            raise invalid("key", None, "a jax random key, or init=Network(...), for GradientDescent")
        first, second = jax.random.split(key)
        p = zero.hidden.shape[1]
        hidden = jax.random.normal(first, zero.hidden.shape, zero.hidden.dtype) * (self.init_scale / p**0.5)
        output = jax.random.normal(second, zero.output.shape, zero.output.dtype) * (
            self.init_scale / self.width**0.5
        )
        return dataclasses.replace(zero, hidden=hidden, output=output)

    def params_from_network(self, problem: Problem, network: Network) -> Network:
        if network.width > self.width:
            raise invalid(
                "init", f"a network of width {network.width}", f"at most {self.width}, the solver's width"
            )
        return widen(network, self.width)

    def init(self, problem: Problem, key: Any, params: Network) -> _State:
        if self.batch_size is not None and key is None:
            raise invalid("key", None, "a jax random key, for mini-batches")
        one = jnp.ones((), problem.X.dtype)
        low = -jnp.inf * one
        state = self._optimizer().init(params)
        return _State(
            params, params, state, key, jnp.asarray(0, jnp.int32), jnp.inf * one, jnp.inf * one, low
        )

    def _gradient(self, problem: Problem, network: Network, key: Any) -> Network:
        if self.batch_size is None:
            return jax.grad(network_objective)(network, problem)
        chosen = jax.random.randint(key, (self.batch_size,), 0, problem.num_samples)
        # The loss is a sum: a batch of b samples stands for n / b as much; beta is scaled the other way.
        share = self.batch_size / problem.num_samples
        batch = problem.replace(X=problem.X[chosen], Y=problem.Y[chosen], beta=problem.beta * share)
        return jax.tree.map(lambda g: g / share, jax.grad(network_objective)(network, batch))

    def step(self, problem: Problem, state: _State) -> _State:
        import optax

        key, use = (None, None) if state.key is None else jax.random.split(state.key)
        gradient = self._gradient(problem, state.current, use)
        updates, optimizer = self._optimizer().update(gradient, state.optimizer, state.current)
        current = optax.apply_updates(state.current, updates)
        return state._replace(current=current, optimizer=optimizer, key=key, step=state.step + 1)

    def check(self, problem: Problem, state: _State) -> _State:
        objective, gradient = jax.value_and_grad(network_objective)(state.current, problem)
        best = objective < state.objective
        params = jax.tree.map(lambda a, b: jnp.where(best, a, b), state.current, state.params)
        size, scale = (
            jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(t))) for t in (gradient, state.current)
        )
        tiny = jnp.finfo(objective.dtype).tiny
        residual = size / jnp.maximum(problem.beta * scale, tiny)
        return state._replace(
            params=params, objective=jnp.minimum(objective, state.objective), residual=residual
        )

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, None)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        network = balance(outcome.params)
        objective = network_objective(network, problem)
        nothing = jnp.full_like(objective, -jnp.inf)
        lower = nothing if problem.arrangements is None else network_bound(problem, network)
        return Parts(network, objective, nothing, lower)

    def scope(self, problem: Problem) -> str:
        if problem.arrangements is None:
            return "none"
        return bound_scope(problem.arrangements, problem.num_columns)
