"""Training on data larger than memory: the gated program, its certificate and its network, with rows read in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.certificates.certificate import make_certificate
from jaxcvx.certificates.dual import proved_bound, scaled_bound
from jaxcvx.errors import invalid, wrong_type
from jaxcvx.networks.network import Network, balance, balanced_penalty, hidden_norms, prune
from jaxcvx.numerics.precision import double_precision, with_full_precision
from jaxcvx.numerics.rounding import gamma
from jaxcvx.numerics.safe import divide, norm, unit_rows
from jaxcvx.numerics.validation import as_beta
from jaxcvx.operators.cells import CellOperator
from jaxcvx.problems.training import Problem
from jaxcvx.proximal.norms import group_norms, shrink_groups
from jaxcvx.solvers.core.solution import History, Solution, Status, StepInfo, relative_gap
from jaxcvx.solvers.neurons.group_lasso import fit_atoms

Rows = Any  # any object whose slices are arrays: numpy, a memory map, zarr, h5py
_POWER_PASSES = 8


class _Sums(NamedTuple):
    """Sums of one pass over all rows at weights W."""

    loss: Array
    G: Array  # (P, d, c) adjoint of the residual
    R: Array  # (n, c) residual Y - F


def _operator(X: Array, gates: Array) -> CellOperator:
    return CellOperator(X, (gates @ X.T) >= 0)


@jax.jit
def _add(loss: Array, G: Array, X: Array, Y: Array, gates: Array, W: Array) -> tuple[Array, Array, Array]:
    operator = _operator(X, gates)
    R = Y - operator.forward(W)
    return loss + 0.5 * jnp.sum(R**2), G + operator.adjoint(R), R


@jax.jit
def _add_normal(total: Array, X: Array, gates: Array, W: Array) -> Array:
    operator = _operator(X, gates)
    return total + operator.adjoint(operator.forward(W))


class _Stream:
    """Passes over the rows with one block on the device at a time. The next block is read while one is processed."""

    def __init__(self, X: Rows, Y: Rows, gates: Any, block_rows: int, dtype: Any) -> None:
        self.X, self.Y, self.block_rows, self.dtype = X, Y, block_rows, dtype
        self.gates = jnp.asarray(np.asarray(gates), dtype)

    def blocks(self) -> Any:
        """Yield pairs of X and Y blocks of the same shape. Zero rows, which change no sum, fill up the last one."""
        n = self.X.shape[0]
        for start in range(0, n, self.block_rows):
            stop = min(start + self.block_rows, n)
            pair = [np.asarray(a[start:stop]) for a in (self.X, self.Y)]
            short = self.block_rows - (stop - start) if n > self.block_rows else 0
            yield tuple(jnp.asarray(np.pad(a, ((0, short), (0, 0))), self.dtype) for a in pair)

    def sums(self, W: Array) -> _Sums:
        """Make one pass at weights W."""
        loss, G, residuals = jnp.zeros((), self.dtype), jnp.zeros_like(W), []
        for X, Y in self.blocks():
            loss, G, R = _add(loss, G, X, Y, self.gates, W)
            residuals.append(R)
        return _Sums(loss, G, jnp.concatenate(residuals)[: self.X.shape[0]])

    def curvature(self, W: Array) -> float:
        """Estimate from below the largest eigenvalue of the normal matrix of W -> predictions, by power iteration."""
        size = 0.0
        for _ in range(_POWER_PASSES):
            length = float(jnp.linalg.norm(W))
            if length == 0 or not np.isfinite(length):
                break
            total, unit = jnp.zeros_like(W), W / length
            for X, _ in self.blocks():
                total = _add_normal(total, X, self.gates, unit)
            W, size = total, float(jnp.linalg.norm(total))
        return size


@with_full_precision
def solve_streamed(
    X: Rows,
    Y: Rows,
    beta: float,
    gates: Any,
    *,
    block_rows: int = 8192,
    tol: float = 1e-3,
    max_steps: int = 1000,
    init: Any = None,
    callback: Callable[[StepInfo], Any] | None = None,
) -> Solution:
    """Train a gated ReLU network, and a ReLU network made from it, on rows that are read in blocks.

    The method is accelerated proximal gradient with full momentum between restarts. A step makes one pass over the
    rows. Each pass also gives the gap over the given cells. The memory holds a block of rows, its masks
    (P, block_rows), a few (P, d, c) arrays and the residual (n, c). Each pass computes the masks from the gates. The
    loss is the squared loss; the features are dense without bias (add a column of ones to X instead). The function runs
    on the host, neither under jit nor under grad.

    Args:
      X: (n, d) real numbers, in any object whose slices are arrays: ``np.load(path, mmap_mode="r")``, a zarr or h5py
        array.
      Y: (n, c) targets, in an object of the same kind.
      beta: weight decay, absolute.
      gates: (P, d) directions, one in each cell.
      block_rows: number of rows on the device at a time.
      tol: relative program gap at which to stop. For float32 data it is at least 256 units of rounding of float32.
      max_steps: limit on steps.
      init: (P, d, c) weights to start from, as in ``solution.params``.
      callback: function of a StepInfo that is called after each step. A true return value stops the solve.

    Returns:
      A Solution like that of ``solve(problem, ProximalGradient())``. Its numbers come from final passes in float64 on
      the host, at the returned weights. Its scope is "sampled-cells".

    Raises:
      InvalidTypeError: X or Y has no shape, or no slices.
      InvalidInputError: shapes do not fit, numbers are not finite, or an option is out of range.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> X, Y = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), np.array([[1.0], [0.0], [1.0]])
      >>> gates = np.array([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.5]])
      >>> solution = jaxcvx.parallel.solve_streamed(X, Y, 0.1, gates, block_rows=2)
      >>> jaxcvx.Status(int(solution.status)).name, solution.scope
      ('CONVERGED', 'sampled-cells')
    """
    stream, W = _validated(X, Y, beta, gates, block_rows, tol, max_steps, init)
    history, status = [], Status.MAX_STEPS
    curvature = 1.02 * stream.curvature(stream.sums(jnp.zeros_like(W)).G)
    limit = max(tol, 256 * float(jnp.finfo(stream.dtype).eps))
    dual = _dual_problem(stream, beta)
    point, last, lowest, params, step = W, W, np.inf, W, 0
    while step < max_steps:
        sums = stream.sums(point)
        step += 1
        objective = float(sums.loss + beta * jnp.sum(group_norms(point)))
        bound = float(scaled_bound(dual, sums.R, jnp.max(group_norms(sums.G))))
        gap = float(relative_gap(jnp.asarray(objective), jnp.asarray(bound)))
        if not np.isfinite(objective):
            status = Status.DIVERGED
            break
        history.append((step, objective, bound))
        if objective < lowest:
            lowest, params = objective, point
        elif objective > 2 * lowest:  # the curvature was underestimated
            curvature, point, last = 1.5 * curvature, params, params
            continue
        stopped = callback is not None and callback(StepInfo("Streamed", step, max_steps, objective, bound, gap, point))
        if gap <= limit or stopped:
            status, params = (Status.CONVERGED if gap <= limit else Status.STOPPED), point
            break
        new, point = _advance(point, last, sums.G, beta, curvature)
        last = new
    return _report(stream, params, beta, history, status, step)


@jax.jit
def _advance(point: Array, last: Array, G: Array, beta: float, curvature: float) -> tuple[Array, Array]:
    safe = jnp.maximum(curvature, jnp.finfo(G.dtype).tiny)
    new = shrink_groups(point + G / safe, jnp.asarray(beta / safe, G.dtype))
    restart = jnp.sum((point - new) * (new - last)) > 0
    return new, new + jnp.where(restart, 0.0, 1.0) * (new - last)


def _validated(
    X: Rows, Y: Rows, beta: Any, gates: Any, block_rows: int, tol: float, max_steps: int, init: Any
) -> tuple[_Stream, Array]:
    for name, a in (("X", X), ("Y", Y)):
        if not hasattr(a, "shape") or not hasattr(a, "__getitem__") or not hasattr(a, "dtype"):
            raise wrong_type(name, a, "an array or a memory map")
        if len(a.shape) != 2 or 0 in a.shape or np.dtype(a.dtype).kind not in "fiub":
            raise invalid(name, f"shape {tuple(a.shape)}, dtype {a.dtype}", "real numbers with two axes, not empty")
    (n, d), c = X.shape, Y.shape[1]
    if Y.shape[0] != n:
        raise invalid("Y", f"{Y.shape[0]} rows", f"{n}, the number of rows of X")
    directions = np.asarray(gates)
    if directions.ndim != 2 or directions.shape[1] != d or not len(directions) or not np.isfinite(directions).all():
        raise invalid("gates", f"shape {directions.shape}", f"finite numbers of shape (P, {d})")
    as_beta(beta, jnp.float32)
    if block_rows < 1:
        raise invalid("block_rows", block_rows, "at least 1")
    if not tol >= 0:
        raise invalid("tol", tol, "a number >= 0")
    if max_steps < 1:
        raise invalid("max_steps", max_steps, "at least 1")
    for start in range(0, n, block_rows):
        for name, a in (("X", X), ("Y", Y)):
            if not np.isfinite(np.asarray(a[start : start + block_rows])).all():
                raise invalid(name, f"NaN or inf in rows {start} to {start + block_rows}", "finite numbers")
    single = np.dtype(X.dtype) == np.float32
    dtype = jnp.float32 if single else jnp.result_type(float)
    shape = (len(directions), d, c)
    if init is not None and np.shape(init) != shape:
        raise invalid("init", f"shape {np.shape(init)}", f"shape {shape}")
    W = jnp.zeros(shape, dtype) if init is None else jnp.asarray(init, dtype)
    return _Stream(X, Y, directions, min(block_rows, n), dtype), W


def _dual_problem(stream: _Stream, beta: float) -> Problem:
    """Build a problem for the dual value only: targets, beta and the loss, without inputs."""
    Y = jnp.asarray(np.asarray(stream.Y[:]), stream.dtype)
    return Problem(jnp.zeros((len(Y), 1), stream.dtype), Y, jnp.asarray(beta, stream.dtype))


def _report(stream: _Stream, params: Array, beta: float, history: list[tuple], status: Status, step: int) -> Solution:
    """Compute network and certificate from the weights only, by passes in float64 on the host."""
    weights = np.asarray(params, np.float64)
    with double_precision():
        double = _Stream(stream.X, stream.Y, np.asarray(stream.gates), stream.block_rows, jnp.float64)
        W = jnp.asarray(weights)
        sums, dual = double.sums(W), _dual_problem(double, beta)
        network = jax.device_get(_rounded(double, W, beta))
        rounded = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, stream.dtype), jnp.float64), prune(network))
        upper, atoms, rounding = _network_pass(double, rounded, beta, sums.R)
        objective = float(sums.loss + beta * jnp.sum(group_norms(W)))
        dual_norm = jnp.max(group_norms(sums.G))
        bound = min(float(scaled_bound(dual, sums.R, dual_norm)), objective)
        lower = float(proved_bound(dual, sums.R, jnp.maximum(dual_norm, atoms) + rounding))
        certificate = make_certificate(upper, lower, "sampled-cells")
        trace = np.asarray(history, np.float64).reshape(-1, 3)
    return Solution(
        params=params,
        network=jax.tree.map(lambda a: jnp.asarray(a, stream.dtype), prune(network)),
        objective=np.float64(objective),
        program_gap=np.float64((objective - bound) / max(abs(objective), np.finfo(np.float64).tiny)),
        upper_bound=certificate.upper,
        lower_bound=certificate.lower,
        gap=certificate.gap,
        heuristic_bound=np.float64(-np.inf),
        status=np.int32(status),
        num_steps=np.int32(step),
        history=History(
            jnp.asarray(trace[:, 0], jnp.int32),
            jnp.asarray(trace[:, 1]),
            jnp.asarray(trace[:, 2]),
            jnp.asarray(len(trace), jnp.int32),
        ),
        scope="sampled-cells",
    )


@jax.jit
def _needed(length: Array, X: Array, gates: Array, directions: Array, owner: Array) -> Array:
    """Return the length by which each direction must move along its gate to satisfy the constraints of these rows."""
    signs = 2.0 * ((X @ gates.T) >= 0) - 1
    slack, gain = (X @ directions.T) * signs[:, owner], jnp.abs(X @ gates.T)[:, owner]
    return jnp.maximum(length, jnp.max(divide(jnp.maximum(-slack, 0.0), gain), axis=0))


@jax.jit
def _add_gram(gram: Array, cross: Array, X: Array, Y: Array, unit: Array) -> tuple[Array, Array]:
    atoms = jax.nn.relu(X @ unit.T)
    return gram + atoms.T @ atoms, cross + atoms.T @ Y


def _rounded(stream: _Stream, W: Array, beta: float) -> Network:
    """Compute the network of :func:`jaxcvx.solvers.neurons.rounding.round_gated` with sums over blocks of rows."""
    norms = np.asarray(group_norms(W))
    cells = np.flatnonzero(norms > 0)
    c = W.shape[2]
    if not len(cells):
        return Network(jnp.zeros((1, W.shape[1])), jnp.zeros((1, c)))
    left, size, _ = np.linalg.svd(np.asarray(W)[cells], full_matrices=False)
    size = np.where(size > 64 * np.finfo(np.float64).eps * size[:, :1], size, 0.0)
    chosen = np.argsort(-size.ravel(), kind="stable")[: len(cells)]
    block, column = chosen // size.shape[1], chosen % size.shape[1]
    directions = jnp.asarray(left[block, :, column] * size[block, column][:, None])
    directions, owner = jnp.concatenate([directions, -directions]), jnp.tile(jnp.asarray(cells[block]), 2)
    length = jnp.zeros(len(directions))
    for X, _ in stream.blocks():
        length = _needed(length, X, stream.gates, directions, owner)
    inside = directions + stream.gates[owner] * length[:, None]
    hidden = jnp.concatenate([stream.gates[cells], inside])
    unit = unit_rows(hidden)
    m = len(unit)
    gram, cross = jnp.zeros((m, m)), jnp.zeros((m, c))
    for X, Y in stream.blocks():
        gram, cross = _add_gram(gram, cross, X, Y, unit)
    shift = m * jnp.finfo(gram.dtype).eps * jnp.max(jnp.diagonal(gram)) + jnp.finfo(gram.dtype).tiny
    L = jnp.linalg.cholesky(gram + shift * jnp.eye(m))
    target = jax.scipy.linalg.solve_triangular(L, cross, lower=True)
    fit = _fit(L.T, target, jnp.asarray(beta, gram.dtype))
    return balance(Network(unit, fit))


@jax.jit
def _fit(atoms: Float[Array, "m m"], target: Float[Array, "m c"], beta: Float[Array, ""]) -> Float[Array, "m c"]:
    return fit_atoms(atoms, target, beta, tol=1e-4, max_steps=50).output


@jax.jit
def _add_network(
    loss: Array, correlation: Array, terms: Array, X: Array, Y: Array, R: Array, network: Network
) -> tuple[Array, Array, Array]:
    activations = jax.nn.relu(X @ network.hidden.T)
    loss = loss + 0.5 * jnp.sum((activations @ network.output - Y) ** 2)
    return loss, correlation + activations.T @ R, terms + jnp.abs(X).T @ jnp.abs(R)


def _network_pass(stream: _Stream, network: Network, beta: float, R: Array) -> tuple[float, Array, Array]:
    """Return a network's objective, the dual norm of R over its neurons, and a bound on rounding in dual norms."""
    loss, correlation = jnp.zeros(()), jnp.zeros_like(network.output)
    terms = jnp.zeros((stream.X.shape[1], R.shape[1]))
    for k, (X, Y) in enumerate(stream.blocks()):
        part = R[k * stream.block_rows : (k + 1) * stream.block_rows]
        part = jnp.pad(part, ((0, len(X) - len(part)), (0, 0)))
        loss, correlation, terms = _add_network(loss, correlation, terms, X, Y, part, network)
    atoms = jnp.max(divide(norm(correlation), hidden_norms(network)), initial=0.0)
    rounding = gamma(2 * len(R) + terms.size + 64, R.dtype) * jnp.linalg.norm(terms)
    return float(loss + beta * balanced_penalty(network)), atoms, rounding
