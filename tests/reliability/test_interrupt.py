"""A solve that is killed, interrupted or starved of disk goes on from its checkpoint, and ends in the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxcvx
from jaxcvx import serialisation
from jaxcvx.cli.model import load_model
from jaxcvx.errors import FileFormatError
from tests.cases import Case
from tests.reliability.cases import DRIVEN, HOSTED, differing

ROOT = Path(__file__).parents[2]
DEFAULT = ("adam", "gated", "cone", "noise", "svd")  # the others compile for longer: with -m soak


@pytest.fixture(autouse=True, scope="module")
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers share what they compile, with nobody else: one that is killed might leave half a file there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        yield


def some(names: Any, default: tuple[str, ...] = DEFAULT) -> list[Any]:
    return [name if name in default else pytest.param(name, marks=pytest.mark.soak) for name in names]


def run(case: Case, path: Path, *, stop_after: int | None = None, **options: Any) -> tuple[Any, list[Any]]:
    """Solve with a checkpoint; raise KeyboardInterrupt in the given call of a callback. Solution and what was seen."""
    seen: list[Any] = []

    def watch(info: Any) -> bool:
        seen.append(info)
        if len(seen) == stop_after:
            raise KeyboardInterrupt
        return False

    try:
        return case.solve(callback=[jaxcvx.Checkpoint(path, **options), watch]), seen
    except KeyboardInterrupt:
        return None, seen


@pytest.mark.rare("cone")
@pytest.mark.parametrize("name", some(DRIVEN))
def test_every_solver_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    """Interrupted again and again, with a file written at every block, or at the interruption only."""
    case = DRIVEN[name]
    whole, seen = run(case, tmp_path / "whole.npz")
    compared = 0
    for every in (1, 10**6):
        path, steps, resumed = tmp_path / f"{every}.npz", [], None
        while resumed is None:
            resumed, after = run(case, path, stop_after=len(seen) // 4 + 1, every=every)
            steps += [info.step for info in after]
            case = case._replace(key=None)  # it is in the file
        assert differing(whole, resumed) == []
        assert steps == [info.step for info in seen]
        again, none = run(case, path)
        assert differing(whole, again) == [] and not none  # a solve that has ended takes no step
        case, compared = DRIVEN[name], compared + 2
    print(f"{name}: {compared} resumed solves of {len(seen)} blocks compared, all the same bits")


@pytest.mark.float32
@pytest.mark.parametrize("name", some(("adam", "cone", "gated", "copositive"), ("adam",)))
def test_in_single_precision_too(tmp_path: Path, name: str) -> None:
    whole, seen = run(DRIVEN[name], tmp_path / "whole.npz")
    run(DRIVEN[name], tmp_path / "cut.npz", stop_after=max(1, len(seen) // 2))
    resumed, _ = run(DRIVEN[name], tmp_path / "cut.npz")
    assert differing(whole, resumed) == []


@pytest.mark.parametrize("name", some(("columns", "cuts"), ("columns",)))
def test_loops_on_the_host_end_within_their_tolerance(tmp_path: Path, name: str) -> None:
    whole, seen = run(HOSTED[name], tmp_path / "whole.npz")
    assert len(seen) > 1
    run(HOSTED[name], tmp_path / "cut.npz", stop_after=len(seen) // 2 + 1)
    resumed, _ = run(HOSTED[name], tmp_path / "cut.npz")
    assert resumed.converged
    np.testing.assert_allclose(resumed.upper_bound, whole.upper_bound, rtol=2 * HOSTED[name].solver.tol)


@contextlib.contextmanager
def worker(*args: Any, module: str = "tests.reliability.long_solve") -> Iterator[subprocess.Popen]:
    """A process in the checkout's root that is ended when the block is left."""
    # A background job of a shell starts with SIGINT ignored.
    start = (
        f"import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", start, *map(str, args)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until_it_runs(process: subprocess.Popen) -> None:
    assert process.stdout is not None and process.stdout.readline(), process.stderr.read()  # type: ignore[union-attr]


def finished(*args: Any) -> Any:
    """The solution that a worker ends with."""
    with worker(*args) as process:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    return jaxcvx.load(args[2])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The solution of the case "adam" by a worker that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    return finished("adam", folder / "whole.npz", folder / "whole")


def killed(rng: random.Random, *args: Any) -> int:
    """Kill a worker at a random moment of its solve: 1, or 0 where it had ended already."""
    with worker(*args, "--pause", 0.05) as process:
        if not process.stdout.readline():  # type: ignore[union-attr]
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors  # there was nothing left to do
            return 0
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL)
        return int(process.returncode != 0)


def steps_in(path: Path) -> int:
    state = jaxcvx.load(path)["state"]
    return int(state[".before"]) + int(state[".state.step"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("adam", 0),
        *(
            pytest.param(name, seed, marks=pytest.mark.soak)
            for seed, name in enumerate(("adam", "minibatches", "noise", "gated", "gated-accelerated", "cone") * 2, 1)
        ),
    ],
)
def test_killed_at_random_moments(tmp_path: Path, name: str, seed: int, uninterrupted: Any) -> None:
    """SIGKILL, five times over, each start going on from what the last one left."""
    rng, path, kills, before = random.Random(seed), tmp_path / "run.npz", 0, 0
    whole = uninterrupted if name == "adam" else finished(name, tmp_path / "whole.npz", tmp_path / "whole")
    for _ in range(5):
        kills += killed(rng, name, path, tmp_path / "none")
        if path.exists():  # never torn, never older than the one before
            assert steps_in(path) >= before
            before = steps_in(path)
    resumed = finished(name, path, tmp_path / "resumed")
    assert differing(whole, resumed) == []
    others = set() if name == "adam" else {"whole.npz", "whole"}
    assert sorted(os.listdir(tmp_path)) == sorted({"run.npz", "resumed", *others, *_ended(tmp_path)})
    assert kills >= 3 and before > 0
    print(f"{name}: killed {kills} times, the last time after step {before}; then the same bits as without")


def _ended(folder: Path) -> set[str]:
    """The result of a worker that was faster than its end."""
    return {"none"} & set(os.listdir(folder))


def test_ctrl_c_keeps_the_last_state(tmp_path: Path, uninterrupted: Any) -> None:
    """Nothing is written before: ``every`` is large."""
    path = tmp_path / "run.npz"
    with worker("adam", path, tmp_path / "none", "--every", 10**6, "--pause", 0.02) as process:
        until_it_runs(process)
        time.sleep(0.2)
        assert not path.exists()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.splitlines() == ["interrupted"]
    assert 0 < steps_in(path) < int(uninterrupted.num_steps)
    assert differing(uninterrupted, finished("adam", path, tmp_path / "resumed")) == []


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a flipped bit": lambda data: data[:700] + bytes([data[700] ^ 4]) + data[701:],
    "foreign": lambda data: b"PK\3\4 something else",
}


@pytest.mark.parametrize("damage", [*DAMAGE, "newer"])
def test_damaged_checkpoints_are_refused_and_kept(tmp_path: Path, damage: str, monkeypatch: Any) -> None:
    """Also the checkpoint that lies beside it is as it was."""
    path, other = tmp_path / "run.npz", tmp_path / "earlier.npz"
    run(DRIVEN["adam"], path, stop_after=3)
    other.write_bytes(path.read_bytes())
    if damage == "newer":
        with monkeypatch.context() as patch:
            patch.setattr(serialisation, "VERSION", serialisation.VERSION + 1)
            serialisation.save(path, jaxcvx.load(other))
    else:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    before = path.read_bytes()
    words = "newer jaxcvx" if damage == "newer" else "damaged|truncated|not a jaxcvx"
    with pytest.raises(FileFormatError, match=words):
        run(DRIVEN["adam"], path)
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["earlier.npz", "run.npz"]
    resumed, seen = run(DRIVEN["adam"], other)
    assert seen[0].step == 30 and resumed.num_steps == 300


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of so many bytes in ``folder``, where we may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def starved(path: Path, tmp_path: Path, *options: Any) -> None:
    """A resumed worker that can write nothing ends with one clear line, and all is as before."""
    before, files = path.read_bytes(), sorted(os.listdir(path.parent))
    with worker("adam", path, tmp_path / "none", *options) as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 2 and len(errors.splitlines()) == 1
    assert errors.startswith(f"cannot write {path}: ") and ("too large" in errors or "No space" in errors)
    assert path.read_bytes() == before and sorted(os.listdir(path.parent)) == files


def test_a_full_disk_loses_nothing(tmp_path: Path, uninterrupted: Any) -> None:
    path = tmp_path / "run.npz"
    run(DRIVEN["adam"], path, stop_after=10)
    starved(path, tmp_path, "--file-limit", path.stat().st_size // 2)
    tried = "a limit on file sizes"
    with small_disk(tmp_path / "disk", 64 * 1024) as mounted:
        if mounted:
            small = tmp_path / "disk" / "run.npz"
            small.write_bytes(path.read_bytes())
            with contextlib.suppress(OSError), open(small.parent / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(b"x" * 512)
            starved(small, tmp_path)
            (small.parent / "filler").unlink()
            assert differing(uninterrupted, finished("adam", small, tmp_path / "resumed")) == []
            tried += " and a full file system"
    assert differing(uninterrupted, finished("adam", path, tmp_path / "resumed")) == []
    print(f"tried {tried}")


SAVE_UNDER_LIMITS = """
import os, resource, sys
import numpy as np
from jaxcvx import errors, serialisation
path, arrays = sys.argv[1], [np.zeros(1000), np.ones(50)]
serialisation.save(path, ["old"])
old, size, refused = open(path, "rb").read(), 12_000, 0
for limit in range(0, size, 150):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        serialisation.save(path, arrays)
        break
    except errors.FileFormatError as err:
        refused += 1
        assert "File too large" in str(err), err
    assert open(path, "rb").read() == old and os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
print(refused, os.path.getsize(path))
"""


def test_wherever_the_disk_is_full_the_old_file_stays(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    command = [sys.executable, "-c", SAVE_UNDER_LIMITS, str(tmp_path / "x" / "file.npz")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    refused, size = map(int, done.stdout.split())
    assert 8400 < size < 12_000 and refused == -(-size // 150)  # every limit below the size was refused
    print(f"{refused} limits refused")


FILES = ["effects.png", "model.npz", "path.png", "proof.png", "report.html", "report.json", "training.npz"]


def training(tmp_path: Path, *options: Any) -> list[Any]:
    """Arguments that train for a while."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.standard_normal((60, 12)), rng.standard_normal(60)])
    names = ",".join([*(f"c{k}" for k in range(12)), "y"])
    (tmp_path / "data.csv").write_text("\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return ["train", tmp_path / "data.csv", "--beta", "0.5", "--folds", "2", "--out", tmp_path / "out", *options]


def test_ctrl_c_during_train(tmp_path: Path) -> None:
    """Early it interrupts. During the proof it ends the proof, and all is written with the bound so far."""
    args, out = training(tmp_path, "--prove", "600", "--tol", "1e-6"), tmp_path / "out"
    for wanted in (out, out / "model.npz"):
        with worker(*args, module="jaxcvx.cli.main") as process:
            while not wanted.exists():
                assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
                time.sleep(0.02)
            time.sleep(1.0 if wanted == out else 10.0)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=300)
        if wanted == out:
            assert process.returncode == 130 and output == "", (output, errors)
            assert errors.splitlines()[-1] == "jaxcvx train: interrupted" and os.listdir(out) == []
    assert process.returncode == 0 and "press Ctrl-C again" in errors, errors
    assert sorted(os.listdir(out)) == FILES
    report = json.loads((out / "report.json").read_text())
    assert report["status"] == "STOPPED" and report["lower_bound"] < report["upper_bound"]


@pytest.mark.soak
def test_kill_at_random_moments(tmp_path: Path) -> None:
    """The same command trains anew, and a model is never one that does not load."""
    args, out = training(tmp_path, "--prove", "5"), tmp_path / "out"
    rng = np.random.default_rng(1)
    for _ in range(10):
        with worker(*args, module="jaxcvx.cli.main") as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(float(rng.uniform(1, 45)))
            process.kill()
        if (out / "model.npz").exists():
            load_model(out)
    with worker(*args, module="jaxcvx.cli.main") as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert [name for name in sorted(os.listdir(out)) if not name.startswith(".")] == FILES
