"""Whole paths of networks: one beta after the other, downwards, each from the neurons of the one before."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxcvx.problems.training import Problem
from jaxcvx.solvers.semi_infinite.pool import Pool
from jaxcvx.solvers.semi_infinite.sliding import Candidates, Pace, Settings, Sliding, row_curvature, slide, start_of

_BLOCK_ROWS = 16_384  # rows from which on the samples are worked through in blocks
_VIOLATION = 2e-4  # relative violation of a dual constraint from which a neuron is added in float32


class NeuronPath(NamedTuple):
    """One entry per beta: k pools of m slots, with the pricing at their residuals.

    Attributes:
      pools: directions (k, m, p) and weights (k, m, q).
      candidates: directions (k, j, p) and prices (k, j).
      scouts: directions (k, s, p) of unfinished ascents.
      rounds: (k,) rounds that each beta took.
    """

    pools: Pool
    candidates: Candidates
    scouts: Float[Array, "k s p"]
    rounds: Int[Array, k]


def path_of(state: Sliding, rounds: Array) -> NeuronPath:
    """A state, or a batch of them, with its rounds."""
    return NeuronPath(state.pool, state.candidates, state.scouts, rounds)


def empty_start(problem: Problem, capacity: int, settings: Settings) -> Sliding:
    """The state without neurons, before the first pricing."""
    p, q, dtype = problem.num_weights, problem.num_columns, problem.dtype
    nothing: Any = (np.zeros(shape, dtype) for shape in ((capacity, p), (capacity, q), problem.num_outputs))
    return start_of(problem, Pool(*nothing), settings)


@functools.partial(jax.jit, static_argnames="settings")
def follow(
    problem: Problem,
    betas: Float[Array, k],
    start: Sliding,
    keys: PRNGKeyArray,
    settings: Settings,
    pace: Pace,
    first: int | Array = 0,
) -> NeuronPath:
    """Slide from beta to beta, in one scan.

    Args:
      problem: its own beta is not used.
      betas: the path; large ones first.
      start: neurons to start from, such as those of :func:`empty_start`; their capacity is kept.
      keys: one key for each beta, for the random starts of pricing.
      settings: sizes of a round. With ``stop_if_full`` the betas after a full pool take no rounds.
      pace: rates and limits.
      first: index of the first beta to work at; those before it are passed over.
    """
    curvature = row_curvature(problem)

    def next_beta(state, inputs):
        beta, here, active = inputs
        state, rounds = slide(problem.replace(beta=beta), state, here, settings, pace, curvature, active)
        return state, path_of(state, rounds)

    inputs = (betas, keys, jnp.arange(len(betas)) >= first)
    return jax.lax.scan(next_beta, start, inputs)[1]


def follow_on_host(
    problem: Problem, betas: Float[Array, k], start: Sliding, keys: PRNGKeyArray, settings: Settings, pace: Pace
) -> NeuronPath:
    """:func:`follow` with a capacity that doubles where a pool is full: the path then goes on from the beta before.

    A pool without an empty slot takes no new neuron, so its beta is repeated with the larger capacity.
    """
    limit = problem.num_rows * problem.num_columns + 1  # no optimum needs more neurons
    settings = settings._replace(narrow=True, blocks=sample_blocks(problem))
    parts: list[NeuronPath] = []
    at = 0
    while True:
        capacity = len(start.pool.weights)
        may_grow = capacity < limit
        sizes = settings._replace(stop_if_full=may_grow)
        path = jax.device_get(follow(problem, betas, start, keys, sizes, pace, at))
        used = np.any(path.pools.weights != 0, axis=2).all(axis=1)
        used[:at] = False
        keep = int(np.argmax(used)) if used.any() and may_grow else len(used)
        parts.append(jax.tree.map(lambda a, at=at, keep=keep: a[at:keep], path))
        if keep == len(used):
            break
        if keep > at:
            start = state_at(path, keep - 1)
        at = keep
        start = grow(start, 2 * capacity, settings)
    return joined(parts, settings)


def joined(parts: list[NeuronPath], settings: Settings) -> NeuronPath:
    """Paths one after the other, with the capacity of the largest. Runs on the host."""
    capacity = max(part.pools.weights.shape[1] for part in parts)
    grown = [path_of(grow(Sliding(*part[:3]), capacity, settings), part.rounds) for part in parts]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *grown)


def sample_blocks(problem: Problem) -> int:
    """A power of two that divides the samples into blocks of few rows, or 1 for samples on several devices."""
    if len(problem.X.devices()) > 1:
        return 1
    blocks = 1
    while problem.num_rows > blocks * _BLOCK_ROWS and problem.num_samples % (2 * blocks) == 0:
        blocks *= 2
    return blocks


def state_at(path: NeuronPath, k: int) -> Sliding:
    """The state of entry k."""
    return Sliding(*jax.tree.map(lambda a: a[k], path[:3]))


def grow(state: Sliding, capacity: int, settings: Settings) -> Sliding:
    """Give a state, or a batch of them with a leading axis, ``capacity`` slots. Runs on the host, in numpy."""

    def padded(a: Any, length: int) -> Any:
        axis = a.ndim - 2
        return np.pad(a, [(0, length - n if k == axis else 0) for k, n in enumerate(a.shape)])

    pool, candidates, scouts = jax.device_get(state)
    num = max(settings.starts, capacity)
    found = min(settings.new_neurons, num)
    prices = padded(candidates.prices[..., None], found)[..., 0]
    pool = pool._replace(directions=padded(pool.directions, capacity), weights=padded(pool.weights, capacity))
    return Sliding(pool, Candidates(padded(candidates.directions, found), prices), padded(scouts, num))


def pace_of(problem: Problem, settings: Settings, rate: float) -> Pace:
    """The rates and limits of :func:`follow`, in the type of the problem."""
    numbers: Any = (np.asarray(a, problem.dtype) for a in (rate, _VIOLATION))
    limits: Any = (settings.moves, settings.max_rounds, settings.move_steps)
    return Pace(*numbers, *(np.asarray(a, np.int32) for a in limits))
