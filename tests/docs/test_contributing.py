"""CONTRIBUTING.md stays short and names every folder; the examples of docs/extend.md stay short."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
REPOSITORY = ("jaxcvx", "tests", "docs", "benchmarks", "experiments", "notebooks")
IN_PACKAGE = re.compile(r"`((?:\w+/)+)`")  # `numerics/` in the table


def test_contributing_is_short():
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 160


def test_folders_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = [folder for folder in IN_PACKAGE.findall(text) if folder.split("/")[0] not in REPOSITORY]
    assert len(named) >= 15
    assert [folder for folder in named if not (ROOT / "jaxcvx" / folder).is_dir()] == []
    folders = {path.parent.name for path in (ROOT / "jaxcvx").glob("*/__init__.py")}
    assert folders - {folder.rstrip("/") for folder in named} == set(), "a folder has no line in CONTRIBUTING.md"


def test_examples_of_the_page_extend_are_short():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL | re.MULTILINE)
    classes = [block for block in blocks if re.search(r"^class \w+\(jaxcvx\.", block, re.MULTILINE)]
    assert len(classes) == 5
    assert all(block.count("\n") < 60 for block in classes)
