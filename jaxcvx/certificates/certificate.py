"""Certificates: how far a network, trained by anything, can be from the global optimum."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import (
    Arrangements,
    arrangements_of,
    is_traced,
    max_num_cells,
    merge_arrangements,
    validate_arrangements,
)
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.certificates.dual import all_networks_dual_norm, atom_dual_norm, best_bound, relaxed_dual_norm
from jaxcvx.certificates.relaxed import MAX_ORDER, relaxation_order, semidefinite_dual_norm
from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.networks.network import Network, balance, network_objective, problem_for
from jaxcvx.problems.losses import Loss
from jaxcvx.problems.relu import Problem

_AUTO_MAX_CELLS = 20_000


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
    """

    upper: Any
    lower: Any
    gap: Any
    heuristic_bound: Any
    scope: str = dataclasses.field(default="none", metadata={"static": True})


@contextlib.contextmanager
def double_precision():
    """Float64 on the host for the block inside: bounds are not left to an accelerator's float32."""
    if jax.config.read("jax_enable_x64") and jax.default_backend() == "cpu":
        yield  # as it is already; entering the contexts again would compile everything anew
        return
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def to_double(tree: Any) -> Any:
    """Copy of a pytree on the host with its floating leaves in float64; use inside double_precision."""

    def convert(x):
        host = np.asarray(x)
        return jnp.asarray(host.astype(np.float64) if jnp.issubdtype(host.dtype, jnp.floating) else host)

    return jax.tree.map(convert, tree)


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
        norm = all_networks_dual_norm(problem, R) if cells is None else relaxed_dual_norm(problem.operator, R)
        if semidefinite and (cells is None or cells.complete):
            neurons = semidefinite_dual_norm(problem.rows, problem.readout.lift(R), floor=own)
            skip = jnp.linalg.norm(problem.rows.T @ R) if problem.features.skip else 0.0
            norm = jnp.minimum(norm, jnp.maximum(neurons, skip))
        return jnp.maximum(own, norm)

    return best_bound(problem, network(problem.X), dual_norm)


@functools.partial(jax.jit, static_argnames="semidefinite")
def _evaluate(problem: Problem, network: Network, semidefinite: bool) -> tuple[Array, Array]:
    network = balance(network)
    upper = network_objective(network, problem)
    return upper, jnp.minimum(network_bound(problem, network, semidefinite), upper)


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
      method: "exact": neurons are priced exactly in every cell (one output only); without arrangements all
        cells are enumerated. "relaxed": neurons are priced by a semidefinite relaxation that needs no cells
        and holds for all networks, on data with n + min(n, d) up to 220 (seconds to a minute; beyond, by a
        crude closed form). Given cells that are not complete are priced one by one instead.
        "auto": the cells if given; else all cells if there are at most 20000; else the crude closed form.

    Returns:
      A Certificate. Its scope is "global" only for one output and complete arrangements.

    Raises:
      InvalidInputError, InvalidTypeError: bad arguments.
      TooManyArrangements: method "exact" without arrangements on data with too many cells.
    """
    if method not in ("auto", "exact", "relaxed"):
        raise invalid("method", repr(method), "'auto', 'exact' or 'relaxed'")
    if is_traced(*jax.tree.leaves((network, X, Y, beta, arrangements))):
        raise InvalidTypeError("certify: got traced arrays, expected concrete ones (solve works under jit).")
    if not isinstance(arrangements, Arrangements | None):
        raise InvalidTypeError(f"arrangements: got {type(arrangements).__name__}, expected Arrangements.")
    with double_precision():
        network, X, Y, beta = (to_double(a) for a in (network, X, Y, beta))
        problem = problem_for(network, X, Y, beta, loss)
        if method == "exact" and problem.num_columns > 1:
            got = f"'exact' with {problem.num_columns} output weights per neuron"
            raise invalid("method", got, "'auto' or 'relaxed' for several outputs")
        rows = np.asarray(problem.rows)
        if arrangements is not None:
            arrangements = to_double(arrangements)
            validate_arrangements(arrangements, *rows.shape)
        elif method == "exact":
            arrangements = enumerate_arrangements(problem.X, features=problem.features)
        elif method == "auto" and max_num_cells(len(rows), np.linalg.matrix_rank(rows)) <= _AUTO_MAX_CELLS:
            arrangements = enumerate_arrangements(problem.X, features=problem.features)
        if arrangements is not None and not arrangements.complete:
            own = arrangements_of(network, problem.X)
            arrangements = merge_arrangements(arrangements, own) if own.num_cells else arrangements
        exact = arrangements is not None and problem.num_columns == 1
        semidefinite = method == "relaxed" and not exact and relaxation_order(*rows.shape) <= MAX_ORDER
        upper, lower = _evaluate(problem.replace(arrangements=arrangements), network, semidefinite)
        return make_certificate(upper, lower, bound_scope(arrangements, problem.num_columns))


def make_certificate(upper: Any, lower: Any, scope: str, heuristic_bound: float = -np.inf) -> Certificate:
    """Assemble a certificate from its two bounds, as float64 numbers; NaN (invalid data) claims nothing."""
    upper, lower = np.float64(upper), np.float64(lower)
    upper = np.float64(np.inf) if np.isnan(upper) else upper
    lower = np.float64(-np.inf) if np.isnan(lower) else np.minimum(lower, upper)
    gap = np.float64(np.inf)
    if np.isfinite(upper):
        gap = (upper - lower) / max(abs(upper), np.finfo(np.float64).tiny)
    return Certificate(upper, lower, gap, np.float64(heuristic_bound), scope)
