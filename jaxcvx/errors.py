"""The exceptions that jaxcvx raises on purpose, and functions that phrase their messages."""

from __future__ import annotations


class JaxcvxError(Exception):
    """Base class of all exceptions that jaxcvx raises on purpose.

    >>> import jaxcvx
    >>> try:
    ...     jaxcvx.make_problem([[1.0]], [1.0], beta=-1.0)
    ... except jaxcvx.JaxcvxError as error:
    ...     print(error)
    beta: got -1.0, expected a number >= 0 in the range of float32.
    """


class InvalidInputError(JaxcvxError, ValueError):
    """An argument has a bad value. The message names the argument, the value and the expected values."""


class InvalidTypeError(JaxcvxError, TypeError):
    """An argument has a bad type. The message names the argument, its type and the expected type."""


class FileFormatError(JaxcvxError, OSError):
    """A file is missing, damaged, or was not written by jaxcvx."""


class MissingExtraError(JaxcvxError, ImportError):
    """An optional dependency is not installed. The message names the pip command that installs it."""


class NotEnoughMemory(JaxcvxError, MemoryError):
    """A solve would need more memory than is available. It is raised before the solve allocates anything."""


class TooManyArrangements(JaxcvxError, MemoryError):
    """Enumeration could produce more cells than ``max_cells`` or than memory holds.

    It is raised before the enumeration allocates anything.

    Attributes:
      count: upper bound on the number of cells; it is attained for data in general position.
      max_cells: the caller's limit on the number of cells.

    >>> import numpy as np, jaxcvx
    >>> try:
    ...     jaxcvx.enumerate_arrangements(np.random.default_rng(0).standard_normal((1000, 5)))
    ... except jaxcvx.TooManyArrangements as error:
    ...     print(error.count, error.max_cells)
    82835248502 100000
    """

    def __init__(self, message: str, count: int, max_cells: int):
        super().__init__(message)
        self.count = count
        self.max_cells = max_cells

    def __reduce__(self):
        return type(self), (str(self), self.count, self.max_cells)


def invalid(argument: str, got: object, expected: str) -> InvalidInputError:
    """Return the error for a bad value: it names the argument, the value and the expected values."""
    return InvalidInputError(f"{argument}: got {shown(got)}, expected {expected}.")


def wrong_type(argument: str, got: object, expected: str) -> InvalidTypeError:
    """Return the error for a bad type: it names the argument, its type and the expected type."""
    return InvalidTypeError(f"{argument}: got {type(got).__name__}, expected {expected}.")


def shown(value: object) -> str:
    """Return a value as text for a message: on one line, shortened to 120 characters."""
    line = " ".join(str(value).split())
    return line if len(line) <= 120 else line[:117] + "..."


def require_extra(module: str, extra: str) -> object:
    """Import and return an optional module.

    Args:
      module: the module's full name.
      extra: the extra of jaxcvx that installs it.

    Raises:
      MissingExtraError: the module is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingExtraError(f"{module} is needed here: pip install 'jaxcvx[{extra}]'") from err
