"""The loop of :mod:`jaxcvx.solvers.core.loop` on the host, with a callback after each block of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.loop import (
    Run,
    after_first_check,
    as_run,
    before_first_phase,
    phase_end,
    phase_start,
    record,
    run_block,
)
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.snapshot import Snapshot
from jaxcvx.solvers.core.solution import Status, StepInfo

_init = jax.jit(lambda problem, solver, key, params: solver.init(problem, key, params), static_argnums=1)
_run_block = jax.jit(run_block, static_argnames="solver")
_finish = jax.jit(lambda problem, solver, state: solver.finish(problem, state), static_argnums=1)


def run_with_callback(
    problem: Problem,
    solver: Solver,
    params: Any,
    key: Any,
    callback: Callable[[StepInfo, Snapshot], bool],
    resumed: Snapshot | None,
) -> Run:
    """Run all phases from ``params``, or the rest of them from a snapshot.

    Args:
      problem: prepared data, concrete.
      solver: the solver that the caller gave.
      params: the start.
      key: random key or None.
      callback: called after each block of steps. True stops the solve.
      resumed: the snapshot to continue from, or None.
    """
    phases = solver.run_phases(problem)
    between = before_first_phase(problem, solver, params) if resumed is None else resumed.between()
    start = 0 if resumed is None else int(resumed.phase)
    key = key if resumed is None else resumed.key
    for index, phase in enumerate(phases[start:], start):
        if resumed is not None and index == start:
            state, status, fresh = resumed.state, resumed.status, False
        else:
            between = phase_start(between, solver, phases[index - 1] if index else None)
            state, status, fresh = _init(problem, phase, key, between.params), between.status, True
        while int(status) == Status.RUNNING:
            state, status = _run_block(problem, phase, state, status, fresh)
            if fresh:
                between, fresh = after_first_check(between, solver, state.objective, state.params), False
            between = between._replace(history=record(between.history, state, between.total))
            snapshot = Snapshot(np.int32(index), state, status, between.total, between.best, between.history, key)
            if callback(_step_info(phase, state, between.total), snapshot):
                status = jnp.where(status == Status.RUNNING, Status.STOPPED, status)
        if index == 0 or int(state.step) > 0:
            between = phase_end(between, state, status, _finish(problem, phase, state))
        else:
            between = between._replace(status=status)
    return as_run(between)


def _step_info(phase: Solver, state: Any, total: Any) -> StepInfo:
    objective, bound, residual = map(float, (state.objective, state.bound, state.residual))
    step = int(total + state.step)
    return StepInfo(type(phase).__name__, step, phase.max_steps, objective, bound, residual, state.params)
