"""Certificates by pricing: dual bounds from the best neuron that a pricer finds, or proves not to exist."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcvx.certificates.certificate import Certificate, make_certificate
from jaxcvx.certificates.dual import atom_dual_norm, bound_from_residuals, dual_residuals, scaled_bound
from jaxcvx.networks.network import Network, objective_on_host
from jaxcvx.pricing.branch_and_bound import price_branch
from jaxcvx.pricing.oracles import MultistartPricer, Pricer, heuristic_norm
from jaxcvx.problems.training import Problem


def certify_priced(
    problem: Problem, network: Network, pricer: Pricer, dual: Any, key: Any, num: int, num_starts: int
) -> Certificate:
    """Certificate of a network by pricing its residual; call it in double precision.

    Args:
      problem: data, loss, beta.
      network: what is returned to the caller.
      pricer: exact pricing gives a lower bound; multi-start an estimate, from fresh starts, and with a budget
        for branch and bound also a lower bound for all networks.
      dual: another dual residual (n, c) to try where pricing is exact, or None.
      key: for the fresh starts.
      num: neurons that the pricer was asked for before, so that nothing is compiled anew.
      num_starts: how many of them.
    """
    residuals = dual_residuals(problem, network(problem.X), dual)
    upper = float(objective_on_host(network, problem))
    if pricer.exact:
        norms = [pricer(problem, R, None, None, num).upper for R in residuals]
        lower = bound_from_residuals(problem, network, residuals, norms, masked=False)
        return make_certificate(upper, lower, pricer.scope)
    own_residual = residuals[0]
    assert isinstance(pricer, MultistartPricer)
    found = heuristic_norm(problem, own_residual, key, network.hidden, num_starts)
    own = atom_dual_norm(network, problem, own_residual)
    estimate = min(float(scaled_bound(problem, own_residual, jnp.maximum(found, own))), upper)
    if pricer.branch_nodes is None:
        return make_certificate(upper, -np.inf, "heuristic", estimate)
    lifted = problem.readout.lift(own_residual)
    branched = price_branch(problem.rows, lifted, incumbent=network.hidden, max_nodes=pricer.branch_nodes)
    lower = bound_from_residuals(problem, network, [own_residual], [branched.upper], masked=False)
    return make_certificate(upper, lower, "global" if branched.exact else "relaxation", estimate)
