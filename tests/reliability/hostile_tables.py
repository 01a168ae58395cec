"""Read tables that were not meant well: python -m tests.reliability.hostile_tables FOLDER. Prints counts as JSON."""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxcvx.cli.tabular import Schema, read_csv, read_features
from jaxcvx.errors import JaxcvxError
from tests.reliability.memory import peak_megabytes

GOOD = b"a,b,y\n" + b"".join(b"%d,%d.5,%d\n" % (i, i * i, i % 3) for i in range(2, 42))
X = np.array([[i, i * i + 0.5] for i in range(2, 42)])
MB = 2**20


def right() -> Iterator[tuple[str, bytes]]:
    """Odd ways to write the good table."""
    yield "plain", GOOD
    yield "with a byte order mark", b"\xef\xbb\xbf" + GOOD
    yield "lines of Windows", GOOD.replace(b"\n", b"\r\n")
    yield "lines of an old Mac", GOOD.replace(b"\n", b"\r")
    yield "without a last line break", GOOD.rstrip()
    yield "blank lines at the end", GOOD + b"\n" * 5
    yield "ten megabytes of blank lines at the end", GOOD + b"\n" * (10 * MB)
    yield "all quoted", b"".join(b",".join(b'"%s"' % c for c in row.split(b",")) + b"\n" for row in GOOD.split())
    yield "blanks around cells", GOOD.replace(b",", b" ,\t ")
    yield "plus signs and exponents", GOOD.replace(b".5", b".5e0").replace(b"\n7,", b"\n+7,")
    yield "long numbers", GOOD.replace(b".5", b".5" + b"0" * 10_000)
    yield "UTF-16", GOOD.decode().encode("utf-16")
    yield "UTF-32", GOOD.decode().encode("utf-32")
    yield "semicolons", GOOD.replace(b",", b";")
    yield "tabs", GOOD.replace(b",", b"\t")
    yield "a blank line first", b"\n" + GOOD
    yield "commas at the ends", GOOD.replace(b"\n", b",\n")
    yield "compressed", gzip.compress(GOOD, mtime=0)
    yield "digits of other scripts", GOOD.decode().replace("\n7,", "\n\uff17,").encode()


def wrong() -> Iterator[tuple[str, bytes, str]]:
    """Faults, and a word of the message."""
    yield "empty", b"", "empty"
    yield "blanks only", b" \n\t\n" * 1000, "empty"
    yield "a mark only", b"\xef\xbb\xbf", "empty"
    yield "NUL bytes", GOOD.replace(b"7", b"\0"), "NUL"
    yield "megabytes of NUL bytes", b"\0" * 20 * MB, "NUL"
    yield "Latin-1", GOOD.replace(b"a,b", b"\xe4,b"), "not UTF-8"
    yield "two encodings", GOOD + "é,1,2\n".encode() + b"\xe9,1,2\n", "line 43: byte 0xe9 is not UTF-8"
    yield "half a character", GOOD + b"\xe2\x82", "not UTF-8"
    yield "noise", random.Random(0).randbytes(MB), "NUL|UTF-8"
    yield "an archive", b"PK\3\4" + random.Random(1).randbytes(1000), "NUL|UTF-8"
    yield "a picture", b"\x89PNG\r\n\x1a\n" + b"\1" * 100, "UTF-8"
    yield "a huge field", GOOD + b"1," + b"9" * (5 * MB) + b",1\n", "field"
    yield "a huge quoted field", GOOD + b'1,"' + b"x\n" * (5 * MB) + b'",1\n', "field"
    yield "an unclosed quote", GOOD + b'"1,2,3\n4,5,6\n', "line 42"
    yield "an unclosed quote over megabytes", GOOD + b'"' + GOOD * 20_000, "line 42"
    yield "a quote inside a cell", GOOD + b'1,"2"x,3\n', "line 42"
    yield "a short row", GOOD + b"1,2\n", "line 42: 2 fields, expected 3"
    yield "a long row", GOOD + b"1,2,3,4\n" + GOOD * 1000, "line 42: 4 fields"
    yield "a row of a million fields", GOOD + b"1," * 10**6 + b"\n", "line 42: 1000001 fields"
    yield "a blank line inside", GOOD + b"\n1,2,3\n", "line 42: 0 fields"
    yield "megabytes of blank lines inside", GOOD + b"\n" * (10 * MB) + b"1,2,3\n", "line 42: 0 fields"
    yield "a million columns", b",".join(b"c%d" % i for i in range(10**6)) + b"\n" + b"1\n" * 5, "columns"
    yield "a million nameless columns", b"," * 10**6 + b"\n" + b"1\n" * 5, "columns"
    yield "one name a thousand times", b",".join([b"a"] * 1000) + b"\n" + b"1\n" * 5, "more than once"
    yield "no rows", b"a,b,y\n", "no data row"
    yield "three rows", b"".join(GOOD.splitlines(keepends=True)[:4]), "at least 4"
    yield "infinite", GOOD.replace(b"\n7,", b"\n-inf,"), "not a finite number"
    yield "too large a number", GOOD.replace(b"\n7,", b"\n1e999,"), "not a finite number"
    yield "a typing error", GOOD.replace(b"\n7,", b"\n7o,"), "not a number"
    yield "a digit separator", GOOD.replace(b"\n17,", b"\n1_7,"), "not a number"
    yield "hexadecimal", GOOD.replace(b"\n7,", b"\n0x7,"), "not a number"
    yield "a formula for a number", GOOD.replace(b"\n7,", b"\n=1+6,"), "'=1.6' is not a number"
    yield "a command for a number", GOOD.replace(b"\n7,", b"\n=cmd|' /C calc'!A0,"), "is not a number"
    yield "half a compressed file", gzip.compress(GOOD, mtime=0)[:60], "cannot read"
    yield "no header", GOOD[6:], "--no-header"
    yield "UTF-16, cut", GOOD.decode().encode("utf-16")[:-1], "not UTF-16"
    yield "a label in every row", b"a,y\n" + b"".join(b"%d,n%d\n" % (i, i) for i in range(9)), "different label"
    yield "one label", b"a,y\n" + b"".join(b"%d,n\n" % i for i in range(9)), "only one class"
    yield "one value", b"a,y\n" + b"".join(b"%d,1.5\n" % i for i in range(9)), "every row"
    yield "control characters", GOOD.replace(b"\n7,", b"\n\x1b[31m,"), "x1b"


def formulas_are_texts(path: Path) -> None:
    rows = b"".join(b"%s,%d\n" % (b"=1+1" if i % 2 else b"@SUM(A1)", i % 2) for i in range(10))
    path.write_bytes(b"a,y\n" + rows)
    assert read_csv(path, "y").feature_names == ("a==1+1", "a=@SUM(A1)")


def wide_table(path: Path) -> None:
    """The widest that is read."""
    names = [f"c{i}" for i in range(100_000)]
    path.write_text("\n".join([",".join(names), "3," * 99_999 + "7", *[",".join("7" * 100_000)] * 3]) + "\n")
    schema = Schema.numeric(reversed(names))
    found = read_features(path, schema)
    assert found.shape == (4, 100_000) and found[0].tolist() == [7.0] + [3.0] * 99_999 and (found[1:] == 7).all()


def main() -> None:
    path = Path(sys.argv[1]) / "table.csv"
    read, refused, slowest = 0, 0, ("", 0.0)
    before = peak_megabytes()
    read_csv(_written(path, GOOD), "y")

    def timed(name: str, began: float) -> None:
        nonlocal slowest
        spent = time.process_time() - began
        slowest = max(slowest, (name, spent), key=lambda pair: pair[1])

    for name, data in right():
        _written(path, data)
        began = time.process_time()
        found: Any = read_csv(path, "y")
        timed(name, began)
        assert np.array_equal(found.X, X) and found.classes == ("0", "1", "2"), name
        read += 1
    for name, data, words in wrong():
        _written(path, data)
        began = time.process_time()
        try:
            read_csv(path, "y" if b"y" in data[:20] else None)
            raise SystemExit(f"{name}: was read")
        except JaxcvxError as err:
            message = str(err)
        timed(name, began)
        assert re.search(words, message) and "\n" not in message and len(message) < 1000, (name, message)
        assert message.isprintable(), (name, message)
        refused += 1
    for check in (formulas_are_texts, wide_table):
        began = time.process_time()
        check(path)
        timed(check.__name__, began)
        read += 1
    grown = peak_megabytes() - before
    found = {"inputs": read + refused, "read": read, "refused": refused, "grown_megabytes": grown}
    print(json.dumps(found | {"slowest": slowest[0], "slowest_seconds": slowest[1]}))


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    main()
