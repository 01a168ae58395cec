"""Saving and loading: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcvx import (
    ConeADMM,
    ConvFlatten,
    ConvPool,
    CopositiveADMM,
    CuttingPlane,
    FrankWolfe,
    Huber,
    Network,
    enumerate_arrangements,
    make_problem,
    restrict_filters,
    sample_arrangements,
    serialisation,
    solve,
)
from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.errors import FileFormatError, InvalidTypeError, JaxcvxError
from jaxcvx.features.dense import Dense
from jaxcvx.serialisation import load, load_with_metadata, save


def small_cells() -> Arrangements:
    masks = np.array([[True, False, True], [False, False, True]])
    return Arrangements(masks, np.array([[0.1, -0.2], [1 / 3, 2.0]], np.float32), complete=True)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "cells.npz"
    save(path, small_cells(), metadata={"a": 1})
    return path


def test_round_trip_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    metadata = {"classes": ["a", "b"], "beta": 0.1, "inner": {"none": None, "bound": -np.inf}, "ü": "é"}
    save(path, small_cells(), metadata=metadata)
    assert os.listdir(tmp_path) == ["x.model"]  # the name as given, no temporary file left
    cells, back = load_with_metadata(path)
    assert back == metadata
    assert type(cells) is Arrangements and cells.complete is True
    assert isinstance(cells.masks, jax.Array) and cells.masks.dtype == bool
    np.testing.assert_array_equal(cells.masks, small_cells().masks)
    np.testing.assert_array_equal(cells.gates, small_cells().gates)
    assert jax.tree.structure(cells) == jax.tree.structure(small_cells())


def test_metadata_is_empty_by_default(tmp_path: Path) -> None:
    save(tmp_path / "x", Dense(bias=True))
    assert load_with_metadata(tmp_path / "x") == (Dense(bias=True, skip=False), {})


@pytest.mark.parametrize("kind", [ConvPool, ConvFlatten])
def test_convolutional_networks_and_problems(tmp_path: Path, kind: Any) -> None:
    X = np.random.default_rng(0).standard_normal((4, 5, 6, 2))
    features = restrict_filters(kind((2, 3), stride=2, padding="SAME", bias=True), X, 3)
    q = features.readout(*X.shape[1:]).columns(1)
    network = Network(jnp.arange(8.0).reshape(2, 4), jnp.arange(2.0 * q).reshape(2, q), None, features)
    cells = sample_arrangements(jax.random.key(0), X, 5, features=features)
    problem = make_problem(X, X[:, 0, 0, 0], 0.1, loss=Huber(0.5), features=features, arrangements=cells)
    save(tmp_path / "x", (network, problem))
    same_network, same_problem = load(tmp_path / "x")
    assert same_network.features == features and hash(same_network.features) == hash(features)
    assert jax.tree.structure((same_network, same_problem)) == jax.tree.structure((network, problem))
    np.testing.assert_array_equal(same_network(X), network(X))
    for a, b in zip(jax.tree.leaves(same_problem), jax.tree.leaves(problem), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("x64", [False, True])
def test_float64_keeps_every_bit(tmp_path: Path, x64: bool) -> None:
    gates = np.random.default_rng(0).standard_normal((2, 5))
    with jax.enable_x64(x64):
        save(tmp_path / "x", Arrangements(np.ones((2, 3), bool), gates))
        cells = load(tmp_path / "x")
        assert isinstance(cells.gates, jax.Array if x64 else np.ndarray)
        assert isinstance(cells.masks, jax.Array)
    assert cells.gates.dtype == np.float64
    assert np.asarray(cells.gates).tobytes() == gates.tobytes()
    if not x64:
        cells.gates[0, 0] = 1.0  # a numpy array that is handed out is the caller's own


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.float32(2.5),
        np.array(7, np.int32),
        np.array([1 + 2j], np.complex64),
        np.arange(6, dtype=np.int32).reshape(2, 3).T,
        np.array([2**63 + 1], np.uint64),
        np.array([np.nan, -np.inf, -0.0], np.float16),
        np.array([1.5, 2.5], ">f4"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_all_kinds(tmp_path: Path, array: Any) -> None:
    save(tmp_path / "x", {"array": array})
    back = load(tmp_path / "x")["array"]
    assert back.shape == array.shape and back.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(back), array)


def test_bfloat16_and_random_keys(tmp_path: Path) -> None:
    key = jax.random.key(3)
    half = jnp.array([1.5, -2.25], jnp.bfloat16)
    save(tmp_path / "x", (half, key, jax.random.split(key, 2)))
    half_back, key_back, keys_back = load(tmp_path / "x")
    assert half_back.dtype == jnp.bfloat16 and jnp.array_equal(half_back, half)
    assert key_back.dtype == key.dtype and keys_back.shape == (2,)
    assert jax.random.normal(key_back) == jax.random.normal(key)


def test_containers_keep_their_types(tmp_path: Path) -> None:
    class Colour(enum.IntEnum):
        RED = 3

    plain = [None, True, 2, float("inf"), "text"]
    obj = {"pair": (small_cells(), plain), "colour": Colour.RED, "empty": ()}
    save(tmp_path / "x", obj)
    back = load(tmp_path / "x")
    cells, rest = back["pair"]
    assert type(back["pair"]) is tuple and type(rest) is list and rest == plain
    assert rest[1] is True and type(back["colour"]) is int and back["colour"] == 3 and back["empty"] == ()
    np.testing.assert_array_equal(cells.masks, small_cells().masks)


def test_static_fields_become_plain(tmp_path: Path) -> None:
    cells = dataclasses.replace(small_cells(), complete=np.bool_(True))
    save(tmp_path / "x", cells)
    assert load(tmp_path / "x").complete is True


def test_solutions_of_every_kind_of_variables(tmp_path: Path) -> None:
    X, Y = np.random.default_rng(0).standard_normal((8, 2)), np.random.default_rng(1).standard_normal((8, 1))
    problem = make_problem(X, Y, 0.3, arrangements=enumerate_arrangements(X))
    for solver in (CopositiveADMM(max_steps=20), CuttingPlane(), ConeADMM(max_steps=20), FrankWolfe(max_steps=20)):
        solution = solve(problem, solver)
        save(tmp_path / "solution", solution)
        back = load(tmp_path / "solution")
        assert jax.tree.structure(back) == jax.tree.structure(solution)
        jax.tree.map(np.testing.assert_array_equal, back, solution)


LOSS_MODULES = ("jaxcvx.losses.entrywise", "jaxcvx.losses.softmax")


def test_table_names_classes_that_exist() -> None:
    for name, module in serialisation._MODULES.items():
        cls = serialisation._saved_type(name)
        assert cls.__name__ == name and cls.__module__ == module
        assert serialisation._field_names(cls) or module in LOSS_MODULES or name == "FreeBias"  # plain names


@pytest.mark.parametrize(
    ("obj", "where"),
    [
        ({"a": [object()]}, r"obj\['a'\]\[0\]: got builtins.object"),
        ({1: 2}, "obj: got builtins.dict"),
        ((np.array([None]),), r"obj\[0\]: got an array of dtype object"),
        (np.array(["text"]), "obj: got an array of dtype <U4"),
        (np.ones(2, np.longdouble), "obj: got an array of dtype (float128|longdouble)"),
        (Arrangements(np.ones((1, 1), bool), lambda x: x), "obj.gates: got builtins.function"),  # type: ignore
        (print, "obj: got builtins"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, obj: Any, where: str) -> None:
    with pytest.raises(InvalidTypeError, match="^" + where):
        save(tmp_path / "x", obj)
    assert os.listdir(tmp_path) == []


def test_self_containing_and_traced(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidTypeError, match="deep"):
        save(tmp_path / "x", loop)
    with pytest.raises(InvalidTypeError, match=r"^obj\[0\]: got a traced value"):
        jax.jit(lambda x: save(tmp_path / "x", [x]))(1.0)


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": np.ones(2)}, {("a", "b"): 1}])
def test_metadata_must_be_json(tmp_path: Path, metadata: Any) -> None:
    with pytest.raises(InvalidTypeError, match="^metadata"):
        save(tmp_path / "x", 1, metadata)
    assert os.listdir(tmp_path) == []


def test_every_truncation_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    assert len(data) < 4000
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            load(saved)
    saved.write_bytes(data)
    load(saved)


def test_a_flip_in_every_byte_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        saved.write_bytes(flipped)
        with pytest.raises(FileFormatError):
            load(saved)


@pytest.mark.parametrize("extra", [b"\0", b"x" * 100, b"PK\5\6"])
def test_appended_bytes_are_refused(saved: Path, extra: bytes) -> None:
    saved.write_bytes(saved.read_bytes() + extra)
    with pytest.raises(FileFormatError):
        load(saved)


def forge(path: Path, header: Any, arrays: dict[str, np.ndarray] | None = None, checksum: bool = True) -> None:
    """A file with any header, in form as ``save`` would write it."""
    encoded = np.frombuffer(header if isinstance(header, bytes) else json.dumps(header).encode(), np.uint8)
    with open(path, "w+b") as stream:
        serialisation._write(stream, {"__jaxcvx__": encoded, **(arrays or {})})
        if not checksum:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"!")


def good_header(tree: Any, **changes: Any) -> dict[str, Any]:
    return {"format": "jaxcvx", "version": 1, "type": "?", "tree": tree, "metadata": {}} | changes


NONE = {"kind": "value", "value": None}
TEXT = {"kind": "value", "value": "x"}
UNHASHABLE = {"masks": NONE, "gates": NONE, "complete": {"kind": "list", "items": []}}


def nested(depth: int) -> Any:
    """A list in a list in a list ..."""
    return {"kind": "list", "items": [nested(depth - 1)]} if depth else NONE


def test_forge_makes_files_that_load(tmp_path: Path) -> None:
    forge(tmp_path / "x", good_header({"kind": "array", "key": "a0"}), {"a0": np.ones(2, np.float32)})
    np.testing.assert_array_equal(load(tmp_path / "x"), [1, 1])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (good_header(NONE, version=2), "newer jaxcvx"),
        (good_header(NONE, version=0), "version"),
        (good_header(NONE, version="1"), "version"),
        (good_header(NONE, format="other"), "not a jaxcvx file"),
        ([], "not a jaxcvx file"),
        (b"\xff\xfe", "not a jaxcvx file"),
        (b"[" * 100_000, "not a jaxcvx file"),
        (good_header({"kind": "pickle", "value": "x"}), "unknown kind"),
        (good_header({"kind": "object", "type": "Popen", "fields": {}}), "unknown type"),
        (good_header({"kind": "object", "type": "Dense", "fields": {"new": NONE}}), "do not fit"),
        (good_header({"kind": "object", "type": "Arrangements", "fields": {}}), "do not fit"),
        (good_header({"kind": "array", "key": "a7"}), "do not fit"),
        (good_header([]), "do not fit"),
        ({"format": "jaxcvx", "version": 1}, "do not fit"),
        (good_header(NONE, metadata=[]), "belong to nothing"),
        (good_header({"kind": "value", "value": []}), "not plain"),
        (good_header({"kind": "object", "type": "Network", "fields": {"hidden": TEXT, "output": TEXT}}), "of texts"),
        (good_header({"kind": "object", "type": "Arrangements", "fields": UNHASHABLE}), "unhashable"),
        (good_header(nested(70)), "nested more than"),
    ],
)
def test_forged_headers(tmp_path: Path, header: Any, message: str) -> None:
    forge(tmp_path / "x", header)
    with pytest.raises(FileFormatError, match=message):
        load(tmp_path / "x")


def test_every_array_is_used_once(tmp_path: Path) -> None:
    node, arrays = {"kind": "array", "key": "a0"}, {"a0": np.ones(2, np.float32)}
    forge(tmp_path / "x", good_header({"kind": "list", "items": [node] * 2}), arrays)
    with pytest.raises(FileFormatError, match="do not fit.*a0"):
        load(tmp_path / "x")
    forge(tmp_path / "x", good_header(node), arrays | {"a1": np.ones(2)})
    with pytest.raises(FileFormatError, match="belong to nothing"):
        load(tmp_path / "x")
    forge(tmp_path / "x", good_header({"kind": "bfloat16", "key": "a0"}), arrays)
    with pytest.raises(FileFormatError, match="bfloat16 from float32"):
        load(tmp_path / "x")


def test_two_members_of_one_name(tmp_path: Path) -> None:
    header = npy(np.frombuffer(json.dumps(good_header({"kind": "array", "key": "a0"})).encode(), np.uint8))
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        for name, member in (("__jaxcvx__.npy", header), ("a0.npy", npy(np.zeros(2))), ("a0", npy(np.ones(2)))):
            archive.writestr(name, member)
    with pytest.raises(FileFormatError, match="the same name"):
        load(tmp_path / "x")


def test_newer_version_is_said_before_damage(tmp_path: Path) -> None:
    """A later format may use another checksum."""
    forge(tmp_path / "x", good_header(NONE, version=2), checksum=False)
    with pytest.raises(FileFormatError, match="newer jaxcvx"):
        load(tmp_path / "x")
    forge(tmp_path / "x", good_header(NONE), checksum=False)
    with pytest.raises(FileFormatError, match="checksum"):
        load(tmp_path / "x")


def test_absurd_header_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(tmp_path / "x", good_header("x" * 2000))
    monkeypatch.setattr(serialisation, "MAX_HEADER_BYTES", 1000)
    with pytest.raises(FileFormatError, match="header of"):
        load(tmp_path / "x")
    with pytest.raises(InvalidTypeError, match="metadata"):
        save(tmp_path / "y", 1, {"a": "x" * 2000})


def npy(array: np.ndarray, *changes: tuple[str, str]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    data = stream.getvalue()
    for old, new in changes:
        assert old.encode() in data
        data = data.replace(old.encode(), new.encode())
    return data


@pytest.mark.parametrize(
    "member",
    [
        npy(np.array([None, {}], dtype=object)),
        npy(np.array(["text"])),
        npy(np.zeros(2, np.dtype([("a", "f4")]))),
        npy(np.zeros(2), ("(2,), ", "(3,), ")),
        npy(np.zeros(2), ("(2,), }            ", "(999999999999,), } ")),
        npy(np.zeros((2, 1)), ("(2, 1), }  ", "(-2, -1), }")),
        npy(np.zeros((2, 1))) + b"\0",
        b"\x93NUMPY\x01\x00\x29\x23" + b"{'descr': '<f4', 'shape': (%s1,)}\n" % (b"-" * 8967),
        b"",
        b"\x93NUMPY\x01\x00",
    ],
)
def test_bad_array_members(tmp_path: Path, member: bytes) -> None:
    header = json.dumps(good_header({"kind": "array", "key": "a0"})).encode()
    with open(tmp_path / "x", "w+b") as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("__jaxcvx__.npy", npy(np.frombuffer(header, np.uint8)))
            archive.writestr("a0.npy", member)
            archive.comment = b"0" * 64
        checksum = serialisation._checksum(stream)
        stream.seek(-64, os.SEEK_END)
        stream.write(checksum)
    with pytest.raises(FileFormatError, match="a0.npy|not a jaxcvx file"):
        load(tmp_path / "x")


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(FileFormatError, match="no such file"):
        load(path)
    with pytest.raises(FileFormatError, match="cannot read"):
        load(tmp_path)
    np.savez(path, a=np.ones(2))
    with pytest.raises(FileFormatError, match="not one that jaxcvx.save wrote"):
        load(path)
    np.savez_compressed(path, __jaxcvx__=np.zeros(10**6, np.uint8))
    with pytest.raises(FileFormatError, match="compressed"):
        load(path)
    for text in (b"", b"hello", b"PK\3\4", b"\x80\x04K\x01."):
        path.write_bytes(text)
        with pytest.raises(FileFormatError, match="not a jaxcvx file"):
            load(path)


def test_numpy_opens_the_file(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        header = json.loads(archive["__jaxcvx__"].tobytes())
        np.testing.assert_array_equal(archive[header["tree"]["fields"]["gates"]["key"]], small_cells().gates)
    assert (header["format"], header["version"], header["type"]) == ("jaxcvx", 1, "Arrangements")


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_save_leaves_the_old_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch, function: str, error: BaseException
) -> None:
    before = saved.read_bytes()

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(os, function, fail)
    expected = FileFormatError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        save(saved, {"other": np.ones(100)})
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_save_replaces_and_follows_links(saved: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(saved)
    save(link, [1])
    assert link.is_symlink() and load(saved) == [1]


def test_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    save(tmp_path / "x", 1)
    (tmp_path / "y").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


@pytest.mark.parametrize("path", ["missing/x", "."])
def test_unwritable(tmp_path: Path, path: str) -> None:
    with pytest.raises(FileFormatError, match="cannot write") as err:
        save(tmp_path / path, 1)
    assert isinstance(err.value, OSError) and isinstance(err.value, JaxcvxError)
    assert os.listdir(tmp_path) == []
