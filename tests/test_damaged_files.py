"""Damaged, forged and foreign files are refused."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcvx import serialisation
from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.errors import FileFormatError, InvalidTypeError
from jaxcvx.serialisation import load, save


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "cells.npz"
    masks = np.array([[True, False, True], [False, False, True]])
    save(path, Arrangements(masks, np.array([[0.1, -0.2], [1 / 3, 2.0]], np.float32)), metadata={"a": 1})
    return path


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
        (good_header(NONE, metadata=[]), "does not use"),
        (good_header({"kind": "value", "value": []}), "not plain"),
        (good_header({"kind": "object", "type": "Network", "fields": {"hidden": TEXT, "output": TEXT}}), "strings"),
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
    with pytest.raises(FileFormatError, match="does not use"):
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
