"""Objects come back from their file as they were saved; a save replaces the file whole or not at all."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvx
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


@pytest.mark.long  # tests/transforms_of_solve/test_save_load.py has all solvers, on other data
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
        ({(1, 2): 2}, "obj: got builtins.dict"),
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


def test_dicts_with_integer_keys(tmp_path):
    tree = {0: np.ones(2), -3: {"a": 1, 2: (1.5, None)}, "0": 7}
    jaxcvx.save(tmp_path / "tree.npz", tree)
    again = jaxcvx.load(tmp_path / "tree.npz")
    assert list(again) == [0, -3, "0"] and again[-3] == tree[-3] and again["0"] == 7
    with pytest.raises(jaxcvx.JaxcvxError, match="does not know"):
        jaxcvx.save(tmp_path / "bad.npz", {True: 1})
