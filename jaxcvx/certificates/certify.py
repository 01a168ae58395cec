"""certify: a certificate for a network trained by anything."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcvx.arrangements.cells import (
    Arrangements,
    arrangements_of,
    count_cells,
    merge_arrangements,
    validate_arrangements,
)
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.certificates.certificate import Certificate, bound_scope, make_certificate, network_bound
from jaxcvx.certificates.priced import certify_priced
from jaxcvx.certificates.proof import grow_proof, progress_report, proved_certificate, start_proof
from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.losses.base import Loss
from jaxcvx.networks.network import (
    Network,
    balance,
    checked_network,
    network_objective,
    objective_on_host,
    padded,
    problem_for,
)
from jaxcvx.numerics.precision import double_precision, to_double, widened, with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key, check_number
from jaxcvx.pricing.oracles import AUTO_MAX_CELLS, AUTO_MAX_RANK, choose_pricer, few_cells, sweeps
from jaxcvx.pricing.semidefinite import MAX_ORDER, relaxation_order
from jaxcvx.problems.training import Problem, without_unweighted_samples
from jaxcvx.status import CallbackFunction

METHODS = ("auto", "exact", "branch", "relaxed", "multistart")
_FRESH_STARTS = 5000


@functools.partial(jax.jit, static_argnames="semidefinite")
def _evaluate(problem: Problem, network: Network, semidefinite: bool) -> tuple[Array, Array]:
    """Objective of the balanced network, and the lower bound from its residual."""
    network = balance(network)
    upper = network_objective(network, problem)
    return upper, jnp.minimum(network_bound(problem, network, semidefinite), upper)


@with_full_precision
def certify(
    network: Network,
    X: Any,
    Y: Any,
    beta: Any,
    *,
    loss: str | Loss = "squared",
    arrangements: Arrangements | None = None,
    method: str = "auto",
    tol: float = 1e-2,
    max_seconds: float = 60.0,
    key: Any = None,
    callback: CallbackFunction | None = None,
    sample_weight: Any = None,
) -> Certificate:
    """Bound how far a network is from the best possible training objective.

    The network may come from anywhere: an Adam run, or arrays of another framework wrapped as
    ``Network(hidden (m, d), output (m, c))``. The upper bound is its own objective, with the weights as given; the
    objective after balancing is in the field ``balanced``. The lower bound is the dual value of the network's scaled
    residual: it is loose for a network far from optimal and tight for an optimal one. Everything is evaluated in
    float64 on the host, so ``certify`` cannot be used inside jit.

    Args:
      network: the network.
      X, Y, beta, loss: as in :func:`jaxcvx.make_problem`.
      arrangements: cells; the lower bound covers networks whose neurons lie in them. If they are not complete, the
        network's own cells are added.
      method: "exact": the best neuron is computed exactly in every cell, for several outputs from the cells' faces
        (low rank). Without arrangements all cells are enumerated.
        "branch": the best neuron is bounded by branch and bound, without cells, for all networks. The bound is valid
        at any time; the search ends at a gap of ``tol``, at the smallest gap that this network allows, or after
        ``max_seconds``.
        "relaxed": the best neuron is bounded by relaxations, without a search, for all networks: the first bound of
        "branch", and on data with n + min(n, d) up to 220 a semidefinite relaxation of this order (seconds to a
        minute). Cells that are given but not complete are treated one by one instead.
        "multistart": no lower bound, but an estimate, ``heuristic_bound``, from 5000 fresh ascents.
        "auto": exact over the cells if given; else exact over all cells if there are at most 20000 of them (several
        outputs: and the data have rank at most 3); else "branch".
      tol: relative gap at which "branch" ends.
      max_seconds: time of "branch" in seconds, compilation included. One step of it may take longer.
      key: random key of "multistart", or None for ``jax.random.key(0)``.
      callback: called with a :class:`jaxcvx.StepInfo` during "branch": ``step`` is the number of nodes bounded,
        ``max_steps`` that and the nodes left open, ``objective`` and ``bound`` are those of the network, ``residual``
        is the gap. The search stops if it returns True.

    Returns:
      A Certificate. Its scope is "global" only if the best neuron was computed exactly over all cells.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments.
      TooManyArrangements: method "exact" without arrangements on data with too many cells, or too many faces.

    Example:
      >>> import jaxcvx
      >>> X, y = [[1.0], [2.0], [-1.0]], [1.0, 2.0, 0.0]
      >>> network = jaxcvx.Network(hidden=[[0.9]], output=[[1.0]])
      >>> certificate = jaxcvx.certify(network, X, y, beta=0.1)
      >>> print(f"{certificate.lower:.3f} <= optimum <= {certificate.upper:.3f} ({certificate.scope})")
      0.099 <= optimum <= 0.115 (global)
    """
    if method not in METHODS:
        raise invalid("method", repr(method), "one of " + ", ".join(map(repr, METHODS)))
    for name, number in (("tol", tol), ("max_seconds", max_seconds)):
        check_number(name, number)
    if is_traced(*jax.tree.leaves((network, X, Y, beta, arrangements, sample_weight))):
        raise InvalidTypeError("certify: got traced arrays, expected concrete ones (solve works under jit).")
    if not isinstance(arrangements, Arrangements | None):
        raise wrong_type("arrangements", arrangements, "Arrangements")
    if key is not None:
        check_key(key)
    with double_precision():
        network = to_double(checked_network(network))
        problem = problem_for(
            network, widened("X", X), widened("Y", Y), beta, loss, widened("sample_weight", sample_weight)
        )
        problem = problem if arrangements is not None else without_unweighted_samples(problem)
        upper = objective_on_host(network, problem)
        if method == "multistart":
            pricer = choose_pricer(problem, "multistart", 1)
            key = jax.random.key(0) if key is None else key
            made = certify_priced(problem, balance(network), pricer, None, key, 1, _FRESH_STARTS)
        elif _searches(problem, arrangements, method):
            return _search(problem, network, float(upper), tol, max_seconds, callback)
        elif problem.features.free_bias:
            made = _certify_free_bias(problem, network, arrangements, method)
        else:
            made = _certify_cells(problem, network, arrangements, method)
            if method == "relaxed" and made.scope == "relaxation" and np.isfinite(made.upper):
                first = start_proof(problem, balance(network))
                made = dataclasses.replace(made, lower=max(made.lower, first.lower))
    return make_certificate(upper, made.lower, made.scope, made.heuristic_bound, balanced=made.upper)


def _searches(problem: Problem, arrangements: Arrangements | None, method: str) -> bool:
    """True if the bound comes from branch and bound.

    Raises:
      InvalidInputError: "branch" with cells or with free biases.
    """
    if method == "branch" and arrangements is not None:
        raise invalid("arrangements", "cells", "None for the method 'branch'")
    if method == "branch" and problem.features.free_bias:
        raise invalid("method", "'branch'", "'auto', 'exact' or 'multistart' for a network with FreeBias()")
    if method != "auto" or arrangements is not None or problem.features.free_bias:
        return method == "branch"
    count, rank = count_cells(problem.rows)
    return count > AUTO_MAX_CELLS or (problem.num_columns > 1 and rank >= AUTO_MAX_RANK)


def _search(
    problem: Problem, network: Network, upper: float, tol: float, max_seconds: float, callback: Any
) -> Certificate:
    """Certificate by branch and bound."""
    began = time.perf_counter()
    if not np.isfinite(upper) or not np.all(np.isfinite(np.asarray(problem.rows))):
        return make_certificate(upper, -np.inf, "relaxation")
    proof = start_proof(problem, balance(network))

    report = progress_report("certify", network, callback)
    proof = grow_proof(proof, problem, tol, max_seconds - (time.perf_counter() - began), report)
    return proved_certificate(proof, problem, upper)


def _certify_cells(problem: Problem, network: Network, arrangements: Arrangements | None, method: str) -> Certificate:
    """Certificate of the balanced network over cells, or over all networks by a relaxation."""
    rows = problem.rows
    several_outputs, (count, rank) = problem.num_columns > 1, count_cells(rows)
    few = count <= AUTO_MAX_CELLS
    if arrangements is not None:
        validate_arrangements(arrangements, *rows.shape)
        arrangements = to_double(arrangements)
    elif method == "exact" or (method == "auto" and few):
        arrangements = enumerate_arrangements(problem.X, features=problem.features)
    if arrangements is not None and not arrangements.complete:
        own = arrangements_of(network, problem.X)
        arrangements = merge_arrangements(arrangements, own) if own.num_cells else arrangements
    problem = problem.replace(arrangements=arrangements)
    by_faces = method == "exact" or (method == "auto" and few and rank < AUTO_MAX_RANK)
    if several_outputs and arrangements is not None and by_faces:
        return certify_priced(problem, balance(network), choose_pricer(problem, "exact", 1), None, None, 1, 1)
    exact = arrangements is not None and not several_outputs
    semidefinite = method == "relaxed" and not exact and relaxation_order(*rows.shape) <= MAX_ORDER
    upper, lower = _evaluate(problem, padded(network), semidefinite)
    return make_certificate(upper, lower, bound_scope(arrangements, problem.num_columns))


def _certify_free_bias(
    problem: Problem, network: Network, arrangements: Arrangements | None, method: str
) -> Certificate:
    """The same with free biases: exact by a sweep or by faces, else the crude closed form."""
    if arrangements is not None:
        raise invalid("arrangements", "cells", "None for a network with FreeBias()")
    if method == "relaxed":
        raise invalid("method", "'relaxed'", "'auto', 'exact' or 'multistart' for a network with FreeBias()")
    if method == "exact" or sweeps(problem) or few_cells(problem):
        return certify_priced(problem, balance(network), choose_pricer(problem, "exact", 1), None, None, 1, 1)
    upper, lower = _evaluate(problem, padded(network), False)
    return make_certificate(upper, lower, "relaxation")
