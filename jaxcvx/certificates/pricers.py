"""Pricing as the global solvers use it: which neurons would lower the objective, and what is proved about the rest."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import Arrangements, count_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.errors import invalid
from jaxcvx.operators.pricing import Priced, distinct, neuron_values
from jaxcvx.operators.pricing_exact import FaceTable, face_table, price_exact
from jaxcvx.operators.pricing_multistart import price_multistart, pricing_starts
from jaxcvx.problems.relu import Problem

METHODS = ("auto", "exact", "multistart", "branch")
_AUTO_MAX_CELLS = 20_000
_AUTO_MAX_RANK = 4
_SHAKE = 0.1  # length of the perturbation of a unit neuron that an ascent starts from
_BATCH = 512  # fresh starts priced together


@dataclasses.dataclass(frozen=True)
class ExactPricer:
    """The best neuron over given cells, by their faces."""

    cells: Arrangements
    table: FaceTable

    def __call__(
        self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int, batches: int = 1
    ) -> Priced:
        """``num`` neurons for the residual R; ``upper`` bounds all neurons in the cells. No start is needed."""
        return price_exact(self.table, problem.rows, self.cells.masks, problem.readout.lift(R), num=num)

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


Pricer = ExactPricer | MultistartPricer


@functools.partial(jax.jit, static_argnames="num")
def _near(problem: Problem, R: Any, key: Any, own: Array, num: int) -> Priced:
    """Ascents from the network's neurons, shaken: where they stand, on kinks, ascents would not move.

    Apart from the fresh starts, which at first price lower than neurons in use and would all be dropped.
    """
    alive = jnp.any(own != 0, axis=1)[:, None]
    shaken = own + alive * _SHAKE * jax.random.normal(key, own.shape, own.dtype) / own.shape[1] ** 0.5
    return price_multistart(problem.rows, problem.readout.lift(R), shaken, num=num, finish=False)


@functools.partial(jax.jit, static_argnames=("num_starts", "num"))
def _far(problem: Problem, R: Any, key: Any, num_starts: int, num: int) -> Priced:
    """Ascents from fresh starts."""
    rows, lifted = problem.rows, problem.readout.lift(R)
    starts = pricing_starts(key, rows, lifted, num_starts)
    return price_multistart(rows, lifted, starts, num=num, finish=False)


def heuristic_norm(problem: Problem, R: Float[Array, "n c"], key: Any, own: Array, num_starts: int) -> float:
    """Largest price found by ascents from ``num_starts`` fresh starts and from the network's own neurons.

    The ascents run in float32, the neurons that they end in are priced in R's precision.
    """
    rows, lifted = problem.rows, problem.readout.lift(R)
    low = [
        (a / jnp.maximum(jnp.max(jnp.abs(a)), jnp.finfo(a.dtype).tiny)).astype(jnp.float32) for a in (rows, lifted)
    ]
    parts = [pricing_starts(k, *low, _BATCH) for k in jax.random.split(key, -(-num_starts // _BATCH))]
    mine = jnp.pad(own.astype(jnp.float32), ((0, -len(own) % _BATCH), (0, 0)))
    best = 0.0
    for starts in [*parts, *jnp.split(mine, len(mine) // _BATCH)]:
        unit = price_multistart(*low, starts, num=64).directions.astype(rows.dtype)
        size = jnp.linalg.norm(unit, axis=1, keepdims=True)
        best = max(best, float(jnp.max(neuron_values(rows, lifted, unit / jnp.where(size > 0, size, 1.0)))))
    return best


def choose_pricer(problem: Problem, method: str, num_starts: int, branch_nodes: int = 10_000) -> Pricer:
    """The pricer for ``method``; "auto" is exact where all cells are given or are few.

    Raises:
      InvalidInputError: unknown method.
      TooManyArrangements: "exact" without cells on data that have too many.
    """
    if method not in METHODS:
        raise invalid("pricing", repr(method), "one of " + ", ".join(map(repr, METHODS)))
    cells = problem.arrangements
    if method == "branch":
        return MultistartPricer(num_starts, branch_nodes)
    if method == "multistart" or (method == "auto" and not _few_cells(problem)):
        return MultistartPricer(num_starts)
    if cells is None:
        cells = enumerate_arrangements(problem.X, features=problem.features)
    return ExactPricer(cells, face_table(problem.rows, cells.masks, cells.gates))


def _few_cells(problem: Problem) -> bool:
    """Whether all cells are given, or may be enumerated and priced exactly without a second thought."""
    cells = problem.arrangements
    count, rank = count_cells(problem.rows)
    if cells is not None:
        return cells.complete and rank <= _AUTO_MAX_RANK
    return rank <= _AUTO_MAX_RANK and count <= _AUTO_MAX_CELLS
