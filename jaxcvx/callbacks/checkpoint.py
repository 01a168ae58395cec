"""Checkpoint: a callback that saves where a solve stands as it runs, so that a solve cut short goes on from there."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import jax
import numpy as np

from jaxcvx import serialisation
from jaxcvx.errors import FileFormatError, invalid
from jaxcvx.solvers.core.callbacks import Callback
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.snapshot import Saved, Snapshot, to_leaves
from jaxcvx.solvers.core.solution import Solution, StepInfo

_KIND = "solve-state"
_PARAMS_ONLY = "solve-checkpoint"  # of files of earlier versions
_LIMITS = ("tol", "max_steps", "check_every")


def fingerprint(problem: Any, solver: AnySolver) -> str:
    """SHA-256 of all data and static parts of the problem, and of the solver without its limits."""
    leaves, structure = jax.tree.flatten(problem)
    digest = hashlib.sha256(f"{type(problem).__name__} {structure}".encode())
    for leaf in map(np.asarray, leaves):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    digest.update(type(solver).__name__.encode())
    for field in dataclasses.fields(solver):
        if field.name not in _LIMITS:
            digest.update(f"{field.name}={_lasting(getattr(solver, field.name))}".encode())
    return digest.hexdigest()


def _lasting(value: Any) -> str:
    """A hyper-parameter as text, the same in every process: functions have no lasting name but their type's."""
    if isinstance(value, tuple) and type(value) is tuple:
        return f"({', '.join(map(_lasting, value))})"
    plain = value is None or isinstance(value, bool | int | float | str)
    return str(value) if plain else type(value).__name__


class Checkpoint(Callback):
    """Saves where a solve stands to ``path`` while it runs, and goes on from there if the file is there already.

    ``solve(problem, solver, callback=Checkpoint(path))``: called again after an interruption, however rough, or with a
    larger ``max_steps`` or a smaller ``tol``, the solve goes on from the last state that was written, steps counted on.
    ``init`` and ``key`` are then not used. On the same device it ends in the same bits as if it had not been
    interrupted: momentum, dual variables, moments of an optimiser, random keys and the phase are all in the file.
    ColumnGeneration and CuttingPlane, whose loops are on the host, start anew from the saved network or directions:
    they end within their tolerance of the same value, and count steps from zero.

    A file of other data, another beta or another solver is not used, and is overwritten. One of an earlier version
    that holds nothing but params, or a state that this version does not know, gives the params to start from.

    The file is an npz as of :func:`jaxcvx.save`, written whole or not at all; :func:`jaxcvx.load` gives a dict whose
    "params" may be passed on as ``init``.

    Args:
      path: the file.
      every: steps between two writes, at least; a solver can be looked at once per ``check_every`` steps. The last
        state is always written: at the end, and where Ctrl-C or an error in a callback ends the solve.

    Raises:
      InvalidInputError: ``every`` is not positive, or the solver (FrankWolfe) cannot start from params.
      FileFormatError: the file cannot be written (what was there before is kept), or is not one of ours, damaged, or
        of a newer version: nothing is overwritten then.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1):
        if not every >= 1:
            raise invalid("every", every, "a positive number of steps")
        self.path, self.every = os.fspath(path), every
        self._fingerprint = ""
        self._written = 0
        self._last: StepInfo | None = None
        self._snapshot: Snapshot | None = None
        self._unsaved = False

    def begin(self, problem: Any, solver: AnySolver) -> Any:
        if not solver.resumable:
            raise invalid("callback", "a Checkpoint", f"none with {type(solver).__name__}, which cannot be resumed")
        self._fingerprint, self._written = fingerprint(problem, solver), 0
        self._last, self._snapshot, self._unsaved = None, None, False
        serialisation.remove_unfinished(self.path)
        if not os.path.exists(self.path):
            return None
        saved, metadata = serialisation.load_with_metadata(self.path)
        kind = metadata.get("kind")
        if metadata.get("fingerprint") != self._fingerprint or kind not in (_KIND, _PARAMS_ONLY):
            return None
        if kind == _PARAMS_ONLY:
            return saved
        if not (isinstance(saved, dict) and saved.keys() == {"params", "state"}):
            raise FileFormatError(f"{self.path}: a checkpoint without params and state: a damaged one.")
        if not isinstance(saved["state"], dict | None):
            raise FileFormatError(f"{self.path}: a checkpoint whose state is no dict: a damaged one.")
        return saved["params"] if saved["state"] is None else Saved(saved["params"], saved["state"])

    def keep(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __call__(self, info: StepInfo) -> bool:
        self._last, self._unsaved = info, True
        if info.step - self._written >= self.every:
            self._save(info.params)
            self._written = info.step
        return False

    def end(self, solution: Solution | None) -> None:
        if self._last is not None and solution is not None:
            self._save(solution.params)
        elif self._last is not None and self._unsaved:
            self._save(self._last.params)

    def _save(self, params: Any) -> None:
        """Write params and the last state; where that fails, it is not tried again at the end."""
        assert self._last is not None
        content = {"params": params, "state": None if self._snapshot is None else to_leaves(self._snapshot)}
        try:
            serialisation.save(self.path, content, metadata={"kind": _KIND, "fingerprint": self._fingerprint})
        except Exception:
            self._last = None
            raise
        self._unsaved = False
