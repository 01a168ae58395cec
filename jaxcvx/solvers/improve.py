"""improve: prove a bound for a network, and use every neuron that the proof finds to make the network better."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.certificates.certificate import PAYS, Certificate
from jaxcvx.certificates.proof import Proof, grow_proof, progress_report, proved_certificate, renewed, start_proof
from jaxcvx.errors import InvalidTypeError
from jaxcvx.losses.base import Loss
from jaxcvx.networks.network import Network, balance, checked_network, concatenate, objective_on_host, problem_for
from jaxcvx.numerics.on_host import key_of, list_of_keys, on_device
from jaxcvx.numerics.precision import double_precision, to_double, widened, with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key, check_number
from jaxcvx.problems.training import Problem, without_unweighted_samples
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.requirements import refuse_unmet
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration
from jaxcvx.status import CallbackFunction, Status

_SMALL = 1e-3  # size of an inserted neuron over the mean size of the network's
_GAINS = 1e-10  # relative fall of the objective below which insertion ends
_SHARE = 0.1  # of tol: a neuron whose price exceeds beta by less hardly counts for the gap, and is not inserted
_TOL = 1e-9  # estimated gap of a fit


@with_full_precision
def improve(
    network: Network,
    X: Any,
    Y: Any,
    beta: Any,
    *,
    loss: str | Loss = "squared",
    tol: float = 1e-2,
    max_seconds: float = 60.0,
    key: Any = None,
    callback: CallbackFunction | None = None,
    sample_weight: Any = None,
) -> tuple[Network, Certificate]:
    """Certify a network; where a neuron pays, insert it, fit all neurons, move and polish them; again until proved.

    A neuron pays if its price exceeds beta: then adding it lowers the objective. The branch and bound of
    :func:`jaxcvx.certify` finds such neurons, or proves that there is none. Neurons whose price exceeds beta by less
    than a tenth of ``tol`` are left alone. Works only outside jit.

    Args:
      network: the network, trained by anything.
      X, Y, beta, loss: as in :func:`jaxcvx.make_problem`; a smooth loss.
      tol: relative gap at which the search ends.
      max_seconds: time in seconds, compilation included. A fit that is under way is not interrupted.
      key: random key of the fits, or None for ``jax.random.key(0)``.
      callback: as for :func:`jaxcvx.certify`; it ends the whole search if it returns True.
      sample_weight: as in :func:`jaxcvx.make_problem`.

    Returns:
      The network, whose objective is never larger than that of the given one, and its certificate.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments.

    Example:
      >>> import jaxcvx
      >>> X, y = [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]], [1.0, 0.0, 1.0, 0.5]
      >>> network = jaxcvx.Network([[0.5, 0.1]], [[0.5]])
      >>> better, certificate = jaxcvx.improve(network, X, y, 0.05)
      >>> bool(certificate.gap < 0.01), better.width > 1
      (True, True)
    """
    if is_traced(*jax.tree.leaves((network, X, Y, beta, sample_weight))):
        raise InvalidTypeError("improve: got traced arrays, expected concrete ones (solve works under jit).")
    for name, number in (("tol", tol), ("max_seconds", max_seconds)):
        check_number(name, number)
    if key is not None:
        check_key(key)
    began = time.perf_counter()
    with double_precision():
        best = jax.device_get(to_double(checked_network(network)))
        X, Y, sample_weight = widened("X", X), widened("Y", Y), widened("sample_weight", sample_weight)
        problem = without_unweighted_samples(problem_for(best, X, Y, beta, loss, sample_weight))
        fit = ColumnGeneration(tol=_TOL, pricing="multistart", final_starts=1)
        refuse_unmet(problem, fit.requires, "improve")
        stopped = False

        def report(upper: float, lower: float, search: Any) -> bool:
            nonlocal stopped
            stopped = progress_report("improve", best, callback)(upper, lower, search)
            return stopped or pays(search.value)

        def pays(price: float) -> bool:
            return may_gain and price > float(problem.beta) * (1 + max(PAYS, _SHARE * tol))

        may_gain, proof = True, start_proof(problem, balance(best))
        for here in list_of_keys(key_of(0) if key is None else key, 1000):
            left = max_seconds - (time.perf_counter() - began)
            if not pays(proof.search.value):
                proof = grow_proof(proof, problem, tol, max(left, 0.0), report)
            left = max_seconds - (time.perf_counter() - began)
            if stopped or not pays(proof.search.value) or left <= 0:
                break
            better = _with_neuron(problem, best, proof, fit, here, left)
            before, after = (float(objective_on_host(each, problem)) for each in (balance(best), better))
            may_gain = after < before * (1 - _GAINS)
            if after < before:
                best = better
                proof = renewed(proof, problem, balance(best))
        if proof.status == Status.RUNNING:
            proof.status = Status.STOPPED if stopped else Status.MAX_STEPS
        best = balance(best)
        certificate = proved_certificate(proof, problem, float(objective_on_host(best, problem)))
        return on_device(best), certificate


def _with_neuron(
    problem: Problem, network: Network, proof: Proof, solver: ColumnGeneration, key: Any, seconds: float
) -> Network:
    """The network with the best neuron of the search, fitted anew."""
    u = proof.search.neuron
    inner = np.maximum(np.asarray(problem.rows) @ u, 0.0)
    v = np.asarray(problem.readout.lift(proof.residual)).T @ inner
    size = _SMALL * max(float(jnp.mean(jnp.linalg.norm(network.hidden, axis=1))), float(jnp.finfo(jnp.float32).tiny))
    added = Network(
        jnp.asarray(size * u[None]), jnp.asarray(size * v[None] / np.linalg.norm(v)), None, network.features
    )
    solver = dataclasses.replace(solver, max_seconds=seconds)
    return balance(solve(problem, solver, init=concatenate(network, added), key=key).network)
