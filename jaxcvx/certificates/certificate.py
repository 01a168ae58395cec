"""Certificates: how far a network, trained by anything, can be from the global optimum."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.certificates.dual import all_networks_dual_norm, atom_dual_norm, best_bound, relaxed_dual_norm
from jaxcvx.networks.network import Network
from jaxcvx.pricing.semidefinite import semidefinite_dual_norm
from jaxcvx.problems.training import Problem
from jaxcvx.status import Status

PAYS = 1e-6  # relative excess of a neuron's price over beta from which it is reported


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Certificate:
    """A statement about one network, computed from its weights.

    Rescaling a neuron (u_j times s, v_j divided by s > 0) keeps the network's function but changes its weight
    penalty. Hence there are two objectives: of the weights as they are, and of the same network with balanced neurons.

    Attributes:
      upper: float64 scalar, training objective of the network with its weights as given; inf if it overflows.
      lower: proved lower bound on the training objective of every network in ``scope``; -inf if none. The given
        network and its balanced copy are among them, so ``lower <= upper`` and ``lower <= balanced``.
      gap: ``(upper - lower) / max(|upper|, tiny)``: how far the given weights can be from optimal, in the scope. An
        optimal function with unbalanced weights has a positive gap.
      heuristic_bound: an estimate of the lower bound that is not proved; -inf if none was made.
      scope: static; the networks that ``lower`` covers. "global": all networks, by exact pricing. "relaxation": all
        networks, by a relaxation. "sampled-cells": networks whose neurons lie in the given cells or in this
        network's. "heuristic": there is only an estimate.
      precision: static; the dtype in which the bounds were evaluated. ``certify`` takes "float64" for all data.
      balanced: training objective after :func:`jaxcvx.balance`, which rescales every neuron to ||u_j|| = ||v_j||.
        This is the least objective of any network with the same neurons up to scale. It defaults to ``upper``.
      neuron: (p,) a unit hidden vector that improves the network if it is added, or None if the search found none.
      work: number of nodes that a search has bounded; 0 without a search.
      seconds: time of the search and of what came before it; 0 without a search.
      status: how a search ended, a :class:`jaxcvx.Status`: CONVERGED at the tolerance or at the smallest gap that this
        network allows, MAX_STEPS if time was out, STOPPED by the callback.

    Example:
      >>> import jaxcvx
      >>> network = jaxcvx.Network([[4.0]], [[0.25]])  # predicts max(x, 0)
      >>> certificate = jaxcvx.certify(network, [[1.0], [2.0]], [1.0, 2.0], 0.1)
      >>> print(f"{certificate.upper:.3f} {certificate.balanced:.3f}")  # 0.1 / 2 (4^2 + 0.25^2) and 0.1
      0.803 0.100
    """

    upper: Any
    lower: Any
    gap: Any
    heuristic_bound: Any
    scope: str = dataclasses.field(default="none", metadata={"static": True})
    precision: str = dataclasses.field(default="float64", metadata={"static": True})
    balanced: Any = None
    neuron: Any = None
    work: Any = 0
    seconds: Any = 0.0
    status: Any = Status.CONVERGED

    def __post_init__(self) -> None:
        if self.balanced is None:
            object.__setattr__(self, "balanced", self.upper)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle. Earlier versions had no ``balanced``; their ``upper`` was that of balanced weights."""
        added = {"balanced": state["upper"], "neuron": None, "work": 0, "seconds": 0.0, "status": Status.CONVERGED}
        self.__dict__.update(added | state)

    def explain(self) -> str:
        """What the certificate says, in one or two sentences.

        >>> import jaxcvx
        >>> network = jaxcvx.Network([[1.0]], [[0.9]])
        >>> print(jaxcvx.certify(network, [[1.0], [2.0]], [1.0, 2.0], 0.1).explain())
        This network has the training objective 0.1155. No two-layer ReLU network of any width can have less than \
0.099: at most 14.3 % are to be gained.
        """
        own = f"This network has the training objective {float(self.upper):.6g}."
        lower, gap = float(self.lower), float(self.gap)
        if not np.isfinite(lower):
            return f"{own} Nothing is proved about other networks."
        whom = {
            "global": "No two-layer ReLU network of any width",
            "relaxation": "No two-layer ReLU network of any width",
            "sampled-cells": "No network with neurons in the given cells",
        }.get(self.scope, "No network of the program")
        share = f"{100 * gap:.3g} %" if gap >= 1e-5 else f"{gap:.1e} of it"
        return f"{own} {whom} can have less than {lower:.6g}: at most {share} are to be gained."


def bound_scope(arrangements: Arrangements | None, num_columns: int) -> str:
    """Scope of the bound that :func:`network_bound` proves for q = num_columns output weights per neuron."""
    if arrangements is None:
        return "relaxation"
    if not arrangements.complete:
        return "sampled-cells"
    return "global" if num_columns == 1 else "relaxation"


def network_bound(problem: Problem, network: Network, semidefinite: bool = False) -> Float[Array, ""]:
    """Lower bound from the network's own residual, over the problem's cells (all networks if it has none).

    Args:
      problem: data, loss, beta, and perhaps cells.
      network: its predictions give the dual points.
      semidefinite: static; if the bound covers all networks, compute the dual norm by the semidefinite relaxation
        as well and take the smaller of the two.
    """
    cells = problem.arrangements

    def dual_norm(R):
        own = atom_dual_norm(network, problem, R)
        if cells is None:
            norm = all_networks_dual_norm(problem, R)
        else:
            norm = relaxed_dual_norm(problem.operator.carefully(), R)
        if semidefinite and (cells is None or cells.complete):
            neurons = semidefinite_dual_norm(problem.rows, problem.readout.lift(R), floor=own)
            skip = jnp.linalg.norm(problem.rows.T @ R) if problem.features.skip else 0.0
            norm = jnp.minimum(norm, jnp.maximum(neurons, skip))
        return jnp.maximum(own, norm)

    return best_bound(problem, network(problem.X), dual_norm)


def make_certificate(
    upper: Any, lower: Any, scope: str, heuristic_bound: float = -np.inf, balanced: Any = None
) -> Certificate:
    """Assemble a certificate of float64 numbers; NaN (invalid data) claims nothing.

    Args:
      upper: training objective of the weights as given.
      lower: lower bound; cut to the network's objectives, above which it can be by rounding only.
      scope: the networks that ``lower`` covers.
      heuristic_bound: estimate of the lower bound.
      balanced: training objective of the balanced network; None if the weights are balanced already.
    """
    upper, balanced = (_or_infinite(value) for value in (upper, upper if balanced is None else balanced))
    lower = np.float64(lower)
    lower = np.float64(-np.inf) if np.isnan(lower) else min(lower, upper, balanced)
    gap = np.float64(np.inf)
    if np.isfinite(upper):
        gap = (upper - lower) / max(abs(upper), np.finfo(np.float64).tiny)
    return Certificate(upper, lower, gap, np.float64(heuristic_bound), scope, balanced=balanced)


def _or_infinite(value: Any) -> np.float64:
    value = np.float64(value)
    return np.float64(np.inf) if np.isnan(value) else value
