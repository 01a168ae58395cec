"""Pricers: objects that find neurons of large price and, if exact, bound the price of all others.

The global solvers add these neurons to their networks. With free biases a neuron (u, b) has ||u|| = 1 and any b, and
the columns of residuals must sum to zero (``feasible_residual``).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import Arrangements, count_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.errors import invalid
from jaxcvx.numerics.safe import divisor
from jaxcvx.pricing.base import Priced, distinct, neuron_values
from jaxcvx.pricing.faces import FaceTable, face_table, price_exact
from jaxcvx.pricing.multistart import price_multistart, pricing_starts
from jaxcvx.pricing.spike_free import price_cone, spike_free
from jaxcvx.pricing.sweep import Line, Plane, price_line, price_plane, rank_of, sort_line, sort_plane
from jaxcvx.problems.training import Problem

METHODS = ("auto", "exact", "multistart", "branch")
ORACLES = ("auto", "sweep", "faces", "cone", "multistart")
AUTO_MAX_CELLS = 20_000  # the method "auto" enumerates no more cells
AUTO_MAX_RANK = 4  # the method "auto" prices by faces up to this rank of the rows
_SHAKE = 0.1  # length of the perturbation of a unit neuron that an ascent starts from
_BATCH = 512  # fresh starts priced together
_BIAS_WEIGHT = 3.0  # entries of the bias column in multi-start pricing with free biases, for samples of size 1


@dataclasses.dataclass(frozen=True)
class SweepPricer:
    """The best neuron of all, by a sweep over the kinks of samples on a line or of rows in a plane."""

    sweep: Line | Plane

    exact = True
    scope = "global"

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """The ``num`` best neurons for the residual R; ``upper`` bounds all neurons. No start is needed."""
        price: Any = price_line if isinstance(self.sweep, Line) else price_plane
        return price(self.sweep, problem.rows, problem.readout.lift(R), num=num)


@dataclasses.dataclass(frozen=True)
class ConePricer:
    """The best neuron that is active on all samples. On spike-free data with one output it is the best of all."""

    exact = True
    scope = "global"

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """Two neurons, for R and for -R; ``upper`` bounds all neurons of spike-free data."""
        return price_cone(problem.rows, problem.readout.lift(R))


@dataclasses.dataclass(frozen=True)
class ExactPricer:
    """The best neuron over given cells, by their faces.

    Attributes:
      cells: cells of the rows. With free biases: of the rows of the samples centred at ``middle`` and divided by
        ``scale``.
      table: the faces of the cells.
      middle: mean of the samples with free biases, else None.
      scale: size of the centred samples with free biases.
    """

    cells: Arrangements
    table: FaceTable
    middle: Float[Array, d] | None = None
    scale: float = 1.0

    exact = True

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """The ``num`` best neurons for the residual R; ``upper`` bounds all in the cells. No start is needed."""
        rows, lifted = problem.rows, problem.readout.lift(R)
        if self.middle is None:
            return price_exact(self.table, rows, self.cells.masks, lifted, num=num)
        rows = rows.at[:, :-1].set((rows[:, :-1] - self.middle) / self.scale)
        priced = price_exact(self.table, rows, self.cells.masks, self.scale * lifted, num=num)
        u = priced.directions[:, :-1]
        b = self.scale * priced.directions[:, -1] - u @ self.middle
        return priced._replace(directions=jnp.concatenate([u, b[:, None]], axis=1))

    @property
    def scope(self) -> str:
        """The neurons that ``upper`` covers."""
        return "global" if self.cells.complete else "sampled-cells"


@dataclasses.dataclass(frozen=True)
class MultistartPricer:
    """Good neurons by difference-of-convex ascent from many starts. This is a heuristic: ``upper`` is inf.

    Attributes:
      num_starts: number of fresh starts in a batch.
      branch_nodes: budget of nodes for the branch and bound that proves a bound for the final network, or None.
    """

    num_starts: int
    branch_nodes: int | None = None

    exact = False
    scope = "heuristic"

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """Good neurons for the residual R, at most ``num``.

        The ascents start near the directions ``own`` (zero rows do not count) and from ``batches`` batches of fresh
        starts.
        """
        near_key, *fresh_keys = jax.random.split(key, batches + 1)
        best = _price_near(problem, R, near_key, own, num)
        for fresh_key in fresh_keys:
            best = _best_of(best, _price_far(problem, R, fresh_key, self.num_starts, num))
        return best


@jax.jit
def _best_of(a: Priced, b: Priced) -> Priced:
    directions = jnp.concatenate([a.directions, b.directions])
    best, values = distinct(directions, jnp.concatenate([a.values, b.values]), len(a.values))
    return Priced(directions[best], values, a.upper)


Pricer = SweepPricer | ConePricer | ExactPricer | MultistartPricer


def _ascend(problem: Problem, rows: Any, lifted: Any, starts: Array, num: int, finish: bool) -> Priced:
    """Local maxima of the price from ``starts``.

    With free biases the ascents treat the bias as a penalised weight with a large input, so that the penalty is small.
    Each neuron's bias is then replaced by its best kink.
    """
    if not problem.features.free_bias:
        return price_multistart(rows, lifted, starts, num=num, finish=finish)
    X = rows[:, :-1]
    middle = jnp.mean(X, axis=0)
    scale = jnp.sqrt(jnp.mean(jnp.sum((X - middle) ** 2, axis=1)))
    scale = divisor(scale)
    penalised_rows = jnp.concatenate([(X - middle) / scale, jnp.full_like(rows[:, -1:], _BIAS_WEIGHT)], axis=1)
    b = (starts[:, -1] + starts[:, :-1] @ middle) / scale
    penalised_starts = jnp.concatenate([starts[:, :-1], b[:, None] / _BIAS_WEIGHT], axis=1)
    priced = price_multistart(penalised_rows, lifted, penalised_starts, num=num, finish=finish)
    directions = best_kinks(X, lifted, priced.directions[:, :-1])
    values = neuron_values(rows, lifted, directions)
    order = jnp.argsort(-values)
    return Priced(directions[order], values[order], priced.upper)


def best_kinks(X: Float[Array, "n d"], R: Float[Array, "n q"], U: Float[Array, "m d"]) -> Float[Array, "m p"]:
    """Neurons (u, b): each row of U scaled to norm 1, with the bias whose kink has the largest price."""

    def best_kink(u):
        u = u / divisor(jnp.linalg.norm(u))
        place = X @ u
        order = jnp.argsort(place)
        r, gap = R[order], jnp.diff(place[order])[:, None]
        above = jnp.cumsum(r[::-1], axis=0)[::-1][1:]
        price = jnp.cumsum((gap * above)[::-1], axis=0)[::-1]
        return jnp.append(u, -place[order][jnp.argmax(jnp.linalg.norm(price, axis=1))])

    return jax.lax.map(best_kink, U)


@functools.partial(jax.jit, static_argnames="num")
def _price_near(problem: Problem, R: Any, key: Any, own: Array, num: int) -> Priced:
    """Ascents from the network's neurons after a small perturbation; on their kinks, ascents would not move.

    Fresh starts have lower prices than neurons in use at the beginning. They ascend separately
    (:func:`_price_far`), because they would all be dropped here.
    """
    alive = jnp.any(own != 0, axis=1)[:, None].astype(own.dtype)
    shaken = own + alive * _SHAKE * jax.random.normal(key, own.shape, own.dtype) / own.shape[1] ** 0.5
    return _ascend(problem, problem.rows, problem.readout.lift(R), shaken, num, False)


@functools.partial(jax.jit, static_argnames=("num_starts", "num"))
def _price_far(problem: Problem, R: Any, key: Any, num_starts: int, num: int) -> Priced:
    """Ascents from fresh starts."""
    rows, lifted = problem.rows, problem.readout.lift(R)
    starts = pricing_starts(key, rows, lifted, num_starts)
    return _ascend(problem, rows, lifted, starts, num, False)


def heuristic_norm(problem: Problem, R: Float[Array, "n c"], key: Any, own: Array, num_starts: int) -> float:
    """The largest price that :func:`search` finds."""
    return float(jnp.max(search(problem, R, key, own, num_starts).values))


def search(problem: Problem, R: Float[Array, "n c"], key: Any, own: Array, num_starts: int) -> Priced:
    """Ascents from ``num_starts`` fresh starts and from the network's own neurons ``own``. Nothing is proved.

    The ascents run in float32. The prices of the neurons where they end are computed in the precision of R.
    """
    rows, lifted, basis = problem.rows, problem.readout.lift(R), None
    if rows.shape[1] > rows.shape[0] and not problem.features.free_bias:  # the best neurons lie in the rows' space
        basis = jnp.linalg.qr(rows.T)[0]
        rows, own = rows @ basis, own @ basis
    scales = [1.0 if problem.features.free_bias else _largest(rows), _largest(lifted)]
    low = [(a / scale).astype(jnp.float32) for a, scale in zip((rows, lifted), scales, strict=True)]
    parts = [pricing_starts(k, *low, _BATCH) for k in jax.random.split(key, -(-num_starts // _BATCH))]
    own_starts = jnp.pad(own.astype(jnp.float32), ((0, -len(own) % _BATCH), (0, 0)))
    parts += jnp.split(own_starts, len(own_starts) // _BATCH)
    found = jnp.concatenate([_search(problem, *low, starts).directions for starts in parts])
    priced = _in_order(problem, rows, lifted, found.astype(rows.dtype))
    return priced if basis is None else priced._replace(directions=priced.directions @ basis.T)


@jax.jit
def _in_order(problem: Problem, rows: Array, lifted: Array, neurons: Array) -> Priced:
    neurons = neurons / divisor(jnp.linalg.norm(problem.features.penalised(neurons), axis=1, keepdims=True))
    best, values = distinct(neurons, neuron_values(rows, lifted, neurons), len(neurons))
    return Priced(neurons[best], values, jnp.full((), jnp.inf, values.dtype))


@jax.jit
def _search(problem: Problem, rows: Array, lifted: Array, starts: Array) -> Priced:
    return _ascend(problem, rows, lifted, starts, 64, True)


def _largest(a: Array) -> Array:
    return jnp.maximum(jnp.max(jnp.abs(a)), jnp.finfo(a.dtype).tiny)


def choose_pricer(problem: Problem, method: str, num_starts: int, branch_nodes: int = 10_000) -> Pricer:
    """The pricer for a method.

    Args:
      problem: data, features and perhaps cells.
      method: "exact" (by a sweep or by faces), "multistart", "branch" (multi-start, and branch and bound at the end)
        or "auto". "auto" is exact if all cells are given or are few, else multi-start.
      num_starts: fresh starts of multi-start pricing.
      branch_nodes: budget of branch and bound.

    Raises:
      InvalidInputError: unknown method; "branch" with free biases.
      TooManyArrangements: "exact" without cells on data that have too many.
    """
    if method not in METHODS:
        raise invalid("pricing", repr(method), "one of " + ", ".join(map(repr, METHODS)))
    cells, free = problem.arrangements, problem.features.free_bias
    if method == "branch":
        if free:
            raise invalid("pricing", "'branch'", "'exact' or 'multistart' with FreeBias()")
        return MultistartPricer(num_starts, branch_nodes)
    if free and method != "multistart" and sweeps(problem):
        return sweep_pricer(problem)
    if method == "multistart" or (method == "auto" and not few_cells(problem)):
        return MultistartPricer(num_starts)
    if free:
        return _free_bias_pricer(problem)
    if cells is None:
        cells = enumerate_arrangements(problem.X, features=problem.features)
    return ExactPricer(cells, face_table(problem.rows, cells.masks, cells.gates))


def _free_bias_pricer(problem: Problem) -> ExactPricer:
    X = np.asarray(problem.X, np.float64)
    middle = X.mean(axis=0)
    scale = float(np.abs(X - middle).max()) or 1.0
    centred = jnp.asarray((X - middle) / scale, problem.X.dtype)
    cells = enumerate_arrangements(centred, features=problem.features)
    table = face_table(problem.features.matrix(centred), cells.masks, cells.gates, free_bias=True)
    return ExactPricer(cells, table, jnp.asarray(middle, problem.X.dtype), scale)


def sweeps(problem: Problem) -> bool:
    """True if a sweep prices exactly: samples on a line with free biases, or rows of rank at most two without."""
    if problem.features.free_bias:
        X = np.asarray(problem.X, np.float64)
        return rank_of(X - X.mean(axis=0)) <= 1
    return rank_of(np.asarray(problem.rows, np.float64)) <= 2


def sweep_pricer(problem: Problem) -> SweepPricer:
    """The pricer of a problem for which :func:`sweeps` is true."""
    if problem.features.free_bias:
        return SweepPricer(sort_line(np.asarray(problem.X, np.float64)))
    return SweepPricer(sort_plane(np.asarray(problem.rows, np.float64)))


def choose_oracle(problem: Problem, oracle: str, num_starts: int) -> Pricer:
    """The pricer of a cutting-plane method.

    Args:
      problem: data and features.
      oracle: "sweep", "faces", "cone" (on spike-free data), "multistart", or "auto": the cheapest exact one that the
        data allow, else multi-start.
      num_starts: fresh starts of multi-start pricing.

    Raises:
      InvalidInputError: unknown oracle, or an oracle whose conditions the data do not meet.
      TooManyArrangements: "faces" on data with too many cells.
    """
    if oracle not in ORACLES:
        raise invalid("oracle", repr(oracle), "one of " + ", ".join(map(repr, ORACLES)))
    if oracle in ("auto", "sweep"):
        if sweeps(problem):
            return sweep_pricer(problem)
        if oracle == "sweep":
            raise invalid("oracle", "'sweep'", "rows of rank at most two, with free biases samples on a line")
    if oracle == "faces" or (oracle == "auto" and few_cells(problem)):
        return choose_pricer(problem.replace(arrangements=None), "exact", num_starts)
    if oracle in ("auto", "cone"):
        if _is_spike_free(problem):
            return ConePricer()
        if oracle == "cone":
            raise invalid("oracle", "'cone'", "spike-free rows and one output, without free biases")
    return MultistartPricer(num_starts)


def _is_spike_free(problem: Problem) -> bool:
    rows = np.asarray(problem.rows, np.float64)
    testable = problem.num_columns == 1 and not problem.features.free_bias and rows.shape[0] <= 2000
    return testable and spike_free(rows, max(rows.shape) * float(jnp.finfo(problem.X.dtype).eps))


def few_cells(problem: Problem) -> bool:
    """True if the method "auto" prices exactly: all cells are given, or are few, and the rows have low rank."""
    cells = problem.arrangements
    count, rank = count_cells(problem.rows)
    if cells is not None:
        return cells.complete and rank <= AUTO_MAX_RANK
    return rank <= AUTO_MAX_RANK and count <= AUTO_MAX_CELLS
