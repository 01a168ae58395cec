"""Lower bounds for all networks by a search over neurons, to a gap or for a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.certificates.centring import best_shifted, feasible_residual
from jaxcvx.certificates.certificate import PAYS, Certificate, make_certificate
from jaxcvx.certificates.dual import all_networks_dual_norm, atom_dual_norm, proved_bound
from jaxcvx.networks.network import Network, objective_on_host
from jaxcvx.pricing.search import PriceSearch, grow_search, renewed_search, start_search
from jaxcvx.problems.training import Problem
from jaxcvx.status import CallbackFunction, Status, StepInfo

_BETTER = 1e-6  # relative growth of the largest price found at which the level is computed anew
_HALVINGS = 40

Progress = Callable[[float, float, PriceSearch], bool]


@dataclasses.dataclass
class Proof:
    """A lower bound on the objective of every network, and the search behind it. It can be pickled and go on.

    Attributes:
      upper: objective of the network with balanced neurons.
      lower: proved lower bound.
      search: the search over neurons.
      residual: (n, c) the dual residual of which a multiple gives the bound.
      floor: price of the network's own neurons and of a skip connection; the bound holds for these too.
      seconds: time spent so far.
      status: how it ended.
    """

    upper: float
    lower: float
    search: PriceSearch
    residual: Array
    floor: float
    seconds: float
    status: Status


@jax.jit
def _begin(problem: Problem, network: Network) -> tuple[Array, Array, Array]:
    """Dual residuals worth trying; for each the largest price of the network's own neurons, and a bound on prices."""
    tried = problem.loss.dual_candidates(best_shifted(problem, network(problem.X)), problem.targets)
    R = jax.vmap(lambda R: feasible_residual(problem, R))(tried)
    floor = jax.lax.map(lambda R: atom_dual_norm(network, problem, R), R)
    return R, floor, jax.lax.map(lambda R: all_networks_dual_norm(problem, R), R)


@jax.jit
def _bound(problem: Problem, R: Float[Array, "n c"], norm: Array) -> Array:
    return proved_bound(problem, R, norm, masked=False)


_dual_norm = jax.jit(all_networks_dual_norm)


def start_proof(problem: Problem, network: Network) -> Proof:
    """Residual, ascents and relaxation: a first bound in a fraction of a second. Call it in double precision.

    Args:
      problem: data, loss, beta; without cells.
      network: with balanced neurons.
    """
    began = time.perf_counter()
    upper, best = float(objective_on_host(network, problem)), None
    X: Any = np.asarray(problem.X)
    rows: Any = problem.features.matrix(X)
    for R, floor, most in zip(*jax.device_get(_begin(problem, network)), strict=True):
        lifted = np.asarray(problem.readout.lift(R))
        search = start_search(rows, lifted, np.asarray(network.hidden), float(most))
        proof = Proof(upper, -np.inf, search, R, float(floor), 0.0, Status.RUNNING)
        _tighten(proof, problem)
        best = proof if best is None or proof.lower > best.lower else best
    assert best is not None
    best.seconds = time.perf_counter() - began
    return best


def renewed(proof: Proof, problem: Problem, network: Network) -> Proof:
    """The proof for another network, with what is still true of the search. The bound for all networks stays."""
    began = time.perf_counter()
    tried = jax.device_get(_begin(problem, network))
    if len(tried[0]) > 1:
        new = start_proof(problem, network)
    else:
        R, floor, most = (a[0] for a in tried)
        shift = float(_dual_norm(problem, R - proof.residual)) * (1 + 1e-9)
        lifted = np.asarray(problem.readout.lift(R))
        search = renewed_search(proof.search, lifted, np.asarray(network.hidden), shift, float(most))
        new = Proof(float(objective_on_host(network, problem)), -np.inf, search, R, float(floor), 0.0, Status.RUNNING)
    new.lower = min(proof.lower, new.upper)
    _tighten(new, problem)
    new.seconds = proof.seconds + time.perf_counter() - began
    return new


def grow_proof(proof: Proof, problem: Problem, tol: float, max_seconds: float, report: Progress | None = None) -> Proof:
    """Search until the gap is at most ``tol``, as small as this network's residual allows, or time is out.

    Args:
      proof: from :func:`start_proof`, or from an earlier call; it is changed.
      problem: data, loss, beta.
      tol: relative gap to reach.
      max_seconds: time of this call.
      report: called with upper bound, lower bound and search; the search stops if it returns True.

    Returns:
      The proof.
    """
    began, before = time.perf_counter(), proof.seconds
    stopped = False

    def tell(_: PriceSearch) -> bool:
        nonlocal stopped
        _tighten(proof, problem)
        proof.seconds = before + time.perf_counter() - began
        stopped = report is not None and bool(report(proof.upper, proof.lower, proof.search))
        return stopped or proof.search.value > value * (1 + _BETTER)  # a better neuron: the level moves

    while True:
        value = proof.search.value
        level = _level(proof, problem, tol)
        reached = proof.search.finished(level)
        late = time.perf_counter() - began >= max_seconds
        if reached or late or stopped:
            break
        nodes = proof.search.nodes
        grow_search(proof.search, level, began + max_seconds, tell)
        _tighten(proof, problem)
        if proof.search.nodes == nodes:
            break  # what is left is rounding: no node can be split any more
    proof.seconds = before + time.perf_counter() - began
    good = proof.upper - proof.lower <= tol * abs(proof.upper)
    proof.status = Status.CONVERGED if good or reached else Status.STOPPED if stopped else Status.MAX_STEPS
    return proof


def _tighten(proof: Proof, problem: Problem) -> None:
    found = float(_bound(problem, proof.residual, np.float64(max(proof.search.upper, proof.floor))))
    proof.lower = max(proof.lower, min(found, proof.upper))


def _level(proof: Proof, problem: Problem, tol: float) -> float:
    """The largest price bound that gives the gap, or nearly the smallest gap that this residual allows."""

    def lower(norm: float) -> float:
        return float(_bound(problem, proof.residual, np.float64(max(norm, proof.floor))))

    least, most = max(proof.search.value, proof.floor), proof.search.upper
    goal = min(proof.upper * (1 - tol), lower(least) - 0.1 * tol * abs(proof.upper))
    if lower(most) >= goal or least <= 0:
        return most
    for _ in range(_HALVINGS):
        middle = (least * most) ** 0.5
        least, most = (middle, most) if lower(middle) >= goal else (least, middle)
    return least


def progress_report(name: str, network: Network, callback: CallbackFunction | None) -> Progress:
    """What a callback is told of a search, as a :class:`jaxcvx.StepInfo`."""

    def report(upper: float, lower: float, search: PriceSearch) -> bool:
        gap = (upper - lower) / max(abs(upper), np.finfo(float).tiny)
        info = StepInfo(name, search.nodes, search.nodes + search.open, upper, lower, gap, network)
        return bool(callback(info)) if callback is not None else False

    return report


def proved_certificate(proof: Proof, problem: Problem, upper: float) -> Certificate:
    """The certificate of a network with objective ``upper`` for the weights as given."""
    search = proof.search
    pays = search.value > float(problem.beta) * (1 + PAYS)
    made = make_certificate(upper, proof.lower, "global" if search.closed else "relaxation", balanced=proof.upper)
    extra: Any = {"work": search.nodes, "seconds": proof.seconds, "status": proof.status}
    return dataclasses.replace(made, neuron=search.neuron if pays else None, **extra)
