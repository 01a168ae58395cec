"""Pricing as the global solvers use it: which neurons would lower the objective, and what is proved about the rest.

With free biases a neuron (u, b) has ||u|| = 1 and any b; residuals must sum to zero (``feasible_residual``).
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
from jaxcvx.pricing.base import Priced, distinct, neuron_values
from jaxcvx.pricing.faces import FaceTable, face_table, price_exact
from jaxcvx.pricing.multistart import price_multistart, pricing_starts
from jaxcvx.pricing.spike_free import price_cone, spike_free
from jaxcvx.pricing.sweep import Line, Plane, price_line, price_plane, rank_of, sort_line, sort_plane
from jaxcvx.problems.training import Problem

METHODS = ("auto", "exact", "multistart", "branch")
ORACLES = ("auto", "sweep", "faces", "cone", "multistart")
AUTO_MAX_CELLS = 20_000  # that are enumerated without being asked
AUTO_MAX_RANK = 4  # of rows whose cells are priced by their faces without being asked
_SHAKE = 0.1  # length of the perturbation of a unit neuron that an ascent starts from
_BATCH = 512  # fresh starts priced together
_BIAS_ROOM = 3.0  # weight of the column of ones in multi-start pricing with free biases, for rows of size 1


@dataclasses.dataclass(frozen=True)
class SweepPricer:
    """The best neuron of all, by a sweep over the kinks of samples on a line or of rows in a plane."""

    sweep: Line | Plane

    exact = True
    scope = "global"

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """``num`` neurons for the residual R; ``upper`` bounds all neurons. No start is needed."""
        price: Any = price_line if isinstance(self.sweep, Line) else price_plane
        return price(self.sweep, problem.rows, problem.readout.lift(R), num=num)


@dataclasses.dataclass(frozen=True)
class ConePricer:
    """The best neuron that is active on all samples: the best of all on spike-free data, one output."""

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
      cells: of the rows; with free biases of the samples centred and divided by ``scale``.
      table: their faces.
      middle, scale: of the samples, with free biases.
    """

    cells: Arrangements
    table: FaceTable
    middle: Float[Array, d] | None = None
    scale: float = 1.0

    exact = True

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """``num`` neurons for the residual R; ``upper`` bounds all neurons in the cells. No start is needed."""
        rows, lifted = problem.rows, problem.readout.lift(R)
        if self.middle is None:
            return price_exact(self.table, rows, self.cells.masks, lifted, num=num)
        rows = rows.at[:, :-1].set((rows[:, :-1] - self.middle) / self.scale)
        found = price_exact(self.table, rows, self.cells.masks, self.scale * lifted, num=num)
        u = found.directions[:, :-1]
        b = self.scale * found.directions[:, -1] - u @ self.middle
        return found._replace(directions=jnp.concatenate([u, b[:, None]], axis=1))

    @property
    def scope(self) -> str:
        """What ``upper`` covers."""
        return "global" if self.cells.complete else "sampled-cells"


@dataclasses.dataclass(frozen=True)
class MultistartPricer:
    """Good neurons anywhere, by difference-of-convex ascent from many starts: a heuristic, ``upper`` is inf.

    Attributes:
      num_starts: fresh starts of one batch.
      branch_nodes: budget of the branch and bound that proves a bound on the final network, or None.
    """

    num_starts: int
    branch_nodes: int | None = None

    exact = False
    scope = "heuristic"

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """``num`` neurons for the residual R, starting also at the directions ``own`` (zero rows do not count)."""
        near, *fresh = jax.random.split(key, batches + 1)
        found = _near(problem, R, near, own, num)
        for each in fresh:
            found = _best_of(found, _far(problem, R, each, self.num_starts, num))
        return found


@jax.jit
def _best_of(a: Priced, b: Priced) -> Priced:
    directions = jnp.concatenate([a.directions, b.directions])
    best, values = distinct(directions, jnp.concatenate([a.values, b.values]), len(a.values))
    return Priced(directions[best], values, a.upper)


Pricer = SweepPricer | ConePricer | ExactPricer | MultistartPricer


def _ascend(problem: Problem, rows: Any, lifted: Any, starts: Array, num: int, finish: bool) -> Priced:
    """Local maxima of the price from ``starts``.

    With free biases the ascents see a penalised bias with much room; then each bias goes to its best kink.
    """
    if not problem.features.free_bias:
        return price_multistart(rows, lifted, starts, num=num, finish=finish)
    X = rows[:, :-1]
    middle = jnp.mean(X, axis=0)
    scale = jnp.sqrt(jnp.mean(jnp.sum((X - middle) ** 2, axis=1)))
    scale = jnp.where(scale > 0, scale, 1.0)
    room = jnp.concatenate([(X - middle) / scale, jnp.full_like(rows[:, -1:], _BIAS_ROOM)], axis=1)
    b = (starts[:, -1] + starts[:, :-1] @ middle) / scale
    seen = jnp.concatenate([starts[:, :-1], b[:, None] / _BIAS_ROOM], axis=1)
    found = price_multistart(room, lifted, seen, num=num, finish=finish)
    directions = best_kinks(X, lifted, found.directions[:, :-1])
    values = neuron_values(rows, lifted, directions)
    order = jnp.argsort(-values)
    return Priced(directions[order], values[order], found.upper)


def best_kinks(X: Float[Array, "n d"], R: Float[Array, "n q"], U: Float[Array, "m d"]) -> Float[Array, "m p"]:
    """Neurons (u, b) with the directions of U, made unit, and the kink of highest price for each."""

    def one(u):
        size = jnp.linalg.norm(u)
        u = u / jnp.where(size > 0, size, 1.0)
        place = X @ u
        order = jnp.argsort(place)
        r, gap = R[order], jnp.diff(place[order])[:, None]
        above = jnp.cumsum(r[::-1], axis=0)[::-1][1:]
        price = jnp.cumsum((gap * above)[::-1], axis=0)[::-1]
        return jnp.append(u, -place[order][jnp.argmax(jnp.linalg.norm(price, axis=1))])

    return jax.lax.map(one, U)


@functools.partial(jax.jit, static_argnames="num")
def _near(problem: Problem, R: Any, key: Any, own: Array, num: int) -> Priced:
    """Ascents from the network's neurons, shaken: where they stand, on kinks, ascents would not move.

    Apart from the fresh starts, which at first price lower than neurons in use and would all be dropped.
    """
    alive = jnp.any(own != 0, axis=1)[:, None]
    shaken = own + alive * _SHAKE * jax.random.normal(key, own.shape, own.dtype) / own.shape[1] ** 0.5
    return _ascend(problem, problem.rows, problem.readout.lift(R), shaken, num, False)


@functools.partial(jax.jit, static_argnames=("num_starts", "num"))
def _far(problem: Problem, R: Any, key: Any, num_starts: int, num: int) -> Priced:
    """Ascents from fresh starts."""
    rows, lifted = problem.rows, problem.readout.lift(R)
    starts = pricing_starts(key, rows, lifted, num_starts)
    return _ascend(problem, rows, lifted, starts, num, False)


def heuristic_norm(problem: Problem, R: Float[Array, "n c"], key: Any, own: Array, num_starts: int) -> float:
    """Largest price found by ascents from ``num_starts`` fresh starts and from the network's own neurons.

    The ascents run in float32, the neurons that they end in are priced in R's precision.
    """
    rows, lifted = problem.rows, problem.readout.lift(R)
    scales = [1.0 if problem.features.free_bias else _largest(rows), _largest(lifted)]
    low = [(a / scale).astype(jnp.float32) for a, scale in zip((rows, lifted), scales, strict=True)]
    parts = [pricing_starts(k, *low, _BATCH) for k in jax.random.split(key, -(-num_starts // _BATCH))]
    mine = jnp.pad(own.astype(jnp.float32), ((0, -len(own) % _BATCH), (0, 0)))
    best = 0.0
    for starts in [*parts, *jnp.split(mine, len(mine) // _BATCH)]:
        found = _search(problem, *low, starts).directions.astype(rows.dtype)
        size = jnp.linalg.norm(problem.features.penalised(found), axis=1, keepdims=True)
        best = max(best, float(jnp.max(neuron_values(rows, lifted, found / jnp.where(size > 0, size, 1.0)))))
    return best


@jax.jit
def _search(problem: Problem, rows: Array, lifted: Array, starts: Array) -> Priced:
    return _ascend(problem, rows, lifted, starts, 64, True)


def _largest(a: Array) -> Array:
    return jnp.maximum(jnp.max(jnp.abs(a)), jnp.finfo(a.dtype).tiny)


def choose_pricer(problem: Problem, method: str, num_starts: int, branch_nodes: int = 10_000) -> Pricer:
    """The pricer for ``method``; "auto" is exact where all cells are given or are few.

    Raises:
      InvalidInputError: unknown method.
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
    """Whether a sweep prices exactly: samples on a line with free biases, or else rows of rank at most two."""
    if problem.features.free_bias:
        X = np.asarray(problem.X, np.float64)
        return rank_of(X - X.mean(axis=0)) <= 1
    return rank_of(np.asarray(problem.rows, np.float64)) <= 2


def sweep_pricer(problem: Problem) -> SweepPricer:
    """The pricer of such a problem."""
    if problem.features.free_bias:
        return SweepPricer(sort_line(np.asarray(problem.X, np.float64)))
    return SweepPricer(sort_plane(np.asarray(problem.rows, np.float64)))


def choose_oracle(problem: Problem, oracle: str, num_starts: int) -> Pricer:
    """The pricer of a cutting-plane method; "auto" is the cheapest exact one, or multi-start.

    Raises:
      InvalidInputError: unknown oracle, or one whose conditions the data do not meet.
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
    few = problem.num_columns == 1 and not problem.features.free_bias and rows.shape[0] <= 2000
    return few and spike_free(rows, max(rows.shape) * float(jnp.finfo(problem.X.dtype).eps))


def few_cells(problem: Problem) -> bool:
    """True if the method "auto" prices exactly: all cells are given, or are few, and the rows have low rank."""
    cells = problem.arrangements
    count, rank = count_cells(problem.rows)
    if cells is not None:
        return cells.complete and rank <= AUTO_MAX_RANK
    return rank <= AUTO_MAX_RANK and count <= AUTO_MAX_CELLS
