"""Every work that a docstring cites has an entry in docs/bibliography.md, and every entry is cited."""

from __future__ import annotations

import ast
import pathlib
import re
import unicodedata

ROOT = pathlib.Path(__file__).parents[2]
CITED = re.compile(r"(?:[A-Z][\w'.-]*,? |al\. |\()((?:19|20)\d\d)\b")
REACH = 300  # characters before a year in which an author's name must stand


def plain(text: str) -> str:
    """Without accents, with single spaces, and with the two spellings of umlauts as one."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"\s+", " ", ascii_only).replace("Loewner", "Lowner").replace("Duer", "Dur")


def docstrings() -> list[tuple[str, str]]:
    """(file, docstring) of every module, class and function of the package."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [
        (str(path.relative_to(ROOT)), plain(text))
        for path in sorted((ROOT / "jaxcvx").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, nodes) and (text := ast.get_docstring(node))
    ]


def entries() -> list[tuple[list[str], str]]:
    """(surnames, year) of every entry."""
    rows = re.findall(r"^\| ([^|]+?) \((\d{4})\)\. \*", (ROOT / "docs" / "bibliography.md").read_text(), re.MULTILINE)
    return [([author.split()[-1] for author in re.split(r", | and ", plain(authors))], year) for authors, year in rows]


def test_bibliography_has_no_duplicate_entry() -> None:
    keys = [(tuple(authors), year) for authors, year in entries()]
    assert len(keys) == len(set(keys)) > 40


def test_every_citation_has_an_entry() -> None:
    known = entries()
    missing = []
    for file, text in docstrings():
        for match in CITED.finditer(text):
            before = text[max(0, match.start(1) - REACH) : match.start(1)]
            if not any(year == match[1] and any(name in before for name in authors) for authors, year in known):
                missing.append(f"{file}: ...{before[-60:]}{match[1]}")
    assert missing == []


def test_every_entry_is_cited() -> None:
    texts = [text for _, text in docstrings()]
    unused = [
        f"{authors[0]} {year}"
        for authors, year in entries()
        if not any(year in text and authors[0] in text for text in texts)
    ]
    assert unused == []
