"""The examples in docstrings run, in jax's default precision, and print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import jaxcvx

PACKAGE = Path(jaxcvx.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def count_examples(path: Path) -> int:
    """Number of lines of a file that begin with ``>>>``, without examples that are marked to be skipped."""
    return sum(line.lstrip().startswith(">>>") and "+SKIP" not in line for line in path.read_text().splitlines())


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if count_examples(path)}


@pytest.mark.examples
@pytest.mark.float32
@pytest.mark.parametrize("name", FILES)
def test_examples_run(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    attempted = 0
    for test in doctest.DocTestFinder().find(importlib.import_module(name)):
        attempted += doctest.DocTestRunner(optionflags=FLAGS).run(test, clear_globs=True).attempted
    report = capsys.readouterr().out
    assert not report, report
    assert attempted == count_examples(FILES[name]), "doctest did not find all examples of the file"


def test_public_things_with_examples_are_found():
    assert {"jaxcvx.numerics.safe", "jaxcvx.networks.network", "jaxcvx.problems.training"} <= FILES.keys()
