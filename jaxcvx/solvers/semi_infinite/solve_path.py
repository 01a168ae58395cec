"""Paths as solutions: follow the betas in float32, finish in float64, report in the caller's units."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.certificates.centring import best_shifted, feasible_residual
from jaxcvx.networks.network import Network, prune
from jaxcvx.numerics.on_host import list_of_keys, on_device, split_keys
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.trees import is_traced
from jaxcvx.problems.buckets import in_bucket_of_samples
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.solution import Solution
from jaxcvx.solvers.semi_infinite.cell_rounds import finish_on_host, many_ascents, rows_on_host, thorough
from jaxcvx.solvers.semi_infinite.neuron_path import (
    NeuronPath,
    empty_start,
    follow,
    follow_on_host,
    grow,
    joined,
    pace_of,
    path_of,
    state_at,
)
from jaxcvx.solvers.semi_infinite.path_report import report
from jaxcvx.solvers.semi_infinite.pool import pool_of
from jaxcvx.solvers.semi_infinite.scaling import Scaling, scaled_problem
from jaxcvx.solvers.semi_infinite.sliding import Pace, Settings, Sliding, start_of
from jaxcvx.status import CallbackFunction, StepInfo


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
    callback: CallbackFunction | None = None,
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
      callback: called after each beta, before the finish; the path ends after a true value. Not under jit.
    """
    follow_key, finish_key = list_of_keys(key, 2)
    keys = split_keys(follow_key, len(betas))
    traced = is_traced(jnp.zeros(()), *jax.tree.leaves((problem, betas, key)))
    problem = in_bucket_of_samples(problem.replace(arrangements=None))
    if traced:
        work, scaling = scaled_problem(problem)
        start = empty_start(work, capacity, settings)
        path = follow(work, scaling.betas(betas), start, keys, settings, pace_of(work, settings, rate))
        return report(problem, betas, path, scaling, jnp.asarray(tol, work.dtype), work.dtype)
    work, scaling = scaled_problem(problem, jnp.float32)
    inner: Any = np.asarray(scaling.betas(np.asarray(betas)), np.float32)
    start = empty_start(work, capacity, settings)
    pace = pace_of(work, settings, rate)
    if callback is None:
        path = follow_on_host(work, inner, start, keys, settings, pace)
    else:
        watch = Watch(problem, betas, scaling, jnp.asarray(tol, jnp.float32), callback)
        path = _watched(work, inner, start, keys, settings, pace, watch)
        betas = betas[: len(path.rounds)]
    with double_precision():
        exact, betas = to_double(problem), to_double(betas)
        path = jax.device_get(to_double(path))
        work, scaling = scaled_problem(exact)
        if finish_rounds:
            settings = thorough(settings)
            path = finish_on_host(work, scaling.betas(np.asarray(betas)), path, finish_key, settings, finish_rounds)
        solution = _report(exact, betas, path, scaling, tol, problem.dtype)
        host = jax.device_get(dataclasses.replace(solution, params=None, network=None))  # type: ignore[arg-type]
    networks = on_device(solution.network)
    return dataclasses.replace(host, params=networks, network=networks)


class Watch(NamedTuple):
    """What a callback of a path needs: the caller's problem and betas, the scaling, the tolerance and the callback."""

    problem: Problem
    betas: Float[Array, k]
    scaling: Scaling
    tol: Array
    callback: CallbackFunction

    def call(self, k: int, path: NeuronPath) -> bool:
        """Tell the callback about entry k, which is ``path``. True if the path is to end."""
        one = report(self.problem, self.betas[k : k + 1], path, self.scaling, self.tol, np.dtype(self.problem.dtype))
        network = prune(jax.tree.map(lambda a: a[0], one.network))
        upper, bound, gap = (float(a[0]) for a in (one.upper_bound, one.heuristic_bound, one.program_gap))
        return bool(
            self.callback(StepInfo("ColumnGeneration path", k + 1, len(self.betas), upper, bound, gap, network))
        )


def _watched(
    work: Problem, betas: Array, start: Sliding, keys: PRNGKeyArray, settings: Settings, pace: Pace, watch: Watch
) -> NeuronPath:
    """:func:`follow_on_host` beta by beta, with a callback after each. The networks are the same."""
    parts: list[NeuronPath] = []
    for k in range(len(betas)):
        parts.append(follow_on_host(work, betas[k : k + 1], start, keys[k : k + 1], settings, pace))
        start = state_at(parts[-1], 0)
        if watch.call(k, parts[-1]):
            break
    return joined(parts, settings)


def finish_chosen(
    problem: Problem,
    path: Solution,
    chosen: Collection[int],
    key: PRNGKeyArray,
    *,
    settings: Settings,
    tol: float,
    finish_rounds: int,
) -> Solution:
    """The path with some of its networks finished in float64. Runs outside jit.

    Args:
      problem: the problem of the path; its own beta is not used.
      path: as :func:`neuron_path` returns it.
      chosen: indices of the networks to finish.
      key: for pricing's random starts.
      settings, tol, finish_rounds: as for :func:`neuron_path`.
    """
    settings = thorough(settings)
    with double_precision():
        exact, betas = to_double(in_bucket_of_samples(problem.replace(arrangements=None))), to_double(path.betas)
        work, scaling = scaled_problem(exact)
        inner = scaling.betas(np.asarray(betas))
        start = jax.device_get(_states(work, scaling, to_double(path.network), settings))
        states = path_of(start, path.num_steps)
        states = finish_on_host(work, inner, states, key, settings, finish_rounds, chosen)
        states = _as_wide(states, path.network.hidden.shape[1], settings)
        done = jax.device_get(_report(exact, betas, states, scaling, tol, problem.dtype))
    width = max(done.network.hidden.shape[1], path.network.hidden.shape[1])
    is_chosen = np.isin(np.arange(len(betas)), list(chosen))

    def either(new: Any, old: Any) -> Any:
        if np.ndim(new) == 3:  # neurons
            new, old = pad_rows(new, width), pad_rows(np.asarray(old), width)
        return np.where(is_chosen.reshape(-1, *[1] * (np.ndim(new) - 1)), new, old)

    return dataclasses.replace(jax.tree.map(either, done, path), betas=path.betas)


def _report(problem: Problem, betas: Any, path: NeuronPath, scaling: Scaling, tol: float, dtype: Any) -> Solution:
    """:func:`report` without what it does not need, so that more calls share its program."""
    rounds: Any = np.asarray(path.rounds, np.int32)
    prices: Any = np.zeros((len(rounds), 0))
    scouts: Any = np.zeros((len(rounds), 0, 0))
    candidates = path.candidates._replace(prices=prices)
    path = path._replace(candidates=candidates, scouts=scouts, rounds=rounds)
    return report(problem, betas, path, scaling, np.float64(tol), np.dtype(dtype))


def _as_wide(path: NeuronPath, width: int, settings: Settings) -> NeuronPath:
    """The path with at least ``width`` slots."""
    if path.pools.weights.shape[1] >= width:
        return path
    return path_of(grow(Sliding(*path[:3]), width, settings), path.rounds)


@functools.partial(jax.jit, static_argnames="settings")
def _states(problem: Problem, scaling: Scaling, networks: Network, settings: Settings) -> Sliding:
    """The states of a batch of networks in the caller's units, before the first pricing."""
    return jax.vmap(lambda each: start_of(problem, pool_of(problem, scaling.scale_network(each)), settings))(networks)


def pad_rows(a: Any, rows: int) -> Any:
    """The array (k, m, p) with rows of zeros up to (k, rows, p)."""
    return np.pad(a, [(0, 0), (0, rows - a.shape[1]), (0, 0)])


def largest_price(problem: Problem, key: PRNGKeyArray) -> Any:
    """The largest price of a neuron at the best constant network, by many ascents, in float64 outside jit.

    It is the beta from which on the solution is constant, up to neurons that the ascents miss.
    """
    problem = in_bucket_of_samples(problem.replace(arrangements=None))
    if is_traced(jnp.zeros(()), *jax.tree.leaves((problem, key))):
        return many_ascents(problem.rows, constant_residual(problem), key).values[0]
    with double_precision():
        exact = to_double(problem)
        return np.float64(jax.device_get(many_ascents(rows_on_host(exact), constant_residual(exact), key)).values[0])


@jax.jit
def constant_residual(problem: Problem) -> Array:
    """The lifted dual residual of the best constant network."""
    constant = best_shifted(problem, jnp.zeros_like(problem.Y))
    return problem.readout.lift(feasible_residual(problem, -problem.loss.grad(constant, problem.targets)))
