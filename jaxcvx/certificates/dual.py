"""Dual bounds: scale a residual until it is dual feasible, and evaluate the dual objective there.

The dual of the training problem is ``max_R -loss*(-R)`` subject to ``||lift(R)^T (Z u)_+|| <= beta`` for all
||u|| <= 1. A skip connection adds the constraint ``||Z^T lift(R)||_F <= beta``. Z holds the feature rows. The map
``lift`` takes residuals of samples to residuals of rows; it is the identity for dense networks, and docstrings below
leave it out.

The price of a unit neuron u at a residual R is ``||R^T (Z u)_+||``. A dual norm M is an upper bound on the price of all
neurons in some set. If |s| <= beta / M, then s R is feasible for the problem restricted to that set, and its dual value
is a lower bound on the objective of every network made of these neurons.

With an output bias the dual has the constraint ``sum_i R_i = 0`` as well: for any network with predictions F + c,
Fenchel's inequality ``loss(F + c) >= -loss*(-R) - <R, F + c>`` then holds without c. Every R below must be a
``feasible_residual``; see :mod:`jaxcvx.certificates.centring`. With free hidden biases ||u|| leaves the bias out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.certificates.centring import (
    best_shifted,
    dual_targets,
    feasible_residual,
    imbalance,
    imbalance_price,
    spread,
)
from jaxcvx.networks.network import Network, hidden_norms
from jaxcvx.numerics.rounding import careful_sum, gamma, masked_sums_error, spectral_norm
from jaxcvx.numerics.safe import divide, divisor
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.proximal.polyhedral_cone import ActiveRows, lifted_by, no_active_rows, project_cone

Scalar = Float[Array, ""]

_MAX_PROJECTION_WORK = 2e7
_CHUNK = 16  # cells projected at a time
_NO_WINNER = 0.99  # a projection stops once it is shorter than this share of the longest so far


def scaled_bound(problem: Problem, R: Float[Array, "n c"], dual_norm: Scalar) -> Scalar:
    """Dual value of the best feasible multiple of R; it allows for a few units of rounding in ``dual_norm``.

    The solvers' loops compare these values. Bounds that are reported as proved come from :func:`proved_bound`.
    """
    terms, slack = _scaled_terms(problem, R, dual_norm)
    return _reported(problem, jnp.sum(terms) - slack)


def proved_bound(problem: Problem, R: Float[Array, "n c"], dual_norm: Scalar, *, masked: bool = True) -> Scalar:
    """Dual value of the best feasible multiple of R, rounded down: a lower bound that rounding cannot make invalid.

    The sums over rows in ``dual_norm`` have errors of up to ``gamma(N) |Z|^T |R|``. Their terms cancel, so the errors
    may be far more than a few units of rounding of the norm. They are added to the norm.

    Args:
      problem: data, loss, beta.
      R: dual residual, from the loss's ``grad`` or ``project_dual``.
      dual_norm: upper bound on the price of every neuron that the result covers, up to rounding in sums over rows.
      masked: True if these sums are those of ``problem.operator.carefully()``, which are more accurate in float32.
    """
    rows, lifted = problem.rows, problem.readout.lift(R)
    dtype, size = R.dtype, rows.shape[1] * lifted.shape[1]
    blocks = problem.operator.row_blocks(size, dtype) if masked and problem.arrangements is not None else 1
    norm = dual_norm * (1 + gamma(size + 64, dtype)) + masked_sums_error(rows, lifted, masked, blocks)
    share = imbalance(R) if problem.features.output_bias else None
    if share is not None:
        norm = norm + imbalance_price(problem, R, rows, share)
    if problem.features.free_bias:  # the columns of R sum to zero up to rounding only, and biases are unbounded
        norm = norm + gamma(4 * len(rows) + 8, dtype) * jnp.linalg.norm(lifted) * spread(problem, rows)
    terms, slack = _scaled_terms(problem, R, norm)
    value, error = careful_sum(terms)
    if share is not None:
        at_zero = problem.loss.dual_terms(jnp.zeros_like(R), problem.targets)[0]
        slack = slack + share * (jnp.sum(jnp.abs(terms)) + jnp.sum(jnp.abs(at_zero)))
    return _reported(problem, value - error - slack)


def _scaled_terms(problem: Problem, R: Float[Array, "n c"], norm: Scalar) -> tuple[Array, Scalar]:
    """Terms of the dual objective at the best multiple of R (-inf outside its domain), and their rounding error."""
    loss, info = problem.loss, jnp.finfo(R.dtype)
    Y, centred = dual_targets(problem)
    eps = 32 * info.eps
    scale = problem.beta / divisor(norm * (1 + eps))
    limit = jnp.where(norm > 0, scale, jnp.where(norm == 0, jnp.inf, 0.0))  # a norm of NaN allows R = 0 only
    scaled = loss.best_scaling(R, Y, limit) * R
    terms, inside = loss.dual_terms(scaled, Y)
    slack = eps * jnp.sum(jnp.abs(terms)) + terms.size * float(info.tiny)
    if centred is not None:  # entries of Y - mean are rounded, and products with them may cancel in a term
        slack = slack + eps * jnp.sum(jnp.abs(scaled * centred))
    return jnp.where(inside, terms, -jnp.inf), slack


def _reported(problem: Problem, bound: Scalar) -> Scalar:
    """The bound, or the dual value at R = 0 if that is larger: R = 0 is always feasible.

    A bound that is not finite counts as -inf, so that invalid data prove nothing.
    """
    zero = problem.loss.dual_value(jnp.zeros_like(problem.Y), problem.targets)
    return jnp.fmax(jnp.where(jnp.isfinite(bound), bound, -jnp.inf), zero)


def dual_residuals(problem: Problem, F: Float[Array, "n c"], dual: Array | None = None) -> list[Array]:
    """Dual residuals to bound from: that of the predictions F, and the solver's own if there is one.

    Args:
      problem: data and loss.
      F: predictions; their residual is minus the loss's gradient.
      dual: another residual (n, c), which need not lie in the dual objective's domain; or None.
    """
    residuals = [-problem.loss.grad(best_shifted(problem, F), problem.targets)]
    if dual is not None:
        residuals.append(problem.loss.project_dual(dual, problem.targets))
    return [feasible_residual(problem, R) for R in residuals]


def bound_from_residuals(
    problem: Problem, network: Network, residuals: Sequence[Array], norms: Sequence[Any], *, masked: bool = True
) -> Scalar:
    """The largest of the bounds that several residuals prove. It is below the objective of ``network`` too.

    Args:
      problem: data, loss, beta.
      network: the bound covers its neurons, wherever they lie.
      residuals: dual residuals, each (n, c), as for :func:`proved_bound`.
      norms: one per residual: a bound on ``||R^T (Z u)_+||`` over all other unit neurons u that the bound covers.
      masked: as for :func:`proved_bound`.
    """
    bounds = [
        proved_bound(problem, R, jnp.maximum(norm, atom_dual_norm(network, problem, R)), masked=masked)
        for R, norm in zip(residuals, norms, strict=True)
    ]
    return jnp.max(jnp.stack(bounds))


def best_bound(problem: Problem, F: Float[Array, "n c"], dual_norm: Callable[[Array], Scalar]) -> Scalar:
    """Best proved bound over the loss's dual candidates at predictions F; ``dual_norm`` maps R to its dual norm."""
    tried = problem.loss.dual_candidates(best_shifted(problem, F), problem.targets)
    candidates = jax.vmap(lambda R: feasible_residual(problem, R))(tried)
    masked = problem.arrangements is not None
    return jnp.max(jax.lax.map(lambda R: proved_bound(problem, R, dual_norm(R), masked=masked), candidates))


def gated_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Scalar:
    """``max_i ||Z^T D_i R||_F``: dual norm of the gated program, which has no cone constraints."""
    return jnp.max(group_norms(operator.adjoint(R)))


def skip_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Scalar:
    """``||Z^T R||_F`` if there is a skip connection, else 0."""
    zero = jnp.zeros((), R.dtype)
    return jnp.linalg.norm(operator.readout.price(operator.Z, R)) if operator.linear else zero


def _max_over_cells(
    bounds: Float[Array, P],
    evaluate: Callable[[Array, Array, Any], tuple[Array, Any]],
    state: Any = None,
    first: Bool[Array, P] | None = None,
) -> tuple[Scalar, Any]:
    """The largest value of any cell, given an upper bound on each cell's value.

    Cells are evaluated in chunks, in falling order of their bounds, until no bound exceeds the largest value.

    Args:
      bounds: an upper bound on each cell's value.
      evaluate: takes cells (their numbers), the largest value so far and the state; returns the cells' values and a
        new state.
      state: is passed from chunk to chunk.
      first: cells to evaluate before all others. If their values are large, fewer cells need evaluation.

    Returns:
      The largest value, and the last state.
    """
    num = bounds.shape[0]
    order = jnp.argsort(-bounds if first is None else jnp.where(first, -jnp.inf, -bounds))
    chunk = min(_CHUNK, num)
    padded = jnp.pad(order, (0, (-num) % chunk), mode="edge").reshape(-1, chunk)
    remaining = jax.lax.cummax(jnp.max(bounds[padded], axis=1), reverse=True)

    def visit(carry):
        k, best, state = carry
        values, state = evaluate(padded[k], best, state)
        return k + 1, jnp.maximum(best, jnp.max(values)), state

    def unfinished(carry):
        k, best, _ = carry
        return (k < len(remaining)) & ~(remaining[jnp.minimum(k, len(remaining) - 1)] <= best)  # goes on at NaN

    return jax.lax.while_loop(unfinished, visit, (0, jnp.zeros((), bounds.dtype), state))[1:]


class ConeSearch(NamedTuple):
    """Result of :func:`search_cones`.

    Attributes:
      norm: the dual norm.
      rows: (cells, 2 q, ...) active rows of each column's projections, for +G and then for -G. They are a start for
        the search at a similar residual.
    """

    norm: Scalar
    rows: ActiveRows


def _lengths(point: Array, target: Array, rows: ActiveRows) -> Array:
    """Lengths of points target + A^T l (p, k), rounded up.

    The allowance counts each term of the sum, because thin cones have large multipliers l that cancel.
    """
    terms = jnp.linalg.norm(target, axis=0) + jnp.sum(jnp.where(rows.used, rows.value, 0.0), axis=-1)
    return jnp.linalg.norm(point, axis=0) + gamma(4 * target.shape[0] + 32, target.dtype) * terms


def _project_columns(
    operator: CellOperator, targets: Float[Array, "q p k"], cells: Array, rows: ActiveRows, enough: Array | None
) -> tuple[Float[Array, "q k"], ActiveRows]:
    """Lengths of the projections of columns on the cones of ``cells``, rounded up, and their active rows.

    The projection of G is the shortest point of the form G + A^T l with l >= 0. So an inexact projection of this form
    is too long, never too short.
    """

    def project_column(signs, target, rows):
        return project_cone(operator.Z, signs, target, warm=rows, enough=enough)

    signs = 2 * operator.masks[cells].astype(targets.dtype) - 1
    project_cell = jax.vmap(project_column, in_axes=(None, 1, 0), out_axes=(1, 0))
    points, rows = jax.vmap(project_cell)(signs, targets, rows)
    return jax.vmap(_lengths)(points, targets, rows), rows


def _no_rows(targets: Float[Array, "q p k"]) -> ActiveRows:
    q, p, k = targets.shape
    return no_active_rows(p, targets.dtype, (q, k))


def search_cones(
    operator: CellOperator,
    R: Float[Array, "n c"],
    grouping: str = "shared",
    *,
    rows: ActiveRows | None = None,
    first: Bool[Array, P] | None = None,
) -> ConeSearch:
    """The search behind :func:`cone_dual_norm`. A projection stops once its cell cannot have the largest value.

    Args:
      operator: the cells.
      R: residual.
      grouping: "shared" or "per-output", as in :func:`cone_dual_norm`.
      rows: active rows from the search at a similar residual, to start from.
      first: cells to project before all others.
    """
    G = operator.adjoint(R)
    cells, q = G[: operator.num_cells], G.shape[2]
    both = jnp.concatenate([cells, -cells], axis=2)
    signs = 2 * operator.masks[: operator.num_cells].astype(G.dtype) - 1
    separate = grouping == "per-output" or q == 1  # each column is a group

    def largest_group(lengths):
        sides = lengths.reshape(-1, 2, q)
        return jnp.max(sides if separate else jnp.linalg.norm(sides, axis=2, keepdims=True), axis=(1, 2))

    def evaluate(index, best, rows):
        start = jax.tree.map(lambda a: a[index], rows)
        enough = _NO_WINNER * best if separate else None
        lengths, active = _project_columns(operator, both[index], index, start, enough)
        return largest_group(lengths), jax.tree.map(lambda old, new: old.at[index].set(new), rows, active)

    if rows is None:
        rows, lifted = _no_rows(both), both
    else:
        cell_data = (signs, both, rows)
        lifted = jax.lax.map(lambda cell: lifted_by(operator.Z, *cell), cell_data, batch_size=_CHUNK)
    bounds = largest_group(jax.vmap(_lengths)(lifted, both, rows))
    best, rows = _max_over_cells(bounds, evaluate, rows, first)
    if operator.linear:
        skip = jnp.linalg.norm(G[-1]) if grouping == "shared" else jnp.max(jnp.linalg.norm(G[-1], axis=0))
        best = jnp.maximum(best, skip)
    return ConeSearch(best, rows)


def cone_dual_norm(operator: CellOperator, R: Float[Array, "n c"], grouping: str = "shared") -> Scalar:
    """Dual norm of the cone program. For q = 1 it is exactly ``max_u |R^T (Z u)_+|`` over unit u in the cells.

    For q > 1 columns a group is a whole block ("shared") or one of its columns ("per-output").
    """
    return search_cones(operator, R, grouping).norm


def relaxed_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Scalar:
    """Upper bound on ``max_u ||R^T (Z u)_+||`` over the cells, exact for q = 1.

    Each cell has two bounds: the spectral norm of Z^T D_i R, which drops the cone constraints, and the root of the
    summed squares of the columns' exact values, which decouples the columns. The smaller one counts. Large problems
    with several columns (more than 2e7 numbers in the constraints of all cells) use the first bound only, because it
    needs no projections.
    """
    columns = operator.readout.columns(R.shape[1])
    if columns == 1:
        return cone_dual_norm(operator, R)
    cells = operator.adjoint(R)[: operator.num_cells]
    gram = jnp.einsum("qpc,qpe->qce", cells, cells)
    if gram.shape[1] > cells.shape[1]:
        gram = jnp.einsum("qpc,qrc->qpr", cells, cells)
    top = jnp.maximum(jnp.linalg.eigvalsh(gram)[:, -1], 0.0)
    rounding = gamma(8 * (cells.shape[1] + cells.shape[2]) + 64, R.dtype)  # of the product and of its eigenvalues
    spectral = jnp.sqrt(top + rounding * jnp.sum(cells**2, axis=(1, 2)))

    if cells.shape[0] * operator.Z.size * columns > _MAX_PROJECTION_WORK:
        return jnp.maximum(jnp.max(spectral), skip_dual_norm(operator, R))

    def evaluate(index, best, _):
        both = jnp.concatenate([cells[index], -cells[index]], axis=2)
        lengths, _ = _project_columns(operator, both, index, _no_rows(both), None)
        sides = jnp.max(lengths.reshape(-1, 2, columns), axis=1)
        return jnp.minimum(spectral[index], jnp.linalg.norm(sides, axis=1)), None

    return jnp.maximum(_max_over_cells(spectral, evaluate)[0], skip_dual_norm(operator, R))


def atom_dual_norm(network: Network, problem: Problem, R: Float[Array, "n c"]) -> Scalar:
    """``max_j ||R^T (Z u_j)_+|| / ||u_j||`` over the network's own neurons.

    If the features have a skip connection, ``||Z^T R||_F`` counts too, even if this network does not use it: the bound
    also covers networks that do.
    """
    Z, readout = problem.rows, problem.readout
    value = jnp.linalg.norm(readout.price(jax.nn.relu(Z @ network.hidden.T), R), axis=1)
    best = jnp.max(divide(value, hidden_norms(network)))
    if not problem.features.skip and network.skip is None:
        return best
    return jnp.maximum(best, jnp.linalg.norm(readout.price(Z, R)))


def all_networks_dual_norm(problem: Problem, R: Float[Array, "n c"]) -> Scalar:
    """Upper bound on ``max_u ||R^T (Z u)_+||`` over ALL unit u, without any cells.

    It follows from (t)_+ = (t + |t|)/2 and Cauchy-Schwarz. For one output, with r+ the positive part of r,
    ``sum_i r_i |z_i u|`` is at most ``sqrt(sum r+ * lambda_max(Z^T diag(r+) Z))`` and at most ``||r+|| ||Z||_2``. For
    all outputs together the bound is ``||R||_2 ||Z||_2``. With free biases some neuron of largest price has its kink
    at a sample; so the bound is computed for the rows seen from each sample, and the largest counts.
    """
    Z, lifted = problem.rows, problem.readout.lift(R)
    if problem.sample_weight is not None:  # rows without residual would make the bounds below needlessly large
        Z = jnp.where(jnp.any(lifted != 0, axis=1, keepdims=True), Z, 0.0)
    if problem.features.free_bias:
        X = problem.features.penalised(Z)
        return jnp.max(jax.lax.map(lambda x: _crude_dual_norm(X - x, lifted), X))
    best = _crude_dual_norm(Z, lifted)
    return jnp.maximum(best, jnp.linalg.norm(Z.T @ lifted)) if problem.features.skip else best


def _crude_dual_norm(Z: Float[Array, "N p"], R: Float[Array, "N q"]) -> Scalar:
    top = spectral_norm(Z)

    def one_sided(r):
        plus = jnp.maximum(r, 0.0)
        weighted = spectral_norm(Z * jnp.sqrt(plus)[:, None])
        spread = jnp.minimum(jnp.sqrt(jnp.sum(plus)) * weighted, jnp.linalg.norm(plus) * top)
        return 0.5 * (jnp.minimum(jnp.linalg.norm(Z.T @ r), jnp.linalg.norm(Z.T @ plus)) + spread)

    def one_output(r):
        return jnp.maximum(one_sided(r), one_sided(-r))

    separate = jnp.linalg.norm(jax.vmap(one_output)(R.T))
    together = 0.5 * (spectral_norm(Z.T @ R) + spectral_norm(R) * top)
    return jnp.minimum(separate, together) * (1 + gamma(8 * sum(Z.shape) + 64, R.dtype))
