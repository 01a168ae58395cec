"""Where a solve stands between two blocks of steps: all that it takes to go on from there as if nothing had been."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.loop import Best, keep_best, new_history, run_block, start_as_best, status_at
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import History, Status


class Snapshot(NamedTuple):
    """The variables of the driver's loop after a block of steps, a pytree.

    Attributes:
      phase: index in ``solver.run_phases(problem)``.
      state: of that phase's solver.
      status: after the block, before any callback was asked.
      before: steps of the phases before.
      best: of the phases before, or None.
      history: what the checks saw.
      key: the random key that the solve was given, or None.
    """

    phase: Any
    state: Any
    status: Any
    before: Any
    best: Best | None
    history: History
    key: Any


class Saved(NamedTuple):
    """What ``Hook.begin`` may return to have a solve go on from a snapshot.

    ``params`` is the start where ``leaves`` (of :func:`to_leaves`) are not those of this solver: where another
    version of a library lays out its state in another way.
    """

    params: Any
    leaves: dict[str, Any]


def to_leaves(snapshot: Snapshot) -> dict[str, Any]:
    """The arrays of a snapshot by their place in it: plain data, from which ``restore`` builds the snapshot again."""
    used = int(snapshot.history.count)
    step, objective, bound = (np.asarray(a)[:used] for a in snapshot.history[:3])
    history: Any = {"step": step, "objective": objective, "bound": bound}
    return _by_place(snapshot._replace(history=snapshot.history._replace(**history)))


def restore(problem: Problem, solver: Solver, leaves: dict[str, Any]) -> Snapshot | None:
    """The snapshot that ``leaves`` came from, or None where their places, shapes or dtypes are not this solver's.

    Limits may have changed: the status is that of the solver's present ``tol`` and ``max_steps``.
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
    """A snapshot in phase ``index``, as the driver's loop would make it; only its structure is of use."""
    params = solver.initial_params(problem, jax.random.key(0) if key is None else key)
    params = jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), params)
    phases, best = solver.run_phases(problem), None
    history, zero = new_history(problem, phases), jnp.asarray(0, jnp.int32)
    for phase in phases[: index + 1]:
        state = phase.init(problem, key, params)
        state, status = run_block(problem, phase, state, zero, jnp.ones((), bool))
        if best is None and solver.keeps_better_start:
            best = start_as_best(state.objective, state.params)
        snapshot = Snapshot(zero, state, status, zero, best, history, key)
        best = keep_best(best, state, phase.finish(problem, state))
        params = best.params
    return snapshot


def _fitted(history: History, empty: History) -> History:
    """A history in the room that the present limits give."""
    count = min(int(history.count), empty.step.shape[0], history.step.shape[0])
    filled = [np.array(a) for a in empty[:3]]
    for new, old in zip(filled, history[:3], strict=True):
        new[:count] = np.asarray(old)[:count]
    step, objective, bound = map(jnp.asarray, filled)
    return History(step, objective, bound, jnp.asarray(count, jnp.int32))
