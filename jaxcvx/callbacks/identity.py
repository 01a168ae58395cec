"""A hash of a problem and a solver that tells every two runs apart, the same in every process."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.errors import InvalidTypeError

VERSION = 2
"""Of the hash. A checkpoint's file holds it, so that a later rule does not take another run for the same."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.dtype)
_MADE_BY_CLASS_STATEMENT = 1 << 9  # types of C code, such as files, may hold what no field shows
_LIBRARIES = frozenset({"builtins", "jax", "jaxcvx", "jaxlib", "numpy", "optax", "jaxopt", "flax", "chex", "functools"})


def identity(name: str, value: Any, skip: tuple[str, ...] = ()) -> str:
    """The SHA-256 hash of a value and all it holds.

    Arrays count by type, shape and numbers; objects by their class and fields; functions by their code, constants,
    default values, closures and the global values that they use. Functions of installed libraries count by name and
    closure, as their code changes with versions.

    Args:
      name: the argument's name, for messages.
      value: any value.
      skip: fields of the value itself that do not count.

    Raises:
      InvalidTypeError: a part of the value cannot be told apart from others of its type. The message names it.
    """
    writer = _Writer()
    writer.write(name, value, skip)
    return writer.digest.hexdigest()


class _Writer:
    """Feeds a hash. An object that was met before is written as its number, so circles end."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no number is used twice

    def text(self, *words: Any) -> None:
        for word in words:
            data = str(word).encode()
            self.digest.update(f"{len(data)}:".encode() + data)

    def write(self, where: str, value: Any, skip: tuple[str, ...] = ()) -> None:
        if isinstance(value, enum.Enum):
            return self.text("enum", _type_name(type(value)), value.name)
        if isinstance(value, _PLAIN):
            return self.text(type(value).__name__, repr(value))
        if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | np.ufunc):
            return self.text("named", getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self.array(where, value)
        if id(value) in self.seen:
            return self.text("again", self.seen[id(value)])
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        self.composite(where, value, skip)

    def composite(self, where: str, value: Any, skip: tuple[str, ...]) -> None:
        self.text(_type_name(type(value)))
        if isinstance(value, Mapping):
            entries = sorted(value.items(), key=lambda entry: (type(entry[0]).__name__, repr(entry[0])))
            for key, entry in entries:
                self.write(f"{where}[{key!r}]", key)
                self.write(f"{where}[{key!r}]", entry)
        elif isinstance(value, set | frozenset):
            self.text(*sorted(identity(where, entry) for entry in value))
        elif isinstance(value, tuple | list):
            names = getattr(value, "_fields", None)
            self.text(len(value))
            for index, entry in enumerate(value):
                self.write(f"{where}.{names[index]}" if names else f"{where}[{index}]", entry)
        elif isinstance(value, types.FunctionType):
            self.function(where, value)
        elif isinstance(value, types.MethodType):
            self.write(where, value.__func__)
            self.write(f"{where}.__self__", value.__self__)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.write(where, part)
        elif isinstance(value, types.CodeType):
            self.code(where, value)
        elif dataclasses.is_dataclass(value):
            self.own_code(where, type(value))
            for field in dataclasses.fields(value):
                if field.name not in skip:
                    self.text(field.name)
                    self.write(f"{where}.{field.name}", getattr(value, field.name))
        elif callable(getattr(value, "__wrapped__", None)):  # of jax.jit, functools.cache and the like
            self.write(where, value.__wrapped__)
        else:
            self.instance(where, value)

    def array(self, where: str, value: Any) -> None:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.text("key", jax.random.key_impl(value))
            value = jax.random.key_data(value)
        host = np.asarray(value)
        if host.dtype.hasobject:
            raise _unknown(where, value)
        self.text("array", host.dtype, host.shape)
        self.digest.update(np.ascontiguousarray(host).tobytes())

    def function(self, where: str, value: types.FunctionType) -> None:
        self.text(value.__module__, value.__qualname__)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self.text(name)
            self.write(f"{where}.{value.__name__}.{name}", content)
        self.write(f"{where}.{value.__name__}", value.__defaults__)
        self.write(f"{where}.{value.__name__}", value.__kwdefaults__)
        if _is_library(value.__module__):
            return
        self.code(where, value.__code__)
        for name in sorted(_global_names(value.__code__)):
            if name in value.__globals__:
                self.text(name)
                self.write(f"{where}.{value.__name__}.{name}", value.__globals__[name])

    def code(self, where: str, code: types.CodeType) -> None:
        self.text(code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars)
        for constant in code.co_consts:
            self.write(where, constant)

    def own_code(self, where: str, cls: type) -> None:
        """The methods of a class of the caller's."""
        if _is_library(cls.__module__):
            return
        for name, member in sorted(vars(cls).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType) and not name.startswith("__dataclass"):
                if name not in ("__init__", "__repr__", "__eq__", "__hash__") or not dataclasses.is_dataclass(cls):
                    self.text(name)
                    self.write(f"{where}.{name}", function)

    def instance(self, where: str, value: Any) -> None:
        """An object that keeps all it holds in ``__dict__`` or in ``__slots__``."""
        cls = type(value)
        slots = [name for base in cls.__mro__ for name in _as_tuple(vars(base).get("__slots__", ()))]
        state = dict(getattr(value, "__dict__", {})) | {n: getattr(value, n) for n in slots if hasattr(value, n)}
        own = [base for base in cls.__mro__ if base is not object]
        shown = any({"__dict__", "__slots__"} & vars(base).keys() for base in own)
        if not shown or not all(base.__flags__ & _MADE_BY_CLASS_STATEMENT for base in own):
            raise _unknown(where, value)
        self.own_code(where, cls)
        for name in sorted(state):
            self.text(name)
            self.write(f"{where}.{name}", state[name])


def _unknown(where: str, value: Any) -> InvalidTypeError:
    return InvalidTypeError(
        f"{where}: got {type(value).__name__}, whose content cannot be compared with that of a saved run, expected "
        "numbers, arrays, functions, or dataclasses of them (or solve without a Checkpoint)."
    )


def _type_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_library(module: str | None) -> bool:
    return (module or "builtins").split(".")[0] in _LIBRARIES


def _as_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names
