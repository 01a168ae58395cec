"""Certificates: how far a network, trained by anything, can be from the global optimum."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import (
    Arrangements,
)
from jaxcvx.certificates.dual import all_networks_dual_norm, atom_dual_norm, best_bound, relaxed_dual_norm
from jaxcvx.networks.network import Network
from jaxcvx.pricing.semidefinite import semidefinite_dual_norm
from jaxcvx.problems.training import Problem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Certificate:
    """A statement about one network, computed from its weights.

    Attributes:
      upper: float64 scalar, training objective of the network (balanced: rescaling neurons is free).
      lower: proved lower bound on the training objective of every network in ``scope``; -inf if none.
      gap: ``(upper - lower) / max(|upper|, tiny)``.
      heuristic_bound: an estimate that is not proved; -inf if none was made.
      scope: static; "global": all networks, exact. "relaxation": all networks, by a relaxation.
        "sampled-cells": networks whose neurons lie in the given cells or in this network's.
      precision: static; the dtype in which the bounds were evaluated. ``certify`` takes "float64" for all data.
    """

    upper: Any
    lower: Any
    gap: Any
    heuristic_bound: Any
    scope: str = dataclasses.field(default="none", metadata={"static": True})
    precision: str = dataclasses.field(default="float64", metadata={"static": True})


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
      semidefinite: static; where all networks are ranged over, price by the semidefinite relaxation as well
        and take the smaller bound.
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


def make_certificate(upper: Any, lower: Any, scope: str, heuristic_bound: float = -np.inf) -> Certificate:
    """Assemble a certificate from its two bounds, as float64 numbers; NaN (invalid data) claims nothing."""
    upper, lower = np.float64(upper), np.float64(lower)
    upper = np.float64(np.inf) if np.isnan(upper) else upper
    lower = np.float64(-np.inf) if np.isnan(lower) else np.minimum(lower, upper)
    gap = np.float64(np.inf)
    if np.isfinite(upper):
        gap = (upper - lower) / max(abs(upper), np.finfo(np.float64).tiny)
    return Certificate(upper, lower, gap, np.float64(heuristic_bound), scope)
