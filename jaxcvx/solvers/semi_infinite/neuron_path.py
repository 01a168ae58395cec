"""Whole paths of networks: one beta after the other, downwards, each from the neurons of the one before."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxcvx.certificates.centring import best_shifted, feasible_residual
from jaxcvx.certificates.dual import scaled_bound
from jaxcvx.networks.network import network_objective
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.trees import is_traced
from jaxcvx.pricing.multistart import price_multistart, pricing_starts
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import Solution, Status, relative_gap
from jaxcvx.solvers.semi_infinite.cell_rounds import finish
from jaxcvx.solvers.semi_infinite.pool import Pool, pool_network, resize
from jaxcvx.solvers.semi_infinite.scaling import Scaling, scaled_problem
from jaxcvx.solvers.semi_infinite.sliding import (
    Candidates,
    Settings,
    Sliding,
    neuron_prices,
    row_curvature,
    slide,
    start_of,
)

_STARTS = 256  # of the search for the largest price
_BUCKET = 32  # smallest number of slots of a finish; larger ones double
_PAYING = 8  # slots for new neurons that a bucket must have
_FINISH_TOL = 1e-7  # relative violation of a dual constraint in float64
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
    p, q, dtype = problem.rows.shape[1], problem.num_columns, problem.dtype
    nothing = Pool(
        jnp.zeros((capacity, p), dtype), jnp.zeros((capacity, q), dtype), jnp.zeros(problem.num_outputs, dtype)
    )
    return start_of(problem, nothing, settings)


@functools.partial(jax.jit, static_argnames="settings")
def follow(
    problem: Problem,
    betas: Float[Array, k],
    start: Sliding,
    key: PRNGKeyArray,
    settings: Settings,
    rate: Float[Array, ""],
    tol: Float[Array, ""],
    first: int | Array = 0,
) -> NeuronPath:
    """Slide from beta to beta, in one scan.

    Args:
      problem: its own beta is not used.
      betas: the path; large ones first.
      start: neurons to start from, such as those of :func:`empty_start`; their capacity is kept.
      key: for the random starts of pricing.
      settings: sizes of a round. With ``stop_if_full`` the betas after a full pool take no rounds.
      rate: Adam's initial learning rate.
      tol: relative violation of a dual constraint from which a neuron is added.
      first: index of the first beta to work at; those before it are passed over.
    """
    curvature = row_curvature(problem)

    def next_beta(state, inputs):
        beta, here, active = inputs
        state, rounds = slide(problem.replace(beta=beta), state, here, settings, rate, tol, curvature, active)
        return state, path_of(state, rounds)

    inputs = (betas, jax.random.split(key, len(betas)), jnp.arange(len(betas)) >= first)
    return jax.lax.scan(next_beta, start, inputs)[1]


def follow_on_host(
    problem: Problem, betas: Float[Array, k], start: Sliding, key: PRNGKeyArray, settings: Settings, rate: Any, tol: Any
) -> NeuronPath:
    """:func:`follow` with a capacity that doubles where a pool is full: the path then goes on from the beta before.

    A pool without an empty slot takes no new neuron, so its beta is repeated with the larger capacity.
    """
    limit = problem.num_rows * problem.num_columns + 1  # no optimum needs more neurons
    parts: list[NeuronPath] = []
    at = 0
    while True:
        capacity = len(start.pool.weights)
        may_grow = capacity < limit
        sizes = settings._replace(stop_if_full=may_grow)
        path = jax.device_get(follow(problem, betas, start, key, sizes, rate, tol, at))
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
    capacity = parts[-1].pools.weights.shape[1]
    grown = [path_of(grow(Sliding(*part[:3]), capacity, settings), part.rounds) for part in parts]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *grown)


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


def finish_on_host(
    problem: Problem, betas: Float[Array, k], path: NeuronPath, key: PRNGKeyArray, settings: Settings, limit: int
) -> NeuronPath:
    """Finish each network of a path in float64, each in the smallest bucket of slots that holds it.

    Args:
      problem: scaled, in float64; its own beta is not used.
      betas: (k,) in its units.
      path: numpy arrays in float64.
      key: for pricing.
      settings: sizes of a round.
      limit: largest number of rounds for each beta.
    """
    parts = []
    tol, most = jnp.asarray(_FINISH_TOL, problem.dtype), jnp.asarray(limit, jnp.int32)
    for k, here in enumerate(jax.random.split(key, len(betas))):
        state = in_bucket(state_at(path, k), betas[k], settings)
        state, count = finish(problem.replace(beta=betas[k]), state, here, settings, tol, most)
        parts.append(jax.device_get((state, path.rounds[k] + count)))
    capacity = max(len(state.pool.weights) for state, _ in parts)
    grown = [path_of(grow(state, capacity, settings), rounds) for state, rounds in parts]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *grown)


def in_bucket(state: Sliding, beta: Any, settings: Settings) -> Sliding:
    """The state with a power of two of slots, the fewest that hold its neurons and some new ones. Host only."""
    paying = int(np.sum(np.asarray(state.candidates.prices) > float(beta)))
    used = int(np.any(np.asarray(state.pool.weights) != 0, axis=1).sum())
    capacity = _BUCKET
    while capacity < used + min(paying, _PAYING):
        capacity *= 2
    num = max(settings.starts, capacity)
    scouts: Any = np.zeros((num, state.scouts.shape[1]), np.asarray(state.scouts).dtype)
    kept = np.asarray(state.scouts)[-num:]
    scouts[: len(kept)] = kept
    return grow(Sliding(resize(state.pool, capacity), state.candidates, scouts), capacity, settings)


@functools.partial(jax.jit, static_argnames="dtype")
def report(
    problem: Problem, betas: Float[Array, k], path: NeuronPath, scaling: Scaling, tol: Array, dtype: Any
) -> Solution:
    """The batched solution: every number is computed from the networks, in the caller's units.

    Args:
      problem: the caller's problem.
      betas: (k,) in the caller's units.
      path: of the scaled problem.
      scaling: the factors between the two.
      tol: relative heuristic gap that counts as converged.
      dtype: static; the type of the returned weights. Numbers are those of the weights in this type.
    """

    def at(inputs):
        beta, pool, candidates = inputs
        here = problem.replace(beta=beta)
        network = as_type(as_type(scaling.network(pool_network(here, pool), here), dtype), here.dtype)
        upper = network_objective(network, here)
        R = feasible_residual(here, -here.loss.grad(network(here.X), here.targets))
        norm = jnp.maximum(
            jnp.max(neuron_prices(here, R, network.hidden)), jnp.max(neuron_prices(here, R, candidates.directions))
        )
        estimate = jnp.minimum(scaled_bound(here, R, norm), upper)
        return network, upper, estimate

    networks, upper, estimate = jax.lax.map(at, (betas, path.pools, path.candidates))
    valid = problem.is_valid() & jnp.isfinite(betas) & (betas > 0)
    sound = jnp.isfinite(upper) & valid
    networks = jax.tree.map(lambda a: jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, 0.0), networks)
    gap = jax.vmap(relative_gap)(upper, estimate)
    status = jnp.where(sound, jnp.where(gap <= tol, Status.CONVERGED, Status.MAX_STEPS), Status.DIVERGED)
    status = jnp.where(valid, status, Status.INVALID_INPUT)
    upper = jnp.where(sound, upper, jnp.inf)
    nothing = jnp.full_like(upper, -jnp.inf)
    return Solution(
        params=as_type(networks, dtype),
        network=as_type(networks, dtype),
        objective=upper,
        program_gap=gap,
        upper_bound=upper,
        lower_bound=nothing,
        gap=jnp.full_like(upper, jnp.inf),
        heuristic_bound=jnp.where(sound, estimate, -jnp.inf),
        status=status.astype(jnp.int32),
        num_steps=jnp.where(valid, path.rounds, 0),
        history=None,
        scope="heuristic",
        betas=betas,
    )


def as_type(tree: Any, dtype: Any) -> Any:
    """The tree with its floating arrays in another precision."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def largest_price(problem: Problem, key: PRNGKeyArray) -> Any:
    """The largest price of a neuron at the best constant network, by many ascents, in float64 outside jit.

    It is the beta from which on the solution is constant, up to neurons that the ascents miss.
    """
    problem = problem.replace(arrangements=None)
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, key))):
        return _largest_price(problem, key)
    with double_precision():
        return np.float64(_largest_price(to_double(problem), key))


@jax.jit
def _largest_price(problem: Problem, key: PRNGKeyArray) -> Array:
    constant = best_shifted(problem, jnp.zeros_like(problem.Y))
    R = problem.readout.lift(feasible_residual(problem, -problem.loss.grad(constant, problem.targets)))
    starts = pricing_starts(key, problem.rows, R, _STARTS)
    return price_multistart(problem.rows, R, starts, num=8).values[0]


def neuron_path(
    problem: Problem,
    betas: Float[Array, k],
    key: PRNGKeyArray,
    *,
    capacity: int,
    settings: Settings,
    rate: float,
    tol: float,
    finish_rounds: int,
) -> Solution:
    """The batched solution of a path: in float32 and finished in float64 outside jit, in the problem's type inside.

    Args:
      problem: its own beta is not used.
      betas: (k,) in the caller's units, large ones first.
      key: for pricing's random starts.
      capacity: largest number of neurons; it grows outside jit.
      settings: sizes of a round.
      rate: Adam's initial learning rate, for data of unit scale.
      tol: relative heuristic gap that counts as converged.
      finish_rounds: largest number of rounds in float64 for one beta; 0 leaves them out.
    """
    follow_key, finish_key = jax.random.split(key)
    traced = is_traced(jnp.zeros(()), *jax.tree.leaves((problem, betas, key)))
    problem = problem.replace(arrangements=None)
    if traced:
        work, scaling = scaled_problem(problem)
        start = empty_start(work, capacity, settings)
        path = follow(work, scaling.betas(betas), start, follow_key, settings, *numbers(work, rate))
        return report(problem, betas, path, scaling, jnp.asarray(tol, work.dtype), work.dtype)
    work, scaling = scaled_problem(problem, jnp.float32)
    inner, start = scaling.betas(betas).astype(jnp.float32), empty_start(work, capacity, settings)
    path = follow_on_host(work, inner, start, follow_key, settings, *numbers(work, rate))
    with double_precision():
        exact, betas = to_double(problem), to_double(betas)
        path = jax.device_get(to_double(path))
        work, scaling = scaled_problem(exact)
        if finish_rounds:
            settings = thorough(settings)
            path = finish_on_host(work, scaling.betas(betas), path, finish_key, settings, finish_rounds)
        solution = report(exact, betas, path, scaling, jnp.asarray(tol), np.dtype(problem.dtype))
        host = jax.device_get(dataclasses.replace(solution, params=None, network=None))
    networks = jax.tree.map(jnp.asarray, solution.network)
    return dataclasses.replace(host, params=networks, network=networks)


def numbers(problem: Problem, rate: float) -> tuple[Array, Array]:
    """The rate and the tolerance of :func:`follow`, in the type of the problem."""
    return jnp.asarray(rate, problem.dtype), jnp.asarray(_VIOLATION, problem.dtype)


def thorough(settings: Settings) -> Settings:
    """The sizes of the last rounds: their ascents reach a maximum from fresh directions."""
    starts = settings.starts + settings.new_neurons
    return settings._replace(moves=0, starts=starts, ascent_rounds=10, ascent_steps=32)
