"""Checkpoint: a callback that saves the state of a solve while it runs. An interrupted solve resumes from the file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import jax
import numpy as np

from jaxcvx import serialisation
from jaxcvx.atomic_file import remove_unfinished
from jaxcvx.callbacks.identity import VERSION, identity
from jaxcvx.errors import FileFormatError, invalid
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.callbacks import Callback
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.snapshot import Saved, Snapshot, to_leaves
from jaxcvx.solvers.core.solution import Solution, StepInfo

_KIND = "solve-state"
_PARAMS_ONLY = "solve-checkpoint"  # the kind of files from earlier versions
_LIMITS = ("tol", "max_steps", "check_every")


def fingerprint(problem: Any, solver: AnySolver) -> str:
    """Compute the SHA-256 hash of the problem (data and static parts) and of the solver without its limits.

    Raises:
      InvalidTypeError: a part of them cannot be told apart from others of its type.
    """
    parts = identity("problem", problem), identity("solver", solver, skip=_LIMITS)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def old_fingerprint(problem: Any, solver: AnySolver) -> str | None:
    """The hash that files of earlier versions hold; None where it left out a part of the solver or the problem."""
    leaves, structure = jax.tree.flatten(problem)
    text = str(structure)
    if isinstance(problem, Problem) and problem.sample_weight is None:
        text = text.removesuffix(", None]))") + "]))"  # as before there were weights
    text = text.replace(", output_bias=False", "")  # as before there were output biases
    if " at 0x" in text:
        return None
    digest = hashlib.sha256(f"{type(problem).__name__} {text}".encode())
    for leaf in map(np.asarray, leaves):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    digest.update(type(solver).__name__.encode())
    for field in dataclasses.fields(solver):
        if field.name not in _LIMITS:
            written = _written(getattr(solver, field.name))
            if written is None:
                return None
            digest.update(f"{field.name}={written}".encode())
    return digest.hexdigest()


def _written(value: Any) -> str | None:
    """A hyper-parameter as earlier versions wrote it; None where they wrote only its type."""
    if isinstance(value, tuple) and type(value) is tuple:
        parts = [_written(part) for part in value]
        return None if None in parts else f"({', '.join(map(str, parts))})"
    if isinstance(value, type):
        return value.__qualname__
    return str(value) if value is None or isinstance(value, bool | int | float | str) else None


class Checkpoint(Callback):
    """Save the state of a solve to a file while it runs. If the file exists, the solve resumes from it.

    Use it as ``solve(problem, solver, callback=Checkpoint(path))``. Call the same line again after an interruption of
    any kind, or with a larger ``max_steps`` or a smaller ``tol``. The solve then resumes from the last saved state and
    continues its count of steps; ``init`` and ``key`` are not used. On the same device the result has the same bits as
    without the interruption: the file holds momentum, dual variables, moments of an optimiser, random keys and the
    phase. ColumnGeneration and CuttingPlane run their loops on the host. They start anew from the saved network or
    directions, end within their tolerance of the same value, and count steps from zero.

    A file for other data, another beta or another solver is ignored and overwritten. Every field of the solver counts,
    but not its limits. Functions, such as those of an optax optimiser, count by their code, constants and closures. A
    file from an earlier version may hold only params, or a state that this version does not know. Then the solve starts
    from its params.

    The file is an npz file as from :func:`jaxcvx.save`. It is written completely or not at all. :func:`jaxcvx.load`
    gives a dict whose "params" may be passed as ``init``.

    Args:
      path: the file.
      every: least number of steps between two writes. A solver reports its state once per ``check_every`` steps. The
        last state is always written: at the end, and if Ctrl-C or an error in a callback ends the solve.

    Raises:
      InvalidInputError: ``every`` is not positive, or the solver cannot be resumed (FrankWolfe).
      InvalidTypeError: a field of the solver or the problem holds what cannot be compared, such as an open file.
      FileFormatError: the file cannot be written (the previous file is kept then). Or the existing file is not a
        checkpoint, damaged, or of a newer version (nothing is overwritten then).

    Example:
      >>> import os, tempfile
      >>> import jax, jaxcvx
      >>> problem, key = jaxcvx.make_problem([[1.0], [2.0]], [1.0, 0.0], beta=0.1), jax.random.key(0)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "solve.npz")
      ...     for max_steps in (100, 200):  # the second solve continues the first one
      ...         solver = jaxcvx.GradientDescent(width=3, max_steps=max_steps, tol=0.0)
      ...         solution = jaxcvx.solve(problem, solver, key=key, callback=jaxcvx.Checkpoint(path))
      >>> int(solution.num_steps)
      200
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
        remove_unfinished(self.path)
        if not os.path.exists(self.path):
            return None
        saved, metadata = serialisation.load_with_metadata(self.path)
        kind = metadata.get("kind")
        known = {self._fingerprint}
        if "fingerprint_version" not in metadata:
            known.add(old_fingerprint(problem, solver) or self._fingerprint)
        if metadata.get("fingerprint") not in known or kind not in (_KIND, _PARAMS_ONLY):
            return None
        if kind == _PARAMS_ONLY:
            return saved
        if not (isinstance(saved, dict) and saved.keys() == {"params", "state"}):
            raise FileFormatError(f"{self.path}: the checkpoint has no params and state; the file is damaged.")
        if not isinstance(saved["state"], dict | None):
            raise FileFormatError(f"{self.path}: the checkpoint's state is not a dict; the file is damaged.")
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
        """Write params and the last state. After a failure it is not tried again at the end."""
        assert self._last is not None
        content = {"params": params, "state": None if self._snapshot is None else to_leaves(self._snapshot)}
        try:
            header = {"kind": _KIND, "fingerprint": self._fingerprint, "fingerprint_version": VERSION}
            serialisation.save(self.path, content, metadata=header)
        except Exception:
            self._last = None
            raise
        self._unsaved = False
