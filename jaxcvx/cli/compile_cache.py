"""Compiled programs of the command line are kept on disk, so that a second run compiles nothing."""

from __future__ import annotations

import contextlib
import os
import time
import warnings

import jax

OFF = ("", "0", "off", "none")
MAX_BYTES = 2**30
_AGE = 60.0  # seconds: younger files may still be written


def cache_folder(environment: dict[str, str]) -> str | None:
    """The folder of compiled programs, or None for no cache of ours.

    ``JAXCVX_CACHE`` names it, or switches it off by "0", "off", "none" or nothing. A cache that the user has given jax
    stays as it is. Else it is ``jaxcvx/programs`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    own = environment.get("JAXCVX_CACHE")
    if own is not None:
        return None if own.strip().lower() in OFF else os.path.expanduser(own)
    if environment.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    home = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "jaxcvx", "programs")


def use_compile_cache() -> str | None:
    """Keep compiled programs on disk. Call it before anything is compiled; the library itself never does.

    A folder that cannot be used, and a file that cannot be read, cost time and nothing else.

    Returns:
      The folder, or None if there is none.
    """
    folder = cache_folder(dict(os.environ))
    if folder is None:
        return None
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    prune(folder)
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_raise_persistent_cache_errors", False)
    return folder


def prune(folder: str, limit: int = MAX_BYTES) -> None:
    """Remove the files that were not used for longest until all have at most ``limit`` bytes."""
    with contextlib.suppress(OSError):
        found = [entry.stat() for entry in os.scandir(folder) if entry.is_file()]
        if sum(each.st_size for each in found) <= limit:
            return
        entries = sorted((e for e in os.scandir(folder) if e.is_file()), key=lambda e: e.stat().st_mtime)
        total = sum(entry.stat().st_size for entry in entries)
        for entry in entries:
            if total <= limit or time.time() - entry.stat().st_mtime < _AGE:
                break
            total -= entry.stat().st_size
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
