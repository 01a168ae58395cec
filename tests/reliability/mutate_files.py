"""Mutate saved files and load them: python -m tests.reliability.mutate_files FOLDER COUNT. Prints counts as JSON."""

from __future__ import annotations

import collections
import io
import json
import os
import random
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcvx
from jaxcvx import serialisation
from jaxcvx.errors import FileFormatError
from tests.reliability.cases import bits
from tests.reliability.memory import peak_megabytes

Members = dict[str, bytes]
HEADER = "__jaxcvx__.npy"


def objects() -> dict[str, Any]:
    """What is saved: a model, cells in a problem, a solution, a state with keys, containers."""
    X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2)), jnp.float32)
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, 5)
    problem = jaxcvx.make_problem(X, X[:, :1], 0.1, loss=jaxcvx.Huber(0.5), arrangements=cells)
    network = jaxcvx.Network(jnp.ones((3, 3)), jnp.ones((3, 1)), None, jaxcvx.Dense(bias=True))
    conv = jaxcvx.Network(jnp.ones((1, 4)), jnp.ones((1, 2)), None, jaxcvx.ConvPool((2, 2), stride=1))
    arrays = {".key": jax.random.key(1), ".step": jnp.asarray(3), ".half": X.astype("bfloat16")}
    state = {"params": network, "state": arrays}
    return {"network": network, "problem": problem, "convolution": conv, "state": state, "list": [1, "a", None, (2.5,)]}


def parts_of(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def sealed(members: list[tuple[str, bytes]]) -> bytes:
    """An archive with a checksum that is right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.comment = b"0" * 64
    return resealed(stream.getvalue())


def resealed(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    if len(data) < 64:
        return data
    return data[:-64] + serialisation._checksum(stream)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0))
    return stream.getvalue()


def npy_with_header(text: str, data: bytes = b"\0" * 16) -> bytes:
    encoded = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded + data


def header_of(members: Members) -> Any:
    return json.loads(np.load(io.BytesIO(members[HEADER])).tobytes())


def with_header(members: Members, header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return sealed(list((members | {HEADER: npy(np.frombuffer(text, np.uint8))}).items()))


def arrays_in(members: Members) -> list[str]:
    return [name for name in members if name != HEADER]


# Plain damage: the checksum tells.


def flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def insert(rng: random.Random, data: bytes) -> bytes:
    at, extra = rng.randrange(len(data) + 1), rng.randbytes(rng.choice((1, 3, 64, 5000)))
    return data[:at] + extra + data[at:]


def cut_out(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 200) :]


def repeat(rng: random.Random, data: bytes) -> bytes:
    at, size = rng.randrange(len(data)), rng.randrange(1, 400)
    return data[:at] + data[at : at + size] * 2 + data[at + size :]


def unchanged(rng: random.Random, data: bytes) -> bytes:
    return data


DAMAGE = (flip, truncate, insert, cut_out, repeat, unchanged)

# Forgery: the checksum is right again, so that what stands behind it is asked.


def flip_and_seal(rng: random.Random, data: bytes) -> bytes:
    return resealed(rng.choice((flip, insert, cut_out, repeat))(rng, data))


def swap_members(rng: random.Random, data: bytes) -> bytes:
    members = parts_of(data)
    first, second = rng.choice(list(members)), rng.choice(list(members))
    members[first], members[second] = members[second], members[first]
    return sealed(list(members.items()))


def rename_member(rng: random.Random, data: bytes) -> bytes:
    members = list(parts_of(data).items())
    at = rng.randrange(len(members))
    name = rng.choice(("../../a0.npy", "/a0.npy", "a0", "a99.npy", "", "a0.npy.npy", "é" * 1000, "__jaxcvx__"))
    members[at] = (name, members[at][1])
    return sealed(members)


def duplicate_member(rng: random.Random, data: bytes) -> bytes:
    members = list(parts_of(data).items())
    name, content = rng.choice(members)
    members.insert(rng.randrange(len(members) + 1), (name, flip(rng, content)))
    return sealed(members)


def drop_member(rng: random.Random, data: bytes) -> bytes:
    members = parts_of(data)
    del members[rng.choice(list(members))]
    return sealed(list(members.items()))


def add_member(rng: random.Random, data: bytes) -> bytes:
    extra = rng.choice((npy(np.zeros(3)), b"", b"\x80\x04K\x01.", rng.randbytes(100)))
    return sealed([*parts_of(data).items(), (rng.choice(("a77.npy", "evil.pkl", "__init__.py")), extra)])


class Code:
    """Unpickling this would leave a file behind."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def other_arrays(rng: random.Random, data: bytes) -> bytes:
    """Another dtype, objects, text, records, huge shapes, nested headers, other orders and versions."""
    members = parts_of(data)
    names = arrays_in(members)
    objects = io.BytesIO()
    np.lib.format.write_array(objects, np.array([Code(), None], dtype=object), allow_pickle=True)
    array = np.load(io.BytesIO(members[rng.choice(names)])) if names else np.zeros(2)
    form = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
    content = rng.choice(
        (
            objects.getvalue(),
            npy(np.array(["text", "more"])),
            npy(np.zeros(2, np.dtype([("a", "f4"), ("b", "i8")]))),
            npy(array.astype(rng.choice(("f2", "f8", "i1", "u8", "c16", "?", ">f4", "M8[s]", "g")))),
            npy(np.asfortranarray(np.ones((3, 2), np.float32))),
            npy(np.zeros((0, 10**9), np.float32)),
            npy_with_header(form % "(999999999999,)"),
            npy_with_header(form % "(4, 9223372036854775807)"),
            npy_with_header(form % "(-2, -2)"),
            npy_with_header(form % ("(" + "1," * 4 + "4" + ")")),
            npy_with_header(form % ("-" * 9000 + "4")),
            npy_with_header(form % ("(" * 300)),
            npy_with_header(form % ("1+" * 3000 + "1")),
            npy_with_header(form % ("1" * 5000)),
            npy_with_header(form % "(4L,)"),
            npy_with_header(form % "__import__('os').system('touch pwned')"),
            npy_with_header("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"),
            npy_with_header("{'descr': '(1000000000,)f4', 'fortran_order': False, 'shape': (2,), }"),
            npy_with_header("{'descr': [('a', [('b', '<f4')])], 'fortran_order': False, 'shape': (4,), }"),
            members[HEADER],
            b"",
        )
    )
    members[rng.choice(names) if names else "a0.npy"] = content
    return sealed(list(members.items()))


def nodes_of(tree: Any) -> list[Any]:
    """All dicts and lists of a header."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = [tree] if isinstance(tree, dict | list) else []
    return own + [node for item in inner for node in nodes_of(item)]


def edit_header(rng: random.Random, data: bytes) -> bytes:
    """One place of the header becomes something else."""
    members = parts_of(data)
    header = header_of(members)
    node = rng.choice(nodes_of(header))
    values: tuple[Any, ...] = (None, True, -1, 10**30, 1e308, float("nan"), "", "x" * 10_000, [], {}, [[1]], "a0")
    values += ("Network", "Certificate", "Problem", "Solution", "tuple", "object", "prng_key", "bfloat16", "\ud800")
    values += ({"kind": "value", "value": {"a": 1}}, {"kind": "array", "key": "a0"})
    values += ({"kind": "object", "type": "Popen", "fields": {}},)
    values += ({"kind": "object", "type": "Huber", "fields": {"delta": {"kind": "value", "value": "1"}}},)
    if not node:
        return with_header(members, {})
    if isinstance(node, list):
        node[rng.randrange(len(node))] = rng.choice(values)
        return with_header(members, header)
    name = rng.choice(list(node))
    how = rng.randrange(3)
    if how == 0:
        node[name] = rng.choice(values)
    elif how == 1:
        del node[name]
    else:
        node[rng.choice(("extra", "__class__", "__init__", "complete", "basis"))] = node.pop(name)
    return with_header(members, header)


def strange_headers(rng: random.Random, data: bytes) -> bytes:
    """Depth, amplification, other formats and versions."""
    members = parts_of(data)
    header, names = header_of(members), arrays_in(members)
    deep: Any = {"kind": "value", "value": 1}
    for _ in range(rng.choice((70, 400))):
        deep = {"kind": "list", "items": [deep]}
    node = {"kind": "array", "key": names[0].removesuffix(".npy") if names else "a0"}
    choices = (
        header | {"tree": deep},
        header | {"tree": {"kind": "list", "items": [node] * 20_000}},
        header | {"version": rng.choice((2, 0, -1, 1.0, "1", None, True, 10**9))},
        header | {"format": "other"},
        header | {"metadata": rng.choice(([], None, "x", 3))},
        {},
        [],
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"format": "jaxcvx", "version": 1, "tree": ' + b"9" * 100_000 + b"}",
        b"\xff\xfe" + b"\0" * 100,
        json.dumps(header).encode("utf-16"),
        json.dumps(header).encode() * 2,
    )
    return with_header(members, rng.choice(choices))


def bombs(rng: random.Random, data: bytes) -> bytes:
    """Compressed members, members that share their bytes, sizes that are not there."""
    members = parts_of(data)
    kind = rng.randrange(5)
    if kind == 0:
        return compressed(members, rng)
    archive = bytearray(sealed(list(members.items())))
    places = [at for at in range(len(archive)) if archive[at : at + 4] == b"PK\1\2"]
    at = rng.choice(places)
    if kind == 1:  # sizes in the directory
        archive[at + 20 : at + 28] = rng.choice((b"\xfe\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0")) * 2
    elif kind == 2:  # all members are one: many entries of the directory, one place in the file
        offset = archive[places[-1] + 42 : places[-1] + 46]
        for place in places:
            archive[place + 42 : place + 46] = offset
    elif kind == 3:  # the place of a member
        archive[at + 42 : at + 46] = rng.randbytes(4)
    else:  # the count of members
        end = archive.rindex(b"PK\5\6")
        archive[end + 8 : end + 12] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\1\0\1\0"))
    return resealed(bytes(archive))


def compressed(members: Members, rng: random.Random) -> bytes:
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("a50.npy", b"\0" * 10**7)
        archive.comment = b"0" * 64
    return resealed(stream.getvalue())


def overlapping(rng: random.Random, data: bytes) -> bytes:
    """Twenty thousand names for one array of 400 kB: eight gigabytes, if all were read."""
    members = parts_of(data)
    name = "a0.npy"
    members[name] = npy(np.zeros(10**5 + rng.randrange(10), np.float32))
    archive = sealed(list(members.items()))
    starts = (at for at in range(len(archive)) if archive[at : at + 4] == b"PK\1\2")
    first = next(at for at in starts if archive[at + 46 : at + 48] == b"a0")
    entry = archive[first : first + 46]
    end = archive.rindex(b"PK\5\6")
    extra = b"".join(
        entry[:28] + len(f"b{k}").to_bytes(2, "little") + entry[30:] + f"b{k}".encode() for k in range(20_000)
    )
    start, size = (int.from_bytes(archive[end + at : end + at + 4], "little") for at in (16, 12))
    count = int.from_bytes(archive[end + 10 : end + 12], "little") + 20_000
    tail = bytearray(archive[end:])
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = (size + len(extra)).to_bytes(4, "little")
    return resealed(archive[:start] + archive[start:end] + extra + bytes(tail))


FORGERY = (
    flip_and_seal,
    swap_members,
    rename_member,
    duplicate_member,
    drop_member,
    add_member,
    other_arrays,
    other_arrays,
    edit_header,
    edit_header,
    edit_header,
    strange_headers,
    bombs,
    overlapping,
)
Mutation = Callable[[random.Random, bytes], bytes]


def same(a: Any, b: Any) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and bits(a) == bits(b)


def outcome(path: Path, original: Any, forged: bool) -> str:
    """ "refused", "equal", or "forged": other contents that were written as we write them."""
    try:
        loaded = jaxcvx.load(path)
    except FileFormatError as err:
        assert "\n" not in str(err).strip() or len(str(err)) < 2000
        return "refused"
    if same(loaded, original):
        return "equal"
    assert forged, "other contents behind a checksum that was not made anew"
    saved = path.with_name("again.npz")
    jaxcvx.save(saved, loaded)  # nothing but what we know: or this fails
    assert jax.tree.structure(jaxcvx.load(saved)) == jax.tree.structure(loaded)
    saved.unlink()
    return "forged"


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    os.chdir(folder)
    path = folder / "mutated.npz"
    originals = []
    for obj in objects().values():
        jaxcvx.save(path, obj, {"kind": "test", "numbers": [1, 2.5]})
        originals.append((obj, path.read_bytes()))
        assert outcome(path, obj, False) == "equal"
    counts, kinds, slowest = collections.Counter[str](), collections.Counter[str](), 0.0
    before = peak_megabytes()
    for number in range(count):
        rng = random.Random(number)
        mutation: Mutation = rng.choice(DAMAGE if number % 3 == 0 else FORGERY)
        original, data = rng.choice(originals)
        path.write_bytes(mutation(rng, data))
        began = time.process_time()
        try:
            result = outcome(path, original, mutation in FORGERY)
        except (Exception, AssertionError) as err:
            raise SystemExit(f"file {number}, {mutation.__name__}: {type(err).__name__}: {err}"[:2000]) from err
        slowest = max(slowest, time.process_time() - began)
        counts[result] += 1
        kinds[mutation.__name__] += 1
    grown = peak_megabytes() - before
    print(json.dumps({"files": count, "slowest_seconds": slowest, "grown_megabytes": grown, **counts, "kinds": kinds}))


if __name__ == "__main__":
    main()
