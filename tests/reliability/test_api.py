"""The public names and their arguments are those of api.txt: every change is seen.

After a change that is meant: ``python -m tests.reliability.test_api`` writes the file anew.
"""

from __future__ import annotations

import inspect
import types
from pathlib import Path

import jaxcvx
import jaxcvx.estimators
import jaxcvx.flax
import jaxcvx.parallel
import jaxcvx.plots
import jaxcvx.torch

SNAPSHOT = Path(__file__).parent / "api.txt"
MODULES = (jaxcvx, jaxcvx.errors, jaxcvx.estimators, jaxcvx.flax, jaxcvx.parallel, jaxcvx.plots, jaxcvx.torch)


def describe(name: str, value: object) -> list[str]:
    """A name with its arguments (those with defaults marked), and a class's public attributes.

    Attributes inherited from the package's own base classes are listed too: one that moves to a base is not lost.
    """
    if not callable(value):
        return [f"{name}: {type(value).__name__}"]
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return [name]
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    marks[inspect.Parameter.KEYWORD_ONLY] = "keyword "
    shown = [f"{marks.get(p.kind, '')}{p.name}{'' if p.default is p.empty else '='}" for p in parameters]
    lines = [f"{name}({', '.join(shown)})"]
    if inspect.isclass(value):
        own_bases = [base for base in reversed(value.__mro__) if base.__module__.split(".")[0] == "jaxcvx"]
        members = {attribute: member for base in own_bases for attribute, member in vars(base).items()}
        for attribute, member in sorted(members.items()):
            if not attribute.startswith("_") and isinstance(member, types.FunctionType | property | classmethod):
                lines.append(f"{name}.{attribute}")
    return lines


def public_names() -> list[str]:
    """Everything that users may rely on."""
    lines = []
    for module in MODULES:
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in sorted(names):
            value = getattr(module, name)
            if not isinstance(value, types.ModuleType) and getattr(value, "__module__", "jaxcvx").startswith("jaxcvx"):
                lines += describe(f"{module.__name__}.{name}", value)
    return lines


def test_public_names_are_those_of_the_snapshot() -> None:
    found, kept = public_names(), SNAPSHOT.read_text().splitlines()
    print(f"{len(found)} public names")
    assert sorted(set(kept) - set(found)) == [], "gone or changed"
    assert sorted(set(found) - set(kept)) == [], "new: python -m tests.reliability.test_api"


def test_names_of_the_package_exist_once_and_are_documented() -> None:
    assert len(set(jaxcvx.__all__)) == len(jaxcvx.__all__)
    bare = [n for n in jaxcvx.__all__ if n != "errors" and not inspect.getdoc(getattr(jaxcvx, n))]
    assert bare == []


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(public_names()) + "\n")
