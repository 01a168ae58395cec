"""The result of a solve: the solution object and its history."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcvx.networks.network import Network
from jaxcvx.status import Status, StepInfo

__all__ = ["History", "Outcome", "Parts", "Solution", "Status", "StepInfo", "relative_gap"]

Scalar = Any  # a jax scalar under jit, a numpy scalar outside


class History(NamedTuple):
    """The numbers of each check. Entries from ``count`` on are unused (zeros).

    ``objective`` and ``bound`` belong to the solver's own program.
    """

    step: Int[Array, H]
    objective: Float[Array, H]
    bound: Float[Array, H]
    count: Int[Array, ""]  # type: ignore[assignment]


class Outcome(NamedTuple):
    """The end of a run, from which everything else is computed.

    Attributes:
      params: the solver's variables, feasible.
      dual: a dual point (for most solvers a residual R (n, c)), or None.
    """

    params: Any
    dual: Any


class Parts(NamedTuple):
    """The numbers of ``Solver.evaluate``, computed from the returned params alone.

    Attributes:
      network: a real network.
      objective: value of the solver's own program at the params.
      program_bound: lower bound on the optimum of the solver's own program; -inf if none.
      lower_bound: proved lower bound on the training objective of every network in the solver's scope; -inf if none.
    """

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
      heuristic_bound: an unproved estimate of the lower bound; -inf if none was made.
      status: see :class:`Status`.
      num_steps: steps taken, all phases together.
      history: the numbers of each check.
      scope: static; "global" (all networks, exact), "relaxation" (all networks, by a relaxation),
        "sampled-cells" (networks whose neurons lie in the given cells), "heuristic", "none".
      dual: multipliers of a smooth problem's constraints, from solvers that have them (PrimalDual); else None.
      betas: the weight decays of a regularisation path, one for each entry of the batch; else None.
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
    betas: Any = None

    @property
    def num_neurons(self) -> Any:
        """The number of neurons whose weights are not zero: an integer, or one for each entry of a batch."""
        hidden, output = self.network.hidden, self.network.output
        return jnp.sum(jnp.any(hidden != 0, axis=-1) & jnp.any(output != 0, axis=-1), axis=-1)

    @property
    def converged(self) -> Any:
        """True where the tolerance was met."""
        return self.status == Status.CONVERGED


def _tiny(x: Array) -> Array:
    return jnp.asarray(jnp.finfo(x.dtype).tiny, x.dtype)


def relative_gap(upper: Array, lower: Array) -> Array:
    """``(upper - lower) / max(|upper|, tiny)``; inf where upper is not finite."""
    finite = jnp.isfinite(upper)
    safe = jnp.where(finite, upper, 1.0)
    return jnp.where(finite, (safe - lower) / jnp.maximum(jnp.abs(safe), _tiny(safe)), jnp.inf)
