"""Imports point one way: every module imports from its own layer or a lower one, and there are no circles."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxcvx"

# From the lowest to the highest. A line is a layer; its parts, split by "<", are ranked too. A module belongs to the
# part with the longest name that it begins with.
LAYERS = """
errors status
numerics atomic_file < serialisation datasets
proximal features
losses penalties < methods
arrangements operators transforms
problems
networks
pricing
certificates
solvers.core < solvers.neurons < solvers.gated < solvers.cone < solvers.polish solvers.copositive solvers.gradient \
solvers.closed_form < solvers.semi_infinite < solvers.improve
callbacks analysis plots
parallel integrations cli
_methods _moved < __init__
estimators flax torch parallel.demo
"""
RANKS = {
    name: rank
    for rank, names in enumerate(part for line in LAYERS.replace("\\\n", "").split("\n") for part in line.split("<"))
    for name in names.split()
}


def modules() -> dict[str, Path]:
    """Every module by its name below jaxcvx; that of a package is its folder's, the facade's is ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and parts[:-1] else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> list[tuple[str, int, bool]]:
    """What a file imports of the package, wherever it stands: (module, line, whether inside a function)."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] != "jaxcvx":
                continue
            below = name.removeprefix("jaxcvx").removeprefix(".") or "__init__"
            module = below if below in known else below.rpartition(".")[0] or "__init__"
            assert module in known, f"{path}:{node.lineno}: {name} is not a module of the package"
            found.append((module, node.lineno, id(node) in inside))
    return found


def rank(module: str) -> int:
    """The layer of a module."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in RANKS:
            return RANKS[".".join(parts[:length])]
    raise AssertionError(f"{module} belongs to no layer: add it to LAYERS in tests/test_layers.py")


def test_every_import_goes_to_the_same_or_a_lower_layer() -> None:
    known = modules()
    upward = [
        f"{path.relative_to(PACKAGE)}:{line} imports {target}, which is in a higher layer"
        for name, path in known.items()
        for target, line, _ in imports(path, known)
        if rank(target) > rank(name)
    ]
    assert upward == []


def test_no_import_of_our_own_inside_a_function() -> None:
    known = modules()
    local = [
        f"{path.relative_to(PACKAGE)}:{line} imports {target} inside a function"
        for path in known.values()
        for target, line, inside in imports(path, known)
        if inside
    ]
    assert local == []


def test_there_are_no_circles() -> None:
    known = modules()
    graph = {name: {target for target, _, _ in imports(path, known)} - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("limit", [400])
def test_no_file_is_too_long(limit: int) -> None:
    """One idea per module: the files of the package and of its tests."""
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "tests").rglob("*.py")]
    long = {str(f.relative_to(PACKAGE.parent)): n for f in files if (n := len(f.read_text().splitlines())) > limit}
    assert long == {}


def test_no_folder_of_solvers_has_too_many_files() -> None:
    folders = [PACKAGE / "solvers", *(f for f in (PACKAGE / "solvers").iterdir() if f.is_dir())]
    counts = {folder.name: len([f for f in folder.glob("*.py") if f.name != "__init__.py"]) for folder in folders}
    assert {name: count for name, count in counts.items() if count > 12} == {}


def statements(function: ast.AST) -> int:
    """Statements of a function, those of the functions inside it included."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1


def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}": statements(node)
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and statements(node) > 60
    }
    assert long == {}
