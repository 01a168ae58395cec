"""The command line on files and options of every kind: exit code 0, 1 or 2, a line or two on stderr, no traceback."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcvx.cli.main import main

HEADERS = (["a", "b", "y"], ["a", "b", "y"], ["a", "a", "y"], ["a", "", "y"], ["y"], [], ["a", "b", "z"], ["a", "b"])
CELLS = ("", "nan", "inf", "-inf", "1e400", "x", "1,5", "True", "-", "1e-320", "1e300", "\x00", "é", '"', " 3 ")
WRONG: dict[str, tuple[str, ...]] = {
    "--beta": ("x", "-1", "nan", "inf", "1e-400x", ""),
    "--folds": ("0", "-3", "1", "x", "1.5"),
    "--test-fraction": ("2", "-1", "1", "nan", "x"),
    "--prove": ("-1", "nan", "inf", "x"),
    "--rule": ("nope",),
    "--tol": ("-1", "nan", "x"),
    "--seed": ("x", "-1"),
    "--loss": ("nope",),
    "--task": ("nope",),
    "--target": ("nope", ""),
}


def table(rng: np.random.Generator, flaw: int) -> bytes:
    """A CSV file, whole for flaw 0."""
    header = HEADERS[0] if flaw != 1 else HEADERS[rng.integers(2, len(HEADERS))]
    num = 12 if flaw != 2 else int(rng.integers(0, 3))
    rows = [[f"{x:.6g}" for x in rng.standard_normal(2)] + ["pq"[rng.integers(2)]] for _ in range(num)]
    if flaw == 3 and rows:
        rows[rng.integers(num)][rng.integers(2)] = CELLS[rng.integers(len(CELLS))]
    if flaw == 4:
        rows[rng.integers(num)] = ["1"] * int(rng.choice([1, 2, 4, 5]))
    if flaw == 5:
        rows = [[*row[:2], "same"] for row in rows]
    if flaw == 6:
        return rng.bytes(int(rng.integers(0, 300)))
    if flaw == 7:
        rows = [["5", "5", row[2]] for row in rows]
    return ("\n".join([",".join(header), *(",".join(row) for row in rows)]) + "\n").encode()


def run(capsys: Any, arguments: list[str]) -> tuple[int, str, str]:
    """Exit code and output; whatever main raises, but for argparse's exit, is a failure."""
    try:
        code = main(arguments)
    except SystemExit as exit_:  # argparse: usage and a line
        code = int(exit_.code or 0)
    shown = capsys.readouterr()
    assert code in (0, 1, 2), (arguments, code)
    assert "Traceback" not in shown.err + shown.out
    if code == 2:
        message = [line for line in shown.err.splitlines() if line.startswith(("jaxcvx", "python -m"))]
        assert message and len(message[-1]) < 700, shown.err
        assert "usage:" in shown.err or len(shown.err.splitlines()) <= 2, shown.err
    return code, shown.out, shown.err


def fuzz(capsys: Any, folder: Path, tries: int, train_every: int) -> None:
    """Random files and options; whole files with whole options, which are trained on, one in ``train_every``.

    The others have a fault that is seen before anything is trained.
    """
    counts: Counter = Counter()
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        whole = seed % train_every == train_every - 1
        path = folder / "data.csv"
        flaw = 0 if whole or rng.integers(3) == 0 else int(rng.choice([1, 2, 4, 6]))
        path.write_bytes(table(rng, flaw))
        options = {"--target": "y", "--beta": "0.5", "--folds": "2", "--prove": "0", "--out": str(folder / "out")}
        if not whole and flaw == 0:
            name = list(WRONG)[rng.integers(len(WRONG))]
            options[name] = WRONG[name][rng.integers(len(WRONG[name]))]
        arguments = ["train", str(path), *(part for pair in options.items() for part in pair), "--json"]
        if not whole and rng.integers(6) == 0:
            arguments = arguments[: int(rng.integers(0, 5))]
        code, out, _ = run(capsys, arguments)
        counts[code] += 1
        if code == 0 and "--json" in arguments:
            report = json.loads(out)
            assert report["lower_bound"] is None or report["lower_bound"] <= report["upper_bound"]
            assert np.isfinite(report["upper_bound"])
    print(f"train: {tries} inputs, {counts[2]} refused, {counts[0]} trained, {counts[1]} failed in numbers")


def test_bad_files_and_options(capsys, tmp_path):
    fuzz(capsys, tmp_path, 60, 1000)


@pytest.mark.soak
def test_many_files_and_options(capsys, tmp_path):
    fuzz(capsys, tmp_path, 600, 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "data.csv").write_bytes(table(np.random.default_rng(0), 0))
    arguments = ["--target", "y", "--beta", "0.5", "--folds", "2", "--prove", "1"]
    assert main(["train", str(folder / "data.csv"), *arguments, "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.parametrize("command", ["predict", "certify"])
def test_models_and_files_of_every_kind(command, capsys, model, tmp_path):
    counts: Counter = Counter()
    capsys.readouterr()
    stored = (model / "model.npz").read_bytes()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        path, broken = tmp_path / "data.csv", tmp_path / "model.npz"
        path.write_bytes(table(rng, seed % 8))
        data = bytearray(stored)
        if seed % 3 == 0:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif seed % 3 == 1:
            data = data[: rng.integers(len(data))]
        broken.write_bytes(bytes(data))
        target = (str(broken), str(model), str(tmp_path / "none"), str(path))[rng.integers(4)]
        code, out, _ = run(capsys, [command, target, str(path), "--json"])
        counts[code] += 1
        if code == 0:
            assert "nan" not in out.lower() or command == "certify"
            json.loads(out)
    print(f"{command}: 60 inputs, {counts[2]} refused, {counts[0]} answered, {counts[1]} failed in numbers")


def test_commands_of_every_kind(capsys):
    for arguments in ([], ["x"], ["--x"], ["train"], ["predict"], ["certify", "x"], ["train", "", "--out", ""],
                      ["bench", "nope"], ["experiment", "nope"], ["train", "/", "--out", "/dev/null/x"]):  # fmt: skip
        code, _, _ = run(capsys, arguments)
        assert code == 2, arguments
