"""Certificates by pricing: a pricer bounds the price ``||R^T (Z u)_+||`` of every neuron u, hence the dual norm."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcvx.certificates.certificate import PAYS, Certificate, make_certificate
from jaxcvx.certificates.dual import (
    all_networks_dual_norm,
    atom_dual_norm,
    bound_from_residuals,
    dual_residuals,
    scaled_bound,
)
from jaxcvx.networks.network import Network, objective_on_host
from jaxcvx.pricing.oracles import MultistartPricer, Pricer, heuristic_norm
from jaxcvx.pricing.search import grow_search, start_search
from jaxcvx.problems.training import Problem


def certify_priced(
    problem: Problem, network: Network, pricer: Pricer, dual: Any, key: Any, num: int, num_starts: int
) -> Certificate:
    """Certificate of a network with balanced neurons, by pricing its residual; call it in double precision.

    Args:
      problem: data, loss, beta.
      network: the network to certify.
      pricer: an exact pricer gives a lower bound. Multi-start pricing gives an estimate only, from fresh starts. If it
        has a budget for branch and bound, it gives a lower bound for all networks as well.
      dual: another dual residual (n, c), tried by exact pricers; or None.
      key: for the fresh starts.
      num: number of neurons to ask an exact pricer for. The number of earlier calls avoids a second compilation.
      num_starts: number of fresh starts.
    """
    residuals = dual_residuals(problem, network(problem.X), dual)
    upper = float(objective_on_host(network, problem))
    if pricer.exact:
        norms = [pricer(problem, R, None, None, num).upper for R in residuals]
        lower = bound_from_residuals(problem, network, residuals, norms, masked=False)
        return make_certificate(upper, lower, pricer.scope)
    own_residual = residuals[0]
    assert isinstance(pricer, MultistartPricer)
    ascents = heuristic_norm(problem, own_residual, key, network.hidden, num_starts)
    norm = jnp.maximum(ascents, atom_dual_norm(network, problem, own_residual))
    estimate = min(float(scaled_bound(problem, own_residual, norm)), upper)
    if pricer.branch_nodes is None:
        return make_certificate(upper, -np.inf, "heuristic", estimate)
    budget, lifted = pricer.branch_nodes, np.asarray(problem.readout.lift(own_residual))
    most = float(all_networks_dual_norm(problem, own_residual))
    search = start_search(np.asarray(problem.rows), lifted, np.asarray(network.hidden), most)
    search = grow_search(search, 0.0, report=lambda search: search.nodes >= budget)
    lower = bound_from_residuals(problem, network, [own_residual], [jnp.asarray(search.upper)], masked=False)
    made = make_certificate(upper, lower, "global" if search.closed else "relaxation", estimate)
    pays = search.value > float(problem.beta) * (1 + PAYS)
    return dataclasses.replace(made, neuron=search.neuron if pays else None, work=search.nodes)
