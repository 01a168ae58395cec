"""Checkpoint: a callback that saves a solve's params as it runs, so that a solve cut short goes on from them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import jax
import numpy as np

from jaxcvx import checkpoint
from jaxcvx.errors import invalid
from jaxcvx.solvers.base import AnySolver, Solution, StepInfo
from jaxcvx.solvers.callbacks import Hook

_KIND = "solve-checkpoint"
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
        value = getattr(solver, field.name)
        if field.name not in _LIMITS:  # functions have no lasting name: their type must do
            plain = value is None or isinstance(value, bool | int | float | str)
            digest.update(f"{field.name}={value if plain else type(value).__name__}".encode())
    return digest.hexdigest()


class Checkpoint(Hook):
    """Saves the params to ``path`` while a solve runs, and starts from them if the file is there already.

    ``solve(problem, solver, callback=Checkpoint(path))``: called again after an interruption, or with a larger
    ``max_steps`` or a smaller ``tol``, the solve goes on from the saved params. (``init`` is then not used; steps
    are counted anew, and what else a solver remembers, such as Adam's moments, starts afresh.) A file of other
    data, another beta or another solver is not used, and is overwritten. The file is an npz as of
    :func:`jaxcvx.save`, written whole or not at all.

    Args:
      path: the file.
      every: steps between two writes, at least; a solver can be looked at once per ``check_every`` steps. The final
        params are always written.

    Raises:
      InvalidInputError: ``every`` is not positive, or the solver (FrankWolfe) cannot start from params.
      FileFormatError: the file cannot be written, or is not one of ours: nothing is overwritten then.
    """

    def __init__(self, path: str | os.PathLike[str], *, every: int = 1):
        if not every >= 1:
            raise invalid("every", every, "a positive number of steps")
        self.path, self.every = os.fspath(path), every
        self._fingerprint = ""
        self._written = 0

    def begin(self, problem: Any, solver: AnySolver) -> Any:
        if not solver.resumable:
            raise invalid("callback", "a Checkpoint", f"none with {type(solver).__name__}, which cannot be resumed")
        self._fingerprint, self._written = fingerprint(problem, solver), 0
        if not os.path.exists(self.path):
            return None
        params, metadata = checkpoint.load_with_metadata(self.path)
        matches = metadata.get("kind") == _KIND and metadata.get("fingerprint") == self._fingerprint
        return params if matches else None

    def __call__(self, info: StepInfo) -> bool:
        if info.step - self._written >= self.every:
            self._save(info.params)
            self._written = info.step
        return False

    def end(self, solution: Solution | None) -> None:
        if solution is not None:
            self._save(solution.params)

    def _save(self, params: Any) -> None:
        checkpoint.save(self.path, params, metadata={"kind": _KIND, "fingerprint": self._fingerprint})
