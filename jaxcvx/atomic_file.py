"""Files that are written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from jaxcvx.errors import FileFormatError

_TOKEN_BYTES = 8


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file in the same directory, which replaces ``path`` at the end of the block.

    If the block raises, the temporary file is removed.

    Raises:
      FileFormatError: the file cannot be written.
    """
    target = os.path.realpath(os.fspath(path))
    temporary = f"{target}.{secrets.token_hex(_TOKEN_BYTES)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as err:
        raise FileFormatError(f"cannot write {os.fspath(path)}: {err.strerror or err}") from err
    _sync_directory(os.path.dirname(target))


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed writers of ``path`` have left.

    Call it only if no other process writes this file now.
    """
    target = os.path.realpath(os.fspath(path))
    name = re.compile(re.escape(os.path.basename(target)) + rf"\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}\.tmp")
    folder = os.path.dirname(target)
    for entry in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.fullmatch(entry):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, entry))


def _sync_directory(path: str) -> None:
    """Make a rename durable, if the system supports it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def write_text(path: str, text: str) -> None:
    """Write a text file completely, or leave the old one.

    Raises:
      FileFormatError: the file cannot be written.
    """
    with replacing(path) as stream:
        stream.write(text.encode())
