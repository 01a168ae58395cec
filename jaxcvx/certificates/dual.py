"""Dual bounds: scale a residual until it is dual feasible, evaluate the dual objective there.

The training problem's dual is ``max_R -loss*(-R)`` subject to ``||lift(R)^T (Z u)_+|| <= beta`` for all ||u|| <= 1
(and ``||Z^T lift(R)||_F <= beta`` with a skip connection), where ``lift`` takes samples to rows (the identity for
dense networks; docstrings below leave it out). For any R and any upper bound M on the left-hand
side over a set of neurons, s R with |s| <= beta / M is feasible for the problem restricted to those
neurons, so its dual value bounds from below every network made of them. With free biases the dual has the
constraint ``sum_i R_i = 0`` as well, and ||u|| leaves the bias out: then every R below must be a ``feasible_residual``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcvx.networks.network import Network, hidden_norms
from jaxcvx.numerics.rounding import careful_sum, gamma, masked_sums_error
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms
from jaxcvx.proximal.polyhedral_cone import ActiveRows, lifted_by, no_active_rows, project_cone

Scalar = Float[Array, ""]

_MAX_PROJECTION_WORK = 2e7
_CHUNK = 16  # cells projected at a time
_NO_WINNER = 0.99  # share of the largest length so far at which a projection is cut short


def feasible_residual(problem: Problem, R: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """R itself, or with free biases a residual near it whose columns sum to zero."""
    return problem.loss.center_dual(R, problem.Y) if problem.features.free_bias else R


def scaled_bound(problem: Problem, R: Float[Array, "n c"], dual_norm: Scalar) -> Scalar:
    """Dual value of the best feasible multiple of R, for a dual norm that is right up to a few units of rounding.

    What the solvers' loops compare; a bound that is reported as proved comes from :func:`proved_bound`.
    """
    terms, slack = _scaled_terms(problem, R, dual_norm)
    return _reported(problem, jnp.sum(terms) - slack)


def proved_bound(problem: Problem, R: Float[Array, "n c"], dual_norm: Scalar, *, masked: bool = True) -> Scalar:
    """A lower bound on training whatever the rounding: dual value of the best feasible multiple of R, rounded down.

    The sums over rows in ``dual_norm`` have errors of up to ``gamma(N) |Z|^T |R|``, which may be far more than
    a few units of the norm itself, as they cancel; that much is added to it.

    Args:
      problem: data, loss, beta.
      R: dual residual, from the loss's ``grad`` or ``project_dual``.
      dual_norm: bound on the price of every neuron in question, but for rounding in sums over rows.
      masked: whether these sums are those of ``problem.operator.carefully()``, which are sharper in float32.
    """
    rows, lifted = problem.rows, problem.readout.lift(R)
    dtype, size = R.dtype, rows.shape[1] * lifted.shape[1]
    blocks = problem.operator.row_blocks(size, dtype) if masked and problem.arrangements is not None else 1
    norm = dual_norm * (1 + gamma(size + 64, dtype)) + masked_sums_error(rows, lifted, masked, blocks)
    if problem.features.free_bias:  # columns of R sum to zero but for rounding, and biases are not bounded
        X = problem.features.penalised(rows)
        spread = jnp.linalg.norm(X - jnp.mean(X, axis=0)) * (1 + len(X) ** 0.5)
        norm = norm + gamma(4 * len(X) + 8, dtype) * jnp.linalg.norm(lifted) * spread
    terms, slack = _scaled_terms(problem, R, norm)
    value, error = careful_sum(terms)
    return _reported(problem, value - error - slack)


def _scaled_terms(problem: Problem, R: Float[Array, "n c"], norm: Scalar) -> tuple[Array, Scalar]:
    """The dual objective's terms at the best multiple of R, -inf where it is in no domain, and their own rounding."""
    loss, Y, info = problem.loss, problem.Y, jnp.finfo(R.dtype)
    eps = 32 * info.eps
    safe = jnp.where(norm > 0, norm * (1 + eps), 1.0)
    limit = jnp.where(norm > 0, problem.beta / safe, jnp.where(norm == 0, jnp.inf, 0.0))  # NaN: nothing is known
    terms, inside = loss.dual_terms(loss.best_scaling(R, Y, limit) * R, Y)
    slack = eps * jnp.sum(jnp.abs(terms)) + terms.size * float(info.tiny)
    return jnp.where(inside, terms, -jnp.inf), slack


def _reported(problem: Problem, bound: Scalar) -> Scalar:
    """The bound, or the dual value at R = 0, which is feasible always; NaN in the data must claim nothing."""
    zero = problem.loss.dual_value(jnp.zeros_like(problem.Y), problem.Y)
    return jnp.fmax(jnp.where(jnp.isfinite(bound), bound, -jnp.inf), zero)


def dual_residuals(problem: Problem, F: Float[Array, "n c"], dual: Array | None = None) -> list[Array]:
    """Dual residuals to bound from: that of the predictions F, and the solver's own if there is one.

    Args:
      problem: data and loss.
      F: predictions; their residual is minus the loss's gradient.
      dual: another residual (n, c), which need not lie in the dual objective's domain; or None.
    """
    residuals = [-problem.loss.grad(F, problem.Y)]
    if dual is not None:
        residuals.append(problem.loss.project_dual(dual, problem.Y))
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
    """Best proved bound over the loss's dual candidates at predictions F; ``dual_norm`` maps R to its M."""
    candidates = jax.vmap(lambda R: feasible_residual(problem, R))(problem.loss.dual_candidates(F, problem.Y))
    masked = problem.arrangements is not None
    return jnp.max(jax.lax.map(lambda R: proved_bound(problem, R, dual_norm(R), masked=masked), candidates))


def gated_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Scalar:
    """``max_i ||Z^T D_i R||_F``: the gated program's dual norm; cones are ignored."""
    return jnp.max(group_norms(operator.adjoint(R)))


def skip_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Scalar:
    """``||Z^T R||_F`` if there is a skip connection, else 0."""
    zero = jnp.zeros((), R.dtype)
    return jnp.linalg.norm(operator.readout.price(operator.Z, R)) if operator.linear else zero


def _max_over_cells(
    bounds: Float[Array, P],
    exact: Callable[[Array, Array, Any], tuple[Array, Any]],
    notes: Any = None,
    first: Bool[Array, P] | None = None,
) -> tuple[Scalar, Any]:
    """``max_i exact(i)`` given upper bounds on each: cells in falling order of bound, until none can win.

    Args:
      bounds: on each cell's value.
      exact: of some cells, the largest value so far and the notes: their values and new notes.
      notes: what is handed on from chunk to chunk.
      first: cells to begin with, which may make the others unnecessary.
    """
    num = bounds.shape[0]
    order = jnp.argsort(-bounds if first is None else jnp.where(first, -jnp.inf, -bounds))
    chunk = min(_CHUNK, num)
    padded = jnp.pad(order, (0, (-num) % chunk), mode="edge").reshape(-1, chunk)
    left = jax.lax.cummax(jnp.max(bounds[padded], axis=1), reverse=True)

    def visit(carry):
        k, best, notes = carry
        values, notes = exact(padded[k], best, notes)
        return k + 1, jnp.maximum(best, jnp.max(values)), notes

    def unfinished(carry):
        k, best, _ = carry
        return (k < len(left)) & ~(left[jnp.minimum(k, len(left) - 1)] <= best)  # NaN is no reason to stop

    return jax.lax.while_loop(unfinished, visit, (0, jnp.zeros((), bounds.dtype), notes))[1:]


class ConeSearch(NamedTuple):
    """What :func:`search_cones` has found."""

    norm: Scalar
    rows: ActiveRows  # (cells, 2 q, ...) of each column's projections, +G before -G: a start for a similar residual


def _lengths(point: Array, target: Array, rows: ActiveRows) -> Array:
    """Lengths of points (p, k), rounded up.

    Rounding is charged for each term of target + A^T l, as thin cones have large multipliers that cancel.
    """
    terms = jnp.linalg.norm(target, axis=0) + jnp.sum(jnp.where(rows.used, rows.value, 0.0), axis=-1)
    return jnp.linalg.norm(point, axis=0) + gamma(4 * target.shape[0] + 32, target.dtype) * terms


def _project_columns(
    operator: CellOperator, targets: Float[Array, "q p k"], cells: Array, rows: ActiveRows, enough: Array | None
) -> tuple[Float[Array, "q k"], ActiveRows]:
    """Lengths of the projections of columns on the cones of ``cells``, rounded up, and their active rows.

    A projection is G + A^T l with multipliers l >= 0, and any such point is no shorter.
    """

    def one(signs, target, rows):
        return project_cone(operator.Z, signs, target, warm=rows, enough=enough)

    signs = 2 * operator.masks[cells].astype(targets.dtype) - 1
    points, rows = jax.vmap(jax.vmap(one, in_axes=(None, 1, 0), out_axes=(1, 0)))(signs, targets, rows)
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
    """``cone_dual_norm``, from the active rows of a similar residual, beginning with the cells ``first``.

    A cell is projected no further than to where it cannot be the largest.
    """
    G = operator.adjoint(R)
    cells, q = G[: operator.num_cells], G.shape[2]
    both = jnp.concatenate([cells, -cells], axis=2)
    signs = 2 * operator.masks[: operator.num_cells].astype(G.dtype) - 1
    alone = grouping == "per-output" or q == 1  # a column's length is a group's

    def largest(lengths):
        sides = lengths.reshape(-1, 2, q)
        return jnp.max(sides if alone else jnp.linalg.norm(sides, axis=2, keepdims=True), axis=(1, 2))

    def exact(index, best, rows):
        some = jax.tree.map(lambda a: a[index], rows)
        lengths, found = _project_columns(operator, both[index], index, some, _NO_WINNER * best if alone else None)
        return largest(lengths), jax.tree.map(lambda old, new: old.at[index].set(new), rows, found)

    if rows is None:
        rows, lifted = _no_rows(both), both
    else:
        args = (signs, both, rows)
        lifted = jax.lax.map(lambda one: lifted_by(operator.Z, *one), args, batch_size=_CHUNK)
    bounds = largest(jax.vmap(_lengths)(lifted, both, rows))
    best, rows = _max_over_cells(bounds, exact, rows, first)
    if operator.linear:
        last = jnp.linalg.norm(G[-1]) if grouping == "shared" else jnp.max(jnp.linalg.norm(G[-1], axis=0))
        best = jnp.maximum(best, last)
    return ConeSearch(best, rows)


def cone_dual_norm(operator: CellOperator, R: Float[Array, "n c"], grouping: str = "shared") -> Scalar:
    """Dual norm of the cone program: with q = 1 exactly ``max_u |R^T (Z u)_+|`` over unit u in the cells.

    For q > 1 columns the groups are Frobenius ("shared") or columns ("per-output").
    """
    return search_cones(operator, R, grouping).norm


def relaxed_dual_norm(operator: CellOperator, R: Float[Array, "n c"]) -> Scalar:
    """Upper bound on ``max_u ||R^T (Z u)_+||`` over the cells, exact for q = 1.

    Per cell the smaller of the spectral norm of Z^T D_i R (cones dropped) and the root of the summed
    squares of each column's exact value (columns decoupled). For several columns on large problems (more
    than 2e7 numbers in all cells' constraints) only the first, which needs no projections.
    """
    columns = operator.readout.columns(R.shape[1])
    if columns == 1:
        return cone_dual_norm(operator, R)
    cells = operator.adjoint(R)[: operator.num_cells]
    small = jnp.einsum("qpc,qpe->qce", cells, cells)
    if small.shape[1] > cells.shape[1]:
        small = jnp.einsum("qpc,qrc->qpr", cells, cells)
    top = jnp.maximum(jnp.linalg.eigvalsh(small)[:, -1], 0.0)
    rounding = gamma(8 * (cells.shape[1] + cells.shape[2]) + 64, R.dtype)  # of the product and of its eigenvalues
    spectral = jnp.sqrt(top + rounding * jnp.sum(cells**2, axis=(1, 2)))

    if cells.shape[0] * operator.Z.size * columns > _MAX_PROJECTION_WORK:
        return jnp.maximum(jnp.max(spectral), skip_dual_norm(operator, R))

    def exact(index, best, _):
        both = jnp.concatenate([cells[index], -cells[index]], axis=2)
        lengths, _ = _project_columns(operator, both, index, _no_rows(both), None)
        sides = jnp.max(lengths.reshape(-1, 2, columns), axis=1)
        return jnp.minimum(spectral[index], jnp.linalg.norm(sides, axis=1)), None

    return jnp.maximum(_max_over_cells(spectral, exact)[0], skip_dual_norm(operator, R))


def atom_dual_norm(network: Network, problem: Problem, R: Float[Array, "n c"]) -> Scalar:
    """``max_j ||R^T (Z u_j)_+|| / ||u_j||`` over the network's own neurons.

    With a skip connection also ``||Z^T R||_F``, whether this network uses it or not: the bound is about others.
    """
    Z, readout = problem.rows, problem.readout
    size = hidden_norms(network)
    value = jnp.linalg.norm(readout.price(jax.nn.relu(Z @ network.hidden.T), R), axis=1)
    best = jnp.max(jnp.where(size > 0, value / jnp.where(size > 0, size, 1.0), 0.0))
    if not problem.features.skip and network.skip is None:
        return best
    return jnp.maximum(best, jnp.linalg.norm(readout.price(Z, R)))


def all_networks_dual_norm(problem: Problem, R: Float[Array, "n c"]) -> Scalar:
    """Upper bound on ``max_u ||R^T (Z u)_+||`` over ALL unit u, without any cells.

    From (t)_+ = (t + |t|)/2 and Cauchy-Schwarz: ``sum_i r_i |z_i u| <= sqrt(sum r+ * lambda_max(Z^T diag(r+) Z))``
    and ``<= ||r+|| ||Z||_2`` for one output, ``<= ||R||_2 ||Z||_2`` for all together. With free biases some neuron
    of largest price has its kink at a sample, so it is the largest such bound over the rows seen from each sample.
    """
    Z, lifted = problem.rows, problem.readout.lift(R)
    if problem.features.free_bias:
        X = problem.features.penalised(Z)
        return jnp.max(jax.lax.map(lambda x: _crude_dual_norm(X - x, lifted), X))
    best = _crude_dual_norm(Z, lifted)
    return jnp.maximum(best, jnp.linalg.norm(Z.T @ lifted)) if problem.features.skip else best


def _crude_dual_norm(Z: Float[Array, "N p"], R: Float[Array, "N q"]) -> Scalar:
    top = jnp.linalg.norm(Z, ord=2)

    def one_sided(r):
        plus = jnp.maximum(r, 0.0)
        weighted = jnp.linalg.norm(Z * jnp.sqrt(plus)[:, None], ord=2)
        spread = jnp.minimum(jnp.sqrt(jnp.sum(plus)) * weighted, jnp.linalg.norm(plus) * top)
        return 0.5 * (jnp.minimum(jnp.linalg.norm(Z.T @ r), jnp.linalg.norm(Z.T @ plus)) + spread)

    def one_output(r):
        return jnp.maximum(one_sided(r), one_sided(-r))

    separate = jnp.linalg.norm(jax.vmap(one_output)(R.T))
    together = 0.5 * (jnp.linalg.norm(Z.T @ R, ord=2) + jnp.linalg.norm(R, ord=2) * top)
    return jnp.minimum(separate, together) * (1 + gamma(8 * sum(Z.shape) + 64, R.dtype))
