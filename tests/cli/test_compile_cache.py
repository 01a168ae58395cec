"""The cache of compiled programs: where it is, and that nothing in it can break a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from jaxcvx.cli.compile_cache import cache_folder, prune

RUN = """
import jax, sys
from jaxcvx.cli.compile_cache import use_compile_cache
print(use_compile_cache())
print(float(jax.jit(lambda x: x * 3.0 + 1.25)(2.0)))
"""


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAXCVX_CACHE": "/a/b"}, "/a/b"),
        ({"JAXCVX_CACHE": "/a/b", "JAX_COMPILATION_CACHE_DIR": "/c"}, "/a/b"),
        ({"JAXCVX_CACHE": "off"}, None),
        ({"JAXCVX_CACHE": ""}, None),
        ({"JAXCVX_CACHE": "0", "XDG_CACHE_HOME": "/x"}, None),
        ({"JAX_COMPILATION_CACHE_DIR": "/c"}, None),
        ({"XDG_CACHE_HOME": "/x"}, "/x/jaxcvx/programs"),
        ({}, os.path.join(os.path.expanduser("~"), ".cache", "jaxcvx", "programs")),
    ],
)
def test_where_the_cache_is(environment, folder):
    assert cache_folder(environment) == folder


def started(folder, **more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMP")} | {"JAXCVX_CACHE": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", RUN], env=environment | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.splitlines()[1] == "7.25"
    return output.splitlines()[0], errors


def test_programs_are_kept_and_broken_files_cost_only_time(tmp_path):
    pair = [started(tmp_path), started(tmp_path)]  # at once
    for process in pair:
        assert ended(process)[0] == str(tmp_path)
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    assert files
    for place, file in enumerate(files):
        file.write_bytes(b"garbage" if place % 2 else file.read_bytes()[:-20])
    _, errors = ended(started(tmp_path))
    assert "Traceback" not in errors


def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    assert ended(started(tmp_path / "file" / "cache"))[0] == "None"


def test_the_oldest_files_go_first(tmp_path):
    for age, name in ((300, "old"), (200, "middle"), (100, "new"), (0, "now")):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    prune(str(tmp_path), 400)
    assert len(list(tmp_path.iterdir())) == 4
    prune(str(tmp_path), 250)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "now"]
    prune(str(tmp_path), 0)
    assert [file.name for file in tmp_path.iterdir()] == ["now"]  # it may still be written
    prune(str(tmp_path / "missing"))
