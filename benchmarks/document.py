"""The tables of the documentation, made from the records: ``python -m benchmarks.document`` rewrites them in place.

A table stands between ``<!-- record: NAME -->`` and ``<!-- end of record -->``. The tests make every table again and
compare, so the documentation cannot contradict the records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.path import EXCESS, LIMITS, verdicts

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "performance.md")
_BLOCK = re.compile(r"(<!-- record: ([a-z_]+) -->\n).*?(<!-- end of record -->)", re.DOTALL)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _table_name(row: dict[str, Any]) -> str:
    return f"{row['table'].replace('_', ' ')} ({', '.join(map(str, row['size']))})"


def path(record: dict[str, Any]) -> str:
    """Times in Adam runs, excess in per cent before and after the finish, and neurons, for every table."""
    rows = []
    for row in record["tables"]:
        ratios = [f"{row['ratios'][name]:.1f}" for name in LIMITS]
        excess = []
        for each in row["betas"]:
            digits = 4 if abs(each["excess"]["after"]) < 1e-3 else 2
            excess.append(" / ".join(f"{100 * each['excess'][when]:+.{digits}f}" for when in ("before", "after")))
        neurons = ", ".join(str(each["neurons"]["after"]) for each in row["betas"])
        others = ", ".join(str(each["adam"]["neurons"]) for each in row["betas"])
        rows.append([_table_name(row), f"{row['seconds']['adam']['median']:.2f}", *ratios, *excess, neurons, others])
    fractions = [f"{fraction:g}" for fraction in EXCESS]
    header = ["table (n, p, c)", "Adam, s", "path", "one beta", "folds", *fractions, "neurons", "Adam's"]
    return markdown(header, rows)


def path_aims(record: dict[str, Any]) -> str:
    """How many tables reach each aim."""
    rows = [[text, f"{reached} of {number}"] for text, reached, number in verdicts(record)]
    return markdown(["aim", "reached"], rows)


def growth(record: dict[str, Any]) -> str:
    """Time and memory of a path against the number of rows."""
    rows = [[str(c["n"]), f"{c['seconds']:.1f}", f"{c['peak_bytes'] / 2**20:.0f}"] for c in record["growth"]]
    return markdown(["rows", "path, s", "peak memory of the process, MiB"], rows)


def proof(record: dict[str, Any]) -> str:
    """The proved gap of every table and beta beside its aim."""
    rows = []
    for row in record["rows"]:
        gap = f"{100 * row['gap']:.3f} %"
        gap = gap if row["gap"] <= row["aim"] * (1 + 1e-9) else f"**{gap}**"
        aim, seconds = f"{100 * row['aim']:g} %", f"{row['seconds']:.1f}"
        rows.append([_table_name(row), f"{row['fraction']:g}", gap, aim, seconds, str(row["nodes"])])
    return markdown(["table (n, p, c)", "beta / beta_max", "proved gap", "aim", "seconds", "nodes"], rows)


MAKERS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "path": ("path", path),
    "path_aims": ("path", path_aims),
    "growth": ("path", growth),
    "proof": ("proof", proof),
}


def renewed(text: str) -> str:
    """The text of a page with all tables made from the records."""

    def block(found: re.Match[str]) -> str:
        record, make = MAKERS[found[2]]
        return found[1] + make(json.loads((RESULTS / f"{record}.json").read_text())) + found[3]

    return _BLOCK.sub(block, text)


def main() -> None:
    """Rewrite the pages."""
    for page in PAGES:
        page.write_text(renewed(page.read_text()))


if __name__ == "__main__":
    main()
