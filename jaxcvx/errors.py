"""Every exception that jaxcvx raises on purpose."""

from __future__ import annotations


class JaxcvxError(Exception):
    """Base class of all exceptions raised on purpose by jaxcvx."""


class InvalidInputError(JaxcvxError, ValueError):
    """An argument has a bad value: the message names it, what was got and what was expected."""


class InvalidTypeError(JaxcvxError, TypeError):
    """An argument has a bad type: the message names it, what was got and what was expected."""


class FileFormatError(JaxcvxError, OSError):
    """A file is missing, corrupt, or not one of ours."""


class MissingExtraError(JaxcvxError, ImportError):
    """An optional dependency is not installed: the message names the pip command."""


class NotEnoughMemory(JaxcvxError, MemoryError):
    """A solve would need more memory than there is. Raised before anything is allocated for it."""


class TooManyArrangements(JaxcvxError, MemoryError):
    """Enumeration would produce more cells than ``max_cells`` or than memory holds.

    Raised before anything is allocated.

    Attributes:
      count: upper bound on the number of cells of the data's rank (exact in general position).
      max_cells: the limit that it exceeds.
    """

    def __init__(self, message: str, count: int, max_cells: int):
        super().__init__(message)
        self.count = count
        self.max_cells = max_cells

    def __reduce__(self):
        return type(self), (str(self), self.count, self.max_cells)


def invalid(argument: str, got: object, expected: str) -> InvalidInputError:
    """The one way to phrase an input error: argument, what was got, what was expected."""
    return InvalidInputError(f"{argument}: got {shown(got)}, expected {expected}.")


def wrong_type(argument: str, got: object, expected: str) -> InvalidTypeError:
    """The same for an argument of a wrong type."""
    return InvalidTypeError(f"{argument}: got {type(got).__name__}, expected {expected}.")


def shown(value: object) -> str:
    """A value as it may stand in a message: one line, not long."""
    line = " ".join(str(value).split())
    return line if len(line) <= 120 else line[:117] + "..."


def require_extra(module: str, extra: str) -> object:
    """Import an optional ``module`` or say which extra installs it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise MissingExtraError(f"{module} is needed here: pip install 'jaxcvx[{extra}]'") from err
