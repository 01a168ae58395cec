"""Module paths, files and links in the pages exist; the glossary and the choice of solvers are complete."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pathlib
import re

import pytest

import jaxcvx
from jaxcvx.solvers.core.protocol import AnySolver

ROOT = pathlib.Path(__file__).parents[2]
AT_THE_ROOT = [page for name in ("README.md", "CONTRIBUTING.md") if (page := ROOT / name).exists()]
PAGES = [*AT_THE_ROOT, *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("jaxcvx", "tests", "docs", "benchmarks", "experiments", "notebooks")
DOTTED = re.compile(r"\bjaxcvx(?:\.[A-Za-z_]\w*)+")
IN_REPOSITORY = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?")


def resolve(dotted: str) -> object:
    """The module or attribute of this name.

    Raises:
      AttributeError: there is none.
    """
    first, *rest = dotted.split(".")
    value: object = importlib.import_module(first)
    path = first
    for name in rest:
        path += f".{name}"
        if not hasattr(value, name) and hasattr(value, "__path__") and importlib.util.find_spec(path):
            importlib.import_module(path)
        value = getattr(value, name)
    return value


def missing_names(text: str) -> list[str]:
    """Dotted names of the package in ``text`` that lead nowhere."""
    missing = []
    for dotted in sorted(set(DOTTED.findall(text))):
        try:
            resolve(dotted)
        except AttributeError:
            missing.append(dotted)
    return missing


def missing_files(text: str) -> list[str]:
    """Paths of the repository in ``text`` that do not exist; paths in code blocks are not looked at."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [path for path in sorted(set(IN_REPOSITORY.findall(prose))) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_paths_and_files_in_the_pages_exist(page):
    text = page.read_text()
    assert missing_names(text) == []
    assert missing_files(text) == []


def test_paths_that_do_not_exist_are_seen():
    assert missing_names("see jaxcvx.solvers.gated.program, jaxcvx.solve, jaxcvx.no_such.module, jaxcvx.Nobody") == [
        "jaxcvx.Nobody",
        "jaxcvx.no_such.module",
    ]
    assert missing_files("`tests/docs/test_references.py`, `tests/no_such_file.py` and docs/nowhere/") == [
        "docs/nowhere/",
        "tests/no_such_file.py",
    ]


def test_links_of_the_pages_at_the_root_exist():
    for page in AT_THE_ROOT:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (ROOT / target).exists(), f"{page.name}: {target}"


def test_every_public_solver_is_in_both_tables_of_choose_a_solver():
    solvers = {
        name
        for name, value in vars(jaxcvx).items()
        if inspect.isclass(value) and issubclass(value, AnySolver) and not inspect.isabstract(value)
    }
    text = (ROOT / "docs" / "how-to" / "choose-a-solver.md").read_text()
    programs, proofs = text.split("## Where they run")
    for section in (programs, proofs):
        rows = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
        assert {name for name in solvers if f"`{name}`" not in rows} == set()


def test_glossary_has_each_word_once_and_those_that_we_coined():
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [word for row in rows if row not in ("word",) and set(row) != {"-"} for word in row.split(", ")]
    assert len(words) == len(set(words)) > 60
    coined = {
        "row",
        "column",
        "block",
        "cell",
        "gate",
        "price",
        "pricing",
        "lower",
        "lift",
        "phase",
        "room",
    }
    assert coined <= set(words)
