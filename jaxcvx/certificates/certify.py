"""certify: a certificate for a network trained by anything."""

from __future__ import annotations

import functools
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
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.losses.base import Loss
from jaxcvx.networks.network import Network, balance, checked_network, network_objective, padded, problem_for
from jaxcvx.numerics.precision import double_precision, to_double, with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.pricing.oracles import choose_pricer, sweeps
from jaxcvx.pricing.semidefinite import MAX_ORDER, relaxation_order
from jaxcvx.problems.training import Problem

_AUTO_MAX_CELLS = 20_000
_AUTO_MAX_RANK = 3  # of data with several outputs, for exact pricing without being asked
_FRESH_STARTS = 5000


@functools.partial(jax.jit, static_argnames="semidefinite")
def _evaluate(problem: Problem, network: Network, semidefinite: bool) -> tuple[Array, Array]:
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
) -> Certificate:
    """Bound how far a network is from the best possible training objective.

    The network may come from anywhere: an Adam run, or arrays of another framework wrapped as
    ``Network(hidden (m, d), output (m, c))``. The upper bound is its own objective, the lower bound the dual
    value of its scaled residual: a network far from optimal gets a loose lower bound, an optimal one a
    tight one. Evaluated in float64 on the host; not for use inside jit.

    Args:
      network: the network.
      X, Y, beta, loss: as in :func:`jaxcvx.make_problem`.
      arrangements: cells to range over. If they are not complete, the network's own cells are added.
      method: "exact": neurons are priced exactly in every cell, those of several outputs by the cells' faces
        (low rank); without arrangements all cells are enumerated. "relaxed": neurons are priced by a
        semidefinite relaxation that needs no cells and holds for all networks, on data with n + min(n, d) up to
        220 (seconds to a minute; beyond, by a crude closed form). Given cells that are not complete are
        priced one by one instead. "multistart": no lower bound, but an estimate, ``heuristic_bound``, from 5000
        fresh ascents. "auto": exact over the cells if given, else over all cells if there are at most 20000
        (several outputs: and rank at most 3); else the crude closed form.

    Returns:
      A Certificate. Its scope is "global" only where all cells were priced exactly.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments.
      TooManyArrangements: method "exact" without arrangements on data with too many cells, or too many faces.
    """
    if method not in ("auto", "exact", "relaxed", "multistart"):
        raise invalid("method", repr(method), "'auto', 'exact', 'relaxed' or 'multistart'")
    if is_traced(*jax.tree.leaves((network, X, Y, beta, arrangements))):
        raise InvalidTypeError("certify: got traced arrays, expected concrete ones (solve works under jit).")
    if not isinstance(arrangements, Arrangements | None):
        raise InvalidTypeError(f"arrangements: got {type(arrangements).__name__}, expected Arrangements.")
    with double_precision():
        network = to_double(checked_network(network))
        problem = problem_for(network, _widened(X), _widened(Y), beta, loss)
        if method == "multistart":
            pricer = choose_pricer(problem, "multistart", 1)
            return certify_priced(problem, balance(network), pricer, None, jax.random.key(0), 1, _FRESH_STARTS)
        if problem.features.free_bias:
            return _certify_free_bias(problem, balance(network), arrangements, method)
        rows = problem.rows
        several, (count, rank) = problem.num_columns > 1, count_cells(rows)
        few = count <= _AUTO_MAX_CELLS
        if arrangements is not None:
            validate_arrangements(arrangements, *rows.shape)
            arrangements = to_double(arrangements)
        elif method == "exact" or (method == "auto" and few):
            arrangements = enumerate_arrangements(problem.X, features=problem.features)
        if arrangements is not None and not arrangements.complete:
            own = arrangements_of(network, problem.X)
            arrangements = merge_arrangements(arrangements, own) if own.num_cells else arrangements
        problem = problem.replace(arrangements=arrangements)
        by_faces = method == "exact" or (method == "auto" and few and rank <= _AUTO_MAX_RANK)
        if several and arrangements is not None and by_faces:
            return certify_priced(problem, balance(network), choose_pricer(problem, "exact", 1), None, None, 1, 1)
        exact = arrangements is not None and not several
        semidefinite = method == "relaxed" and not exact and relaxation_order(*rows.shape) <= MAX_ORDER
        upper, lower = _evaluate(problem, padded(network), semidefinite)
        return make_certificate(upper, lower, bound_scope(arrangements, problem.num_columns))


def _widened(value: Any) -> Any:
    """Real numbers in float64, so that no digit is lost; anything else as it is, to be refused."""
    if isinstance(value, jax.Array | np.ndarray) and jnp.issubdtype(value.dtype, jnp.floating):
        return np.asarray(value).astype(np.float64)
    return value


def _certify_free_bias(
    problem: Problem, network: Network, arrangements: Arrangements | None, method: str
) -> Certificate:
    """As ``certify``, where biases are free: exact by a sweep or by faces, else the crude closed form."""
    if arrangements is not None:
        raise invalid("arrangements", "cells", "None for a network with FreeBias()")
    if method == "relaxed":
        raise invalid("method", "'relaxed'", "'auto', 'exact' or 'multistart' for a network with FreeBias()")
    count, rank = count_cells(problem.rows)
    if method == "exact" or sweeps(problem) or (count <= _AUTO_MAX_CELLS and rank <= _AUTO_MAX_RANK + 1):
        return certify_priced(problem, network, choose_pricer(problem, "exact", 1), None, None, 1, 1)
    upper, lower = _evaluate(problem, padded(network), False)
    return make_certificate(upper, lower, "relaxation")
