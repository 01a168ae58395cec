"""From a run to the solution object: every number is computed from the returned weights."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.certificates.certificate import make_certificate
from jaxcvx.networks.network import network_objective, objective_on_host, prune
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.numerics.trees import all_finite
from jaxcvx.problems.smooth import SmoothProblem
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.host import usable
from jaxcvx.solvers.core.loop import Run
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import History, Outcome, Parts, Solution, Status, relative_gap


class _Numbers(NamedTuple):
    objective: Any
    program_gap: Any
    upper_bound: Any
    lower_bound: Any
    gap: Any


def _numbers(problem: Problem, parts: Parts) -> _Numbers:
    upper = network_objective(parts.network, problem) if isinstance(problem, Problem) else parts.objective
    # Invalid data and overflow give NaN. An infinite upper bound claims nothing.
    upper, objective = (jnp.where(jnp.isnan(a), jnp.inf, a) for a in (upper, parts.objective))
    lower = jnp.minimum(parts.lower_bound, upper)
    bound = jnp.minimum(parts.program_bound, objective)
    return _Numbers(objective, relative_gap(objective, bound), upper, lower, relative_gap(upper, lower))


def summarise(problem: Problem, solver: Solver, done: Run) -> Solution:
    """The solution inside jit: in the problem's precision and of fixed shapes."""
    parts = solver.evaluate(problem, done.outcome)
    finite = all_finite(parts.network)
    sound = finite & all_finite(done.outcome.params)
    parts = parts._replace(network=jax.tree.map(lambda a: jnp.where(finite, a, 0), parts.network))
    return Solution(
        params=done.outcome.params,
        network=parts.network,
        heuristic_bound=jnp.full((), -jnp.inf, problem.dtype),
        status=jnp.where(sound | (done.status == Status.INVALID_INPUT), done.status, Status.DIVERGED),
        num_steps=done.num_steps,
        history=done.history,
        scope=solver.scope(problem),
        dual=done.outcome.dual if isinstance(problem, SmoothProblem) else None,
        **_numbers(problem, parts)._asdict(),
    )


@functools.partial(jax.jit, static_argnames=("solver", "room"))
def evaluate_jitted(problem: Problem, solver: Solver, outcome: Outcome, room: int | None) -> tuple[Parts, _Numbers]:
    """``Solver.evaluate`` and the solution's numbers, compiled."""
    parts = solver.evaluate(problem, outcome, **({} if room is None else {"room": room}))
    return parts, _numbers(problem, parts)


def summarise_on_host(problem: Problem, solver: Solver, done: Run) -> Solution:
    """The solution outside jit: in float64 on the host, from the weights that the caller receives."""
    dtype, room = problem.dtype, solver.room(problem, done.outcome)
    with double_precision():
        exact = to_double(problem)
        parts, numbers = jax.device_get(evaluate_jitted(exact, solver, to_double(done.outcome), room))
        network, upper = jax.tree.map(lambda a: a.astype(dtype), parts.network), numbers.upper_bound
        status = np.int32(done.status)
        if isinstance(problem, Problem):
            # The caller receives the pruned weights in the problem's precision, so the numbers are theirs.
            network, finite = usable(problem, prune(network))
            sound = finite and bool(all_finite(done.outcome.params))
            status = status if sound or status == Status.INVALID_INPUT else np.int32(Status.DIVERGED)
            upper = np.float64(objective_on_host(to_double(network), exact))
    network = jax.tree.map(jnp.asarray, network)
    certificate = make_certificate(upper, numbers.lower_bound, solver.scope(problem))
    numbers = numbers._replace(upper_bound=certificate.upper, lower_bound=certificate.lower, gap=certificate.gap)
    history = jax.device_get(done.history)
    used = int(history.count)
    return Solution(
        params=done.outcome.params,
        network=network,
        heuristic_bound=np.float64(-np.inf),
        status=status,
        num_steps=np.int32(done.num_steps),
        history=History(history.step[:used], history.objective[:used], history.bound[:used], history.count),
        scope=solver.scope(problem),
        dual=done.outcome.dual if isinstance(problem, SmoothProblem) else None,
        **{name: np.float64(value) for name, value in numbers._asdict().items()},
    )
