"""Two versions of the library side by side: ``python -m benchmarks.pairs OLD NEW``, two checkouts of the repository.

Each version runs in a process of its own. The two take turns on every case, so that both see the same load; the ratio
is that of the medians, new / old. Cases: those of ``benchmarks.peers`` and one of each other kind of solver.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.common import print_table
from benchmarks.workers.solves import CASES

WORKER = pathlib.Path(__file__).parent / "workers" / "solves.py"


class Version:
    """A process that times solves with the library of one checkout."""

    def __init__(self, folder: str) -> None:
        path = os.pathsep.join([str(pathlib.Path(folder).resolve()), str(WORKER.parents[2])])
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, case: int) -> dict[str, Any]:
        """One timed solve."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(case, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def compare(old: Version, new: Version, case: int, repeats: int) -> dict[str, Any]:
    """Time one case in turns."""
    answers: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
    for k in range(repeats):
        for name in ("old", "new") if k % 2 == 0 else ("new", "old"):
            answers[name].append((old if name == "old" else new).run(case))
    median = {name: statistics.median(a["seconds"] for a in each) for name, each in answers.items()}
    return {
        "case": CASES[case][0],
        **{f"{name} seconds": median[name] for name in answers},
        "ratio": median["new"] / median["old"],
        **{f"{name} first": each[0]["first"] for name, each in answers.items()},
        **{f"{name} steps": each[0]["steps"] for name, each in answers.items()},
        "change of objective": answers["new"][0]["objective"] / answers["old"][0]["objective"] - 1,
    }


def main() -> None:
    """Compare on all cases, or on those named by number."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description=__doc__)
    parser.add_argument("old", help="a checkout of the repository")
    parser.add_argument("new", help="another one")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="by number, from 0")
    options = parser.parse_args()
    old, new = Version(options.old), Version(options.new)
    rows = []
    for case in options.cases:
        rows.append(compare(old, new, case, options.repeats))
        print(json.dumps(rows[-1]), flush=True)
    print_table(
        "new against old, warm",
        ("case", "old s", "new s", "ratio", "old first", "new first", "steps", "change of objective"),
        [
            (
                r["case"], f"{r['old seconds']:.3f}", f"{r['new seconds']:.3f}", f"{r['ratio']:.2f}",
                f"{r['old first']:.1f}", f"{r['new first']:.1f}", f"{r['old steps']} / {r['new steps']}",
                f"{r['change of objective']:.1e}",
            )
            for r in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
