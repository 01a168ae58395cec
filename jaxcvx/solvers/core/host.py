"""The solution object of solvers that run on the host."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxcvx.certificates.certificate import Certificate
from jaxcvx.networks.network import Network, zero_network
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import History, Solution, Status

Trace = list[tuple[int, float, float]]


def usable(problem: Problem, network: Network) -> tuple[Network, bool]:
    """The network and True; if a weight is not finite, the network that predicts 0 and False."""
    finite = all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(network))
    return (network, True) if finite else (zero_network(problem), False)


def host_solution(
    network: Network,
    params: Any,
    certificate: Certificate,
    status: Status,
    num_steps: int,
    trace: Trace,
    program: tuple[float, float] | None = None,
) -> Solution:
    """The solution object.

    Args:
      network: the certified network.
      params: the solver's variables.
      certificate: of the network.
      status: how the loop ended.
      num_steps: number of steps taken.
      trace: (step, objective, bound) of each check.
      program: objective and dual value of the solver's own program. None takes the network's bounds.
    """
    checks: Any = np.array(trace, np.float64).reshape(-1, 3)
    objective, bound = program or (float(certificate.upper), float(certificate.lower))
    tiny, known = np.finfo(np.float64).tiny, np.isfinite(objective) and not np.isnan(bound)
    if not np.isfinite(objective):
        objective = np.inf
    return Solution(
        params=params,
        network=network,
        objective=np.float64(objective),
        program_gap=np.float64((objective - bound) / max(abs(objective), tiny) if known else np.inf),
        upper_bound=certificate.upper,
        lower_bound=certificate.lower,
        gap=certificate.gap,
        heuristic_bound=certificate.heuristic_bound,
        status=np.int32(status),
        num_steps=np.int32(num_steps),
        history=History(checks[:, 0].astype(np.int32), checks[:, 1], checks[:, 2], np.int32(len(trace))),  # type: ignore[arg-type]
        scope=certificate.scope,
    )
