"""Snapshots: the variables of a solve after a block of steps, from which it can be continued to the same bits."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.loop import (
    Best,
    Between,
    after_first_check,
    before_first_phase,
    new_history,
    phase_end,
    run_block,
    status_at,
)
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import History, Status


class Snapshot(NamedTuple):
    """The variables of the loop after a block of steps, a pytree. Files hold them by these names.

    Attributes:
      phase: index in ``solver.run_phases(problem)``.
      state: state of that phase's solver.
      status: after the block, before the callbacks are asked.
      before: steps of the phases before this one.
      best: best result of the phases before this one; the start, where the solver keeps it; else None.
      history: one entry per check.
      key: the random key that the solve was given, or None.
    """

    phase: Any
    state: Any
    status: Any
    before: Any
    best: Best | None
    history: History
    key: Any

    def between(self) -> Between:
        """The loop's variables at the start of this snapshot's phase, with the history up to now."""
        return Between(self.status, self.before, self.best, self.history, self.state.params)


class Saved(NamedTuple):
    """A saved snapshot. A callback's ``begin`` returns it to continue that solve.

    ``leaves`` come from :func:`to_leaves`. If they do not fit this solver, because another version laid out its state
    in another way, the solve starts from ``params``.
    """

    params: Any
    leaves: dict[str, Any]


def to_leaves(snapshot: Snapshot) -> dict[str, Any]:
    """The arrays of a snapshot, keyed by their place in it. ``restore`` builds the snapshot from them again."""
    used = int(snapshot.history.count)
    step, objective, bound = (np.asarray(a)[:used] for a in snapshot.history[:3])
    history: Any = {"step": step, "objective": objective, "bound": bound}
    return _by_place(snapshot._replace(history=snapshot.history._replace(**history)))


def restore(problem: Problem, solver: Solver, leaves: dict[str, Any]) -> Snapshot | None:
    """The snapshot that ``leaves`` came from; None if their places, shapes or dtypes do not fit this solver.

    The solver's ``tol`` and ``max_steps`` may have changed since. The status is computed from their present values.
    """
    phases, phase = solver.run_phases(problem), leaves.get(".phase")
    if phase is None or not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves.values()):
        return None
    index = int(phase) if phase.ndim == 0 else -1
    if not 0 <= index < len(phases):
        return None
    like = jax.eval_shape(lambda: _example(problem, solver, index, leaves.get(".key")))
    if like.best is not None and not any(place.startswith(".best.dual") for place in leaves):
        like = like._replace(best=like.best._replace(dual=None))  # of phases that ended before they had one
    expected = _by_place(like)
    if expected.keys() != leaves.keys():
        return None
    if any(_form(place, leaves[place]) != _form(place, leaf) for place, leaf in expected.items()):
        return None
    saved = jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(leaves[place]) for place in expected])
    status = saved.status
    if int(status) in (Status.CONVERGED, Status.MAX_STEPS):
        status = jnp.full_like(status, Status.RUNNING)
    status = status_at(problem, phases[index], saved.state, status)
    return saved._replace(status=status, history=_fitted(saved.history, new_history(problem, phases)))


def _by_place(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _form(place: str, leaf: Any) -> tuple[Any, Any]:
    return leaf.ndim if place.startswith(".history") else leaf.shape, leaf.dtype  # histories have any length


def _example(problem: Problem, solver: Solver, index: int, key: Any) -> Snapshot:
    """A snapshot in phase ``index`` of which only the structure is used."""
    params = solver.initial_params(problem, jax.random.key(0) if key is None else key)
    params = jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), params)
    between, zero = before_first_phase(problem, solver, params), jnp.asarray(0, jnp.int32)
    for phase in solver.run_phases(problem)[: index + 1]:
        state = phase.init(problem, key, between.params)
        state, status = run_block(problem, phase, state, zero, jnp.ones((), bool))
        between = after_first_check(between, solver, state.objective, state.params)
        snapshot = Snapshot(zero, state, status, zero, between.best, between.history, key)
        between = phase_end(between, state, status, phase.finish(problem, state))
    return snapshot


def _fitted(history: History, empty: History) -> History:
    """A history with as many entries as the present limits allow."""
    count = min(int(history.count), empty.step.shape[0], history.step.shape[0])
    filled = [np.array(a) for a in empty[:3]]
    for new, old in zip(filled, history[:3], strict=True):
        new[:count] = np.asarray(old)[:count]
    step, objective, bound = map(jnp.asarray, filled)
    return History(step, objective, bound, jnp.asarray(count, jnp.int32))
