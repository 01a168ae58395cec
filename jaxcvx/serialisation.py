"""Save and load the library's objects in .npz files, without pickle.

A file is a zip archive of uncompressed .npy members, which ``numpy.load`` can open. The member ``__jaxcvx__`` is a JSON
header, stored as uint8. It holds the name and the version of the format, the object's tree, and the caller's metadata.
The archive's comment is at the end of the file. It is the SHA-256 checksum of all bytes before it, so every changed bit
is detected. Nothing in a file is executed. A file names types, and only the types in the table below are built.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import io
import json
import math
import os
import zipfile
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.atomic_file import replacing
from jaxcvx.errors import FileFormatError, InvalidTypeError

FORMAT = "jaxcvx"
VERSION = 1
MAX_HEADER_BYTES = 64 * 2**20
MAX_DEPTH = 64
_HEADER = "__jaxcvx__"
_CHECKSUM_BYTES = 64

# For each name of a type in a file: the module that defines this dataclass or NamedTuple. Names must never change.
# Modules are imported on demand, so that this module depends on none of them.
_MODULES: dict[str, str] = {
    "Arrangements": "jaxcvx.arrangements.cells",
    "Blocks": "jaxcvx.solvers.copositive.program",
    "Certificate": "jaxcvx.certificates.certificate",
    "ConvFlatten": "jaxcvx.features.convolution",
    "ConvPool": "jaxcvx.features.convolution",
    "Cuts": "jaxcvx.solvers.semi_infinite.master",
    "Dense": "jaxcvx.features.dense",
    "FreeBias": "jaxcvx.features.dense",
    "Hinge": "jaxcvx.losses.entrywise",
    "History": "jaxcvx.solvers.core.solution",
    "Huber": "jaxcvx.losses.entrywise",
    "Interpolation": "jaxcvx.losses.entrywise",
    "Logistic": "jaxcvx.losses.entrywise",
    "Multipliers": "jaxcvx.solvers.gradient.primal_dual",
    "Network": "jaxcvx.networks.network",
    "PathBound": "jaxcvx.analysis.shortest_path",
    "PathReport": "jaxcvx.analysis.shortest_path",
    "Problem": "jaxcvx.problems.training",
    "SoftmaxCrossEntropy": "jaxcvx.losses.softmax",
    "Solution": "jaxcvx.solvers.core.solution",
    "Squared": "jaxcvx.losses.entrywise",
    "StudentWeights": "jaxcvx.problems.teacher_cnn",
    "TeacherCNN": "jaxcvx.problems.teacher_cnn",
    "Weighted": "jaxcvx.losses.weighted",
}


@functools.cache
def _saved_type(name: str) -> type:
    return getattr(importlib.import_module(_MODULES[name]), name)


def save(path: str | os.PathLike[str], obj: Any, metadata: dict[str, Any] | None = None) -> None:
    """Write an object to a file, completely or not at all.

    The data are written to a temporary file in the same directory. Then this file replaces ``path`` in one step. So
    other processes see either the old file or the new one. If writing fails, the old file stays.

    Args:
      path: name of the file. No suffix is added.
      obj: a network, arrangements, a solution or another object of the library; or an array (bool, integer, floating,
        complex, bfloat16 or typed random keys); or None, bool, int, float or str; or a tuple, a list or a dict with
        string keys of all these.
      metadata: any data that ``json.dumps`` accepts. ``load_with_metadata`` returns them.

    Raises:
      InvalidTypeError: a part of ``obj`` or ``metadata`` cannot be saved. The message says which one.
      FileFormatError: the file cannot be written.

    >>> import jax.numpy as jnp, jaxcvx
    >>> jaxcvx.save("network.npz", jaxcvx.Network(hidden=jnp.ones((5, 2)), output=jnp.ones((5, 1))))
    >>> jaxcvx.load("network.npz").width
    5
    """
    arrays: dict[str, np.ndarray] = {}
    tree = _pack(obj, "obj", arrays, 0)
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "type": type(obj).__name__}
    header |= {"tree": tree, "metadata": {} if metadata is None else metadata}
    try:
        encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    except (TypeError, ValueError, RecursionError) as err:
        raise InvalidTypeError(f"metadata: got something that JSON cannot hold ({err}).") from err
    if encoded.size > MAX_HEADER_BYTES:
        raise InvalidTypeError(f"metadata: got {encoded.size} bytes, expected at most {MAX_HEADER_BYTES}.")

    with replacing(path) as stream:
        _write(stream, {_HEADER: encoded, **arrays})


def load(path: str | os.PathLike[str]) -> Any:
    """Read an object that ``save`` wrote.

    Arrays have the same dtype and bits as before. They are jax arrays, except those that jax would convert to a
    narrower dtype, such as float64 if jax has only float32 enabled. These are numpy arrays.

    Args:
      path: name of the file.

    Returns:
      The object.

    Raises:
      FileFormatError: the file does not exist, was not written by ``save``, is truncated or altered, or was written by
        a newer version of jaxcvx.

    >>> import jaxcvx
    >>> jaxcvx.save("numbers.npz", {"beta": 0.1, "names": ["a", "b"]})
    >>> jaxcvx.load("numbers.npz")
    {'beta': 0.1, 'names': ['a', 'b']}
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Read an object that ``save`` wrote, and its metadata (``{}`` if there are none).

    The argument and the errors are those of ``load``.

    >>> import jaxcvx
    >>> jaxcvx.save("numbers.npz", [1, 2], metadata={"source": "a test"})
    >>> load_with_metadata("numbers.npz")
    ([1, 2], {'source': 'a test'})
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            header, arrays = _read(stream, name)
    except (FileFormatError, MemoryError):
        raise
    except FileNotFoundError as err:
        raise FileFormatError(f"no such file: {name}") from err
    except OSError as err:
        raise FileFormatError(f"cannot read {name}: {err.strerror or err}") from err
    except Exception as err:  # a damaged archive makes zipfile raise almost anything
        raise FileFormatError(f"{name}: not a jaxcvx file, or a damaged one ({err}).") from err
    try:
        obj, metadata = _unpack(header["tree"], arrays, 0), header["metadata"]
        if arrays or not isinstance(metadata, dict):
            raise ValueError("arrays that the tree does not use, or metadata that are not a dict")
        return obj, metadata
    except Exception as err:  # a class raises any error for fields that it does not know
        raise FileFormatError(f"{name}: its contents do not fit this version of jaxcvx ({err}).") from err


def _pack(value: Any, where: str, arrays: dict[str, np.ndarray], depth: int, static: bool = False) -> Any:
    """Turn a value into a JSON node, and add its arrays to ``arrays``.

    Args:
      value: the value.
      where: its place in the object, for messages.
      arrays: the arrays so far, by their key in the file.
      depth: depth of nesting.
      static: True if the value is a static field of a pytree.
    """
    if depth > MAX_DEPTH:
        raise InvalidTypeError(f"{where}: nested more than {MAX_DEPTH} deep.")

    def inner(item: Any, at: str, static: bool = static) -> Any:
        return _pack(item, at, arrays, depth + 1, static)

    if static and isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, jax.core.Tracer):
        raise InvalidTypeError(f"{where}: got a traced value; save outside of jit, vmap and grad.")
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _pack_array(value, where, arrays)
    if value is None or isinstance(value, bool | int | float | str):
        for plain in (bool, int, float, str):
            if isinstance(value, plain):  # members of enumerations become plain values
                return {"kind": "value", "value": plain(value)}
        return {"kind": "value", "value": None}
    name = type(value).__name__
    if name in _MODULES and type(value) is _saved_type(name):
        fields = {
            field: inner(getattr(value, field), f"{where}.{field}", is_static)
            for field, is_static in _field_names(type(value)).items()
        }
        return {"kind": "object", "type": name, "fields": fields}
    if type(value) in (tuple, list):
        items = [inner(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return {"kind": type(value).__name__, "items": items}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        entries = {key: inner(item, f"{where}[{key!r}]") for key, item in value.items()}
        return {"kind": "dict", "items": entries}
    if type(value) is dict and all(type(key) in (int, str) for key in value):
        return {"kind": "mapping", "items": [[key, inner(item, f"{where}[{key!r}]")] for key, item in value.items()]}
    raise InvalidTypeError(f"{where}: got {type(value).__module__}.{name}, which jaxcvx.save does not know.")


def _field_names(cls: type) -> dict[str, bool]:
    """The field names of a dataclass or NamedTuple. The value is True for static fields."""
    if dataclasses.is_dataclass(cls):
        return {f.name: bool(f.metadata.get("static", False)) for f in dataclasses.fields(cls) if f.init}
    return dict.fromkeys(cls._fields, False)  # type: ignore[attr-defined]


def _pack_array(value: Any, where: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The JSON node of an array, which is added to ``arrays``."""
    """The JSON node of an array, which is added to ``arrays``."""
    node: dict[str, Any] = {"kind": "array", "key": f"a{len(arrays)}"}
    if isinstance(value, jax.Array):
        if not value.is_fully_addressable:
            raise InvalidTypeError(f"{where}: got an array spread over several processes; gather it first.")
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            node |= {"kind": "prng_key", "impl": str(jax.random.key_impl(value))}
            value = jax.random.key_data(value)
    array = np.asarray(value)
    if array.dtype == jnp.bfloat16:
        node["kind"] = "bfloat16"
        array = array.view(np.uint16)
    if array.dtype.kind not in "biufc" or array.dtype.char in "gG":
        raise InvalidTypeError(f"{where}: got an array of dtype {array.dtype}, expected numbers.")
    arrays[node["key"]] = np.asarray(array, array.dtype.newbyteorder("="), order="C")
    return node


def _unpack(node: Any, arrays: dict[str, np.ndarray], depth: int) -> Any:
    """Turn a JSON node back into a value. Its arrays are removed from ``arrays``, so none is used twice."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")

    def inner(item: Any) -> Any:
        return _unpack(item, arrays, depth + 1)

    kind = node["kind"]
    if kind == "value":
        if not (node["value"] is None or isinstance(node["value"], bool | int | float | str)):
            raise ValueError("a value that is not plain")
        return node["value"]
    if kind == "array":
        return _as_saved(arrays.pop(node["key"]))
    if kind == "bfloat16":
        array = arrays.pop(node["key"])
        if array.dtype != np.uint16:
            raise ValueError(f"bfloat16 from {array.dtype}")
        return jnp.asarray(array.view(jnp.bfloat16))
    if kind == "prng_key":
        return jax.random.wrap_key_data(jnp.asarray(arrays.pop(node["key"])), impl=node["impl"])
    if kind in ("tuple", "list"):
        items = [inner(item) for item in node["items"]]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {key: inner(item) for key, item in node["items"].items()}
    if kind == "mapping":
        return {key: inner(item) for key, item in node["items"]}
    if kind == "object":
        return _build(node["type"], {name: inner(field) for name, field in node["fields"].items()})
    raise ValueError(f"unknown kind {kind!r}")


def _build(name: str, fields: dict[str, Any]) -> Any:
    """Build an object of a type in the table from its fields.

    Raises:
      ValueError, TypeError: the type is unknown, a static field is not hashable, or a leaf is a string.
    """
    if name not in _MODULES:
        raise ValueError(f"unknown type {name!r}")
    cls = _saved_type(name)
    obj = cls(**fields)
    for field, static in _field_names(cls).items():
        if static:
            hash(getattr(obj, field))
    leaves, structure = jax.tree.flatten(obj)
    if jax.tree_util.treedef_is_leaf(structure):
        hash(obj)
    if any(isinstance(leaf, str) for leaf in leaves):
        raise ValueError(f"{name} with strings as leaves")
    return obj


def _as_saved(array: np.ndarray) -> Any:
    """Turn a numpy array into a jax array, unless jax would convert it to a narrower dtype."""
    if jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype:
        return jnp.asarray(array)
    return array.copy()  # the bytes that were read are read-only


def _checksum(stream: BinaryIO) -> bytes:
    """The SHA-256 checksum, in hexadecimal, of a file without its last bytes, which hold the checksum."""
    rest = stream.seek(0, os.SEEK_END) - _CHECKSUM_BYTES
    stream.seek(0)
    digest = hashlib.sha256()
    while rest > 0:
        chunk = stream.read(min(rest, 2**20))
        if not chunk:
            raise EOFError("the file became shorter while it was read")
        digest.update(chunk)
        rest -= len(chunk)
    return digest.hexdigest().encode()


def _write(stream: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    """Write the archive, with its checksum as comment."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        archive.comment = b"0" * _CHECKSUM_BYTES
    checksum = _checksum(stream)
    stream.seek(-_CHECKSUM_BYTES, os.SEEK_END)
    stream.write(checksum)


def _read(stream: BinaryIO, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read and verify the header and the arrays of an open file.

    Args:
      stream: the file.
      name: its name, for messages.

    Raises:
      FileFormatError: the file is not valid.
    """
    if not zipfile.is_zipfile(stream):
        raise FileFormatError(f"{name}: not a jaxcvx file, or a truncated one.")
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        members = {info.filename.removesuffix(".npy"): info for info in infos}
        length = stream.seek(0, os.SEEK_END)
        if len(members) < len(infos) or sum(info.compress_size for info in infos) > length:
            raise FileFormatError(f"{name}: members that overlap or have the same name: a damaged file.")
        if _HEADER not in members:
            raise FileFormatError(f"{name}: an archive, but not one that jaxcvx.save wrote.")
        size = members[_HEADER].file_size
        if size > MAX_HEADER_BYTES + 128:  # 128: the header's own .npy header
            raise FileFormatError(f"{name}: a header of {size} bytes: not a jaxcvx file, or a damaged one.")
        header = json.loads(_read_array(archive, members.pop(_HEADER)).tobytes())
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise FileFormatError(f"{name}: not a jaxcvx file.")
        version = header.get("version")
        if not isinstance(version, int) or version < 1:
            raise FileFormatError(f"{name}: a jaxcvx file without a valid version.")
        if version > VERSION:
            raise FileFormatError(
                f"{name}: made by a newer jaxcvx (file version {version}, this one reads up to {VERSION})."
                " Update with: pip install --upgrade jaxcvx"
            )
        if archive.comment != _checksum(stream):
            raise FileFormatError(f"{name}: the file is damaged: its checksum does not match.")
        return header, {key: _read_array(archive, info) for key, info in members.items()}


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Read one .npy member, which must hold plain numbers. Its size is checked before the array is allocated."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"member {info.filename!r} is compressed")
    data = archive.read(info)
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError(f"member {info.filename!r} has an unknown npy version")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except MemoryError as err:  # Python's parser on deep nesting
        raise ValueError(f"member {info.filename!r} has a damaged header") from err
    if dtype.kind not in "biufc" or fortran:
        raise ValueError(f"member {info.filename!r} does not hold plain numbers")
    count = math.prod(shape)
    if count * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"member {info.filename!r} has the wrong size")
    if count == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype, count, stream.tell()).reshape(shape)
