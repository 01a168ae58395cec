"""Fits for the estimators: few compiled programs, for data of any size, scale and sample weights.

The data are brought to a normal form that keeps the problem. Equal samples are merged. Sample weights become those of
the problem; for the squared loss they go into rows and targets, which keeps it quadratic. Inputs and targets are
divided by one number each; beta changes accordingly, so this is exact. Zero rows and columns are added up to the next
of a few sizes. Therefore fits of nearly equal sizes share their compiled programs, for every beta.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import Arrangements, arrangements_of, count_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.certificates.certificate import bound_scope, network_bound
from jaxcvx.errors import TooManyArrangements, invalid
from jaxcvx.features.dense import Dense
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import Logistic, Squared
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.networks.network import Network
from jaxcvx.networks.objective import TrainingObjective
from jaxcvx.numerics.precision import default_promotion
from jaxcvx.pricing.multistart import price_multistart
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.neurons.refit import refit_outputs

LOSSES: dict[str, Loss] = {
    "squared": Squared(),
    "logistic": Logistic(),
    "softmax": SoftmaxCrossEntropy(),
}
_FULL_BATCH_ROWS = 4096  # with more rows, Adam takes mini-batches of a quarter of this number
_RATE = 1e-2
_STARTS = 64  # number of ascents that estimate beta_max


class Fit(NamedTuple):
    """The result of a fit, in the caller's units, in float64 numpy arrays."""

    network: Network
    objective: float
    lower_bound: float
    scope: str
    num_steps: int


@dataclasses.dataclass(frozen=True)
class Training:
    """Data in normal form.

    Attributes:
      problem: the padded and scaled problem, with beta = 1.
      rows: (n, p) numpy, the rows without padding, scaled and weighted as in ``problem``.
      input_scale, target_scale: the divisors of inputs and targets.
      unit: factor from objectives of the scaled problem to the caller's units.
      features: features of the returned network.
    """

    problem: Problem
    rows: Any
    input_scale: float
    target_scale: float
    unit: float
    features: Dense

    @property
    def beta_factor(self) -> float:
        """Factor from the caller's beta to that of the scaled problem."""
        return self.target_scale / self.unit / self.input_scale  # this order avoids overflow

    def restore(self, network: Network) -> Network:
        """Return the network for the caller's data: balanced, without added columns and without zero neurons.

        If all neurons are zero, one of them stays.
        """
        hidden: Any = np.asarray(network.hidden, np.float64)[:, : self.rows.shape[1]]
        output: Any = np.asarray(network.output, np.float64)
        a, b = np.linalg.norm(hidden, axis=1), np.linalg.norm(output, axis=1)
        alive = a * b > 0
        if not alive.any():
            return Network(0 * hidden[:1], 0 * output[:1], None, self.features)
        size = np.sqrt(a * b * self.target_scale / self.input_scale)[alive, None]
        hidden = hidden[alive] * (size / a[alive, None])
        output = output[alive] * (size / b[alive, None])
        return Network(hidden, output, None, self.features)

    def adopt(self, network: Network, width: int) -> Network:
        """Turn the network of an earlier fit into a start: its strongest neurons, scaled and padded."""
        scale = np.sqrt(self.input_scale / self.target_scale)
        order = np.argsort(-np.linalg.norm(network.hidden, axis=1), kind="stable")[:width]
        hidden = np.zeros((width, self.problem.X.shape[1]))
        output = np.zeros((width, self.problem.num_outputs))
        hidden[: len(order), : network.hidden.shape[1]] = network.hidden[order] * scale
        output[: len(order)] = network.output[order] * scale
        return Network(jnp.asarray(hidden), jnp.asarray(output), None, Dense())


def bucket(size: int, smallest: int) -> int:
    """Return the next size for which programs are compiled. There are eight sizes between a number and its double."""
    step = max(smallest, 2 ** max(0, (size - 1).bit_length() - 4))
    return -(-size // step) * step


def _size(A: Any, w: Any) -> float:
    """Weighted root mean square of all entries; 1 if all are zero."""
    largest = float(np.abs(A).max())
    return largest * float(np.sqrt((w * (A / largest) ** 2).sum() / A.shape[1])) if largest > 0 else 1.0


def _check_range(name: str, scale: float) -> None:
    if not 1e-140 < scale < 1e140:
        raise invalid(name, f"numbers of size {scale:.0e}", "numbers whose squares float64 holds: scale them")


def _merge_equal(X: Any, Y: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Merge equal samples, add their weights, and sort them.

    Repeated samples and weighted samples then give the same numbers to the last bit, and the same network.
    """
    rows, owner = np.unique(np.concatenate([X, Y], axis=1) + 0.0, axis=0, return_inverse=True)
    d = X.shape[1]
    return rows[:, :d], rows[:, d:], np.bincount(owner.ravel(), weights)


def prepare(X: Any, Y: Any, weights: Any, loss: str, bias: bool) -> Training:
    """Bring data to normal form.

    Args:
      X: (n, d) inputs, numpy.
      Y: (n, c) targets, numpy: reals, +-1, or one-hot rows.
      weights: (n,) sample weights >= 0, numpy, not all zero.
      loss: a key of LOSSES.
      bias: True if neurons have a bias.
    """
    X, Y, weights = _merge_equal(X[weights > 0], Y[weights > 0], weights[weights > 0])
    features = Dense(bias=bias)
    Z, unit = features.matrix(X), float(weights.sum())
    w = weights[:, None] / unit
    (n, p), input_scale, target_scale = Z.shape, _size(Z, w), 1.0
    _check_range("X", input_scale)
    Z = Z / input_scale
    if loss == "squared":
        target_scale = _size(Y, w)
        _check_range("y", target_scale)
        unit *= target_scale**2
        Z, Y = Z * np.sqrt(w), Y / target_scale * np.sqrt(w)
    padded = np.zeros((bucket(n, 256), bucket(p, 16)))
    padded[:n, :p] = Z
    targets = np.zeros((len(padded), Y.shape[1]))
    targets[:n] = Y
    problem = Problem(jnp.asarray(padded), jnp.asarray(targets), jnp.ones(()), None, LOSSES[loss])
    if loss != "squared":
        problem = problem.replace(sample_weight=np.pad(w[:, 0], (0, len(padded) - n)))
    return Training(problem, Z, input_scale, target_scale, unit, features)


@jax.jit
def _largest_slope(problem: Problem, starts: Float[Array, "S p"]) -> Float[Array, ""]:
    """Estimate ``max_u ||R^T (Z u)_+||`` over unit u from ``starts``, for the residual R of the zero network."""
    R = -problem.loss.grad(jnp.zeros_like(problem.Y), problem.targets)
    return price_multistart(problem.rows, R, starts, num=1, finish=False).values[0]


def beta_max(training: Training) -> float:
    """Estimate the smallest beta whose solution is zero, in the caller's units, by ascents from many starts."""
    columns, width = training.rows.shape[1], training.problem.X.shape[1]
    starts = np.zeros((_STARTS, width))
    starts[:, :columns] = np.random.default_rng(0).standard_normal((_STARTS, columns))
    return float(_largest_slope(training.problem, jnp.asarray(starts))) / training.beta_factor


def choose_cells(training: Training, num: int, key: Any) -> Arrangements:
    """Return ``num`` cells: all cells if there are so few, sampled ones otherwise. Cells are repeated up to ``num``."""
    rows = training.rows
    cells = None
    if len(rows) <= num and count_cells(rows)[0] <= num:
        with contextlib.suppress(TooManyArrangements):  # the two functions may disagree on which rows are parallel
            cells = enumerate_arrangements(rows, max_cells=num)
    if cells is None:
        cells = sample_arrangements(key, rows, num)
    again = np.arange(num) % cells.num_cells
    masks = np.ones((num, training.problem.num_samples), bool)
    masks[:, : len(rows)] = np.asarray(cells.masks)[again]
    gates = np.zeros((num, training.problem.X.shape[1]))
    gates[:, : rows.shape[1]] = np.asarray(cells.gates)[again]
    return Arrangements(jnp.asarray(masks), jnp.asarray(gates), cells.complete)


def fit(
    training: Training,
    beta: float,
    *,
    num_cells: int,
    solver: AnySolver | None,
    max_steps: int,
    seed: int,
    warm: Network | None = None,
) -> Fit:
    """Train a network and compute a lower bound on the best objective.

    Without a ``solver``, Adam trains a network of ``num_cells / 2`` neurons, and a convex program fits its output
    weights anew. The bound covers its cells and ``num_cells`` others.
    """
    problem = training.problem.replace(beta=beta * training.beta_factor)
    key = jax.random.key(seed)
    problem = problem.replace(arrangements=choose_cells(training, num_cells, key))
    if solver is None:
        width = max(1, num_cells // 2)
        start = random_network(training, width, seed) if warm is None else training.adopt(warm, width)
        network, lower = _train(problem, start, key, max_steps)
        steps = max_steps
        scope = bound_scope(problem.arrangements, problem.num_outputs)
    else:
        solution = solve(problem, solver, key=key)
        network, lower, scope = solution.network, solution.lower_bound, solution.scope
        steps = solution.num_steps
    network = training.restore(network)
    objective = training.unit * _objective(training, network, float(problem.beta))
    return Fit(network, objective, min(float(lower) * training.unit, objective), scope, int(steps))


def random_network(training: Training, width: int, seed: int) -> Network:
    """Draw initial weights of He's size. They are zero on added columns."""
    columns, rng = training.rows.shape[1], np.random.default_rng(seed)
    hidden = np.zeros((width, training.problem.X.shape[1]))
    hidden[:, :columns] = rng.standard_normal((width, columns)) * np.sqrt(2 / columns)
    output = rng.standard_normal((width, training.problem.num_outputs)) / np.sqrt(width)
    return Network(jnp.asarray(hidden), jnp.asarray(output), None, Dense())


def _descend(problem: Problem, network: Network, key: Any, max_steps: int) -> Network:
    """Run Adam with cosine decay on all weights. With many rows it uses mini-batches."""
    import optax

    smooth = TrainingObjective(problem, network.width)
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, max_steps))

    def step(i, carry):
        network, state = carry
        if problem.num_samples <= _FULL_BATCH_ROWS:
            gradient = jax.grad(smooth.objective)(network)
        else:
            draw = jax.random.fold_in(key, i)
            gradient = jax.grad(smooth.sampled_objective)(network, draw, _FULL_BATCH_ROWS // 4)
        with default_promotion():
            updates, state = optimizer.update(gradient, state, network)
            return optax.apply_updates(network, updates), state

    return jax.lax.fori_loop(0, max_steps, step, (network, optimizer.init(network)))[0]


@functools.partial(jax.jit, static_argnames="max_steps")
def _train(problem: Problem, start: Network, key: Any, max_steps: int) -> tuple[Network, Array]:
    cells = problem.arrangements
    assert cells is not None
    local = problem.replace(arrangements=None)
    network = refit_outputs(local, _descend(local, start, key, max_steps), tol=1e-7, max_steps=200)
    own = arrangements_of(network, problem.X)
    if not cells.complete:
        cells = Arrangements(jnp.concatenate([cells.masks, own.masks]), jnp.concatenate([cells.gates, own.gates]))
    return network, network_bound(problem.replace(arrangements=cells), network)


def _objective(training: Training, network: Network, beta: float) -> float:
    """Objective of the scaled problem at a restored network, in float64."""
    scale = np.sqrt(training.input_scale / training.target_scale)
    hidden, output = network.hidden * scale, network.output * scale
    F = np.zeros(training.problem.Y.shape)
    F[: len(training.rows)] = np.maximum(training.rows @ hidden.T, 0) @ output
    penalty = 0.5 * beta * float((hidden**2).sum() + (output**2).sum())
    return float(training.problem.loss.value(jnp.asarray(F), training.problem.targets)) + penalty
