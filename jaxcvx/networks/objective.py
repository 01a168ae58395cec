"""The training problem as a smooth problem of a network's weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network, balance, network_objective, with_output_bias, zero_network
from jaxcvx.networks.recovery import widen
from jaxcvx.numerics.safe import norm, unit_rows
from jaxcvx.numerics.trees import tree_norm
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem, best_constant

_SMALL = 1e-2  # size of fresh neurons, relative to the usual start
_PROBES = 32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainingObjective(SmoothProblem):
    """``loss(f(X), Y) + beta/2 (sum of squared weights)`` as a function of the weights of ``width`` neurons.

    It is differentiable except at the kinks of relu, where jax uses the derivative 0.

    Attributes:
      problem: data, loss and beta.
      width: static; number of hidden neurons.
      init_scale: static; scale of the random initial weights, 1 for He initialisation.
    """

    problem: Problem
    width: int = dataclasses.field(default=100, metadata={"static": True})
    init_scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    @property
    def dtype(self) -> Any:
        return self.problem.dtype

    def is_valid(self) -> Bool[Array, ""]:
        return self.problem.is_valid()

    def objective(self, params: Network) -> Float[Array, ""]:
        return network_objective(params, self.problem)

    def sampled_objective(self, params: Network, key: PRNGKeyArray, batch_size: int) -> Float[Array, ""]:
        chosen = jax.random.randint(key, (batch_size,), 0, self.problem.num_samples)
        # The loss is a sum, so the loss of a batch of b samples must be multiplied by n / b. The last division does
        # that. To leave the penalty unchanged, beta is multiplied by b / n first.
        share = batch_size / self.problem.num_samples
        batch = self.problem.samples(chosen).replace(beta=self.problem.beta * share)
        return network_objective(params, batch) / share

    def initial_params(self, key: PRNGKeyArray | None) -> Network:
        if key is None:
            raise invalid("key", None, "a jax random key for the initial weights (or init=)")
        hidden_key, output_key = jax.random.split(key)
        zero = zero_network(self.problem, self.width)
        bias = zero.output_bias
        if bias is not None and self.problem.loss.is_smooth:  # a constant added to Y moves the start by the same
            bias = best_constant(self.problem, jnp.zeros_like(self.problem.Y))
        hidden = jax.random.normal(hidden_key, zero.hidden.shape, zero.hidden.dtype)
        output = jax.random.normal(output_key, zero.output.shape, zero.output.dtype)
        return dataclasses.replace(
            zero,
            hidden=hidden * (self.init_scale / zero.hidden.shape[1] ** 0.5),
            output=output * (self.init_scale / self.width**0.5),
            output_bias=bias,
        )

    def adopt(self, init: Any) -> Any:
        """Pad a narrower network with zero neurons, which ``completed`` fills, and with an output bias of 0."""
        if not isinstance(init, Network):
            return init
        if init.width > self.width:
            raise invalid("init", f"a network of width {init.width}", f"at most {self.width}, the solver's width")
        return widen(with_output_bias(init, self.problem), self.width)

    def idle(self, params: Network) -> Bool[Array, m]:
        """True for the neurons that are active at no row: no gradient of the loss moves them."""
        return ~jnp.any(self.problem.rows @ params.hidden.T > 0, axis=0)

    def completed(self, params: Network, key: PRNGKeyArray) -> Network:
        """Replace neurons that are active at no row by small random ones. No prediction changes.

        The new hidden weights are random, and the new output weights are zero: these have a gradient.
        """
        fresh = jax.random.normal(key, params.hidden.shape, params.hidden.dtype)
        fresh = fresh * (_SMALL * self.init_scale / params.hidden.shape[1] ** 0.5)
        active = jnp.any(self.problem.rows @ fresh.T > 0, axis=0)
        fresh = jnp.where(active[:, None], fresh, -fresh)
        idle = self.idle(params)[:, None]
        return dataclasses.replace(
            params, hidden=jnp.where(idle, fresh, params.hidden), output=jnp.where(idle, 0.0, params.output)
        )

    def improvable(self, params: Network) -> Bool[Array, ""]:
        """True if an idle neuron would lower the objective in a direction of a few that are tried.

        A neuron pays if its price, the norm of ``relu(Z u)^T R`` for a unit vector u, is above beta.
        """
        problem = self.problem
        if problem.features.free_bias or not problem.loss.is_smooth:
            return jnp.zeros((), bool)
        lifted = problem.readout.lift(-problem.loss.grad(params(problem.X), problem.targets))
        towards = problem.rows.T @ lifted
        random = jax.random.normal(jax.random.key(0), (_PROBES, problem.rows.shape[1]), problem.dtype)
        tried = unit_rows(jnp.concatenate([towards.T, -towards.T, random, -random]))
        price = jnp.max(norm(jax.nn.relu(problem.rows @ tried.T).T @ lifted))
        return jnp.any(self.idle(params)) & (price > 1.001 * problem.beta)

    def gradient_scale(self, params: Network, largest: Float[Array, ""]) -> Float[Array, ""]:
        """The norm of the weight decay's gradient. Biases without weight decay do not count."""
        penalised = params.features.penalised(params.hidden), params.output, params.skip
        return self.problem.beta * tree_norm(penalised)

    def network(self, params: Network) -> Network:
        """The network with balanced neurons. Its function is the same, and its objective is not larger."""
        return balance(params)
