"""Pricing as the global solvers use it: which neurons would lower the objective, and what is proved about the rest."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.arrangements.cells import Arrangements, max_num_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.errors import invalid
from jaxcvx.operators.pricing_exact import FaceTable, Priced, face_table, neuron_values, price_exact
from jaxcvx.operators.pricing_multistart import price_multistart, pricing_starts
from jaxcvx.problems.relu import Problem

METHODS = ("auto", "exact", "multistart")
_AUTO_MAX_CELLS = 20_000
_AUTO_MAX_RANK = 4
_BATCH = 512  # starts priced together


@dataclasses.dataclass(frozen=True)
class ExactPricer:
    """The best neuron over given cells, by their faces."""

    cells: Arrangements
    table: FaceTable

    def __call__(self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int) -> Priced:
        """``num`` neurons for the residual R; ``upper`` bounds all neurons in the cells."""
        rows = problem.rows
        return price_exact(self.table, rows, self.cells.masks, problem.readout.lift(R), num=num)

    @property
    def scope(self) -> str:
        """What ``upper`` covers."""
        return "global" if self.cells.complete else "sampled-cells"


@dataclasses.dataclass(frozen=True)
class MultistartPricer:
    """Good neurons anywhere, by difference-of-convex ascent from many starts: a heuristic, ``upper`` is inf."""

    num_starts: int
    rounds: int = 6
    inner_steps: int = 60

    scope = "heuristic"

    def __call__(self, problem: Problem, R: Float[Array, "n c"], key: Any, own: Any, num: int) -> Priced:
        """``num`` neurons for the residual R, starting also from the directions ``own``."""
        return _multistart(self, problem, R, key, own, num)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _multistart(pricer: MultistartPricer, problem: Problem, R: Any, key: Any, own: Any, num: int) -> Priced:
    rows, lifted = problem.rows, problem.readout.lift(R)
    shake, draw = jax.random.split(key)
    near = own + 0.02 * jax.random.normal(shake, own.shape, own.dtype) * jnp.any(own != 0, axis=1)[:, None]
    starts = pricing_starts(draw, rows, lifted, pricer.num_starts, near)
    priced = price_multistart(rows, lifted, starts, pricer.rounds, pricer.inner_steps)
    return Priced(priced.directions[:num], priced.values[:num], jnp.full_like(priced.upper, jnp.inf))


def heuristic_norm(problem: Problem, R: Float[Array, "n c"], key: Any, own: Array, num_starts: int) -> float:
    """Largest value of fresh starts (and of ascents from the network's own neurons), evaluated in R's precision."""
    rows, lifted = problem.rows, problem.readout.lift(R)
    scale = [jnp.maximum(jnp.max(jnp.abs(a)), jnp.finfo(a.dtype).tiny) for a in (rows, lifted)]
    low = [(a / s).astype(jnp.float32) for a, s in zip((rows, lifted), scale, strict=True)]
    best = 0.0
    batches = -(-num_starts // _BATCH)
    for k, part in enumerate(jax.random.split(key, batches)):
        near = own[k * _BATCH : (k + 1) * _BATCH].astype(jnp.float32)
        starts = pricing_starts(part, low[0], low[1], _BATCH, None)
        starts = starts.at[: len(near)].set(near) if len(near) else starts
        found = _ascend(low[0], low[1], starts)
        unit = found.directions.astype(rows.dtype)
        size = jnp.linalg.norm(unit, axis=1, keepdims=True)
        best = max(best, float(jnp.max(neuron_values(rows, lifted, unit / jnp.where(size > 0, size, 1.0)))))
    return best


_ascend = jax.jit(lambda rows, lifted, starts: price_multistart(rows, lifted, starts, 10, 100))


Pricer = ExactPricer | MultistartPricer


def choose_pricer(problem: Problem, method: str, num_starts: int) -> Pricer:
    """The pricer for ``method``; "auto" is exact where all cells are given or are few.

    Raises:
      InvalidInputError: unknown method.
      TooManyArrangements: "exact" without cells on data that have too many.
    """
    if method not in METHODS:
        raise invalid("pricing", repr(method), "one of " + ", ".join(map(repr, METHODS)))
    cells = problem.arrangements
    if method == "multistart" or (method == "auto" and cells is not None and not cells.complete):
        return MultistartPricer(num_starts)
    if cells is None:
        rows = np.asarray(problem.rows, np.float64)
        if method == "auto":
            distinct = np.unique(rows, axis=0)
            rank = int(np.linalg.matrix_rank(distinct))
            if rank > _AUTO_MAX_RANK or max_num_cells(len(distinct), rank) > _AUTO_MAX_CELLS:
                return MultistartPricer(num_starts)
        cells = enumerate_arrangements(problem.X, features=problem.features)
    return ExactPricer(cells, face_table(problem.rows, cells.masks, cells.gates))
