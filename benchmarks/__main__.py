"""``python -m benchmarks [NAME ...] [--out DIR] [--quick] [--tables NAMES] [--parts NAMES] [--cache DIR]``."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import write_json

NAMES = (
    "path",
    "accuracy",
    "proof",
    "peers",
    "gated_vs_celer",
    "gated_vs_fista",
    "copositive_vs_scs",
    "training",
    "completion",
    "convex_path",
    "hypergradient",
    "scaling",
    "roofline",
    "large",
    "memory",
    "import_time",
)


DRAWN = ("path",)  # a picture is written beside these records


def extra_arguments(module: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The options ``--tables``, ``--parts`` and ``--cache`` where they are given and the benchmark knows them."""
    known = inspect.signature(module.run).parameters
    given = {"tables": options.tables, "parts": options.parts, "cache": options.cache}
    return {name: value for name, value in given.items() if value is not None and name in known}


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks (all by default). Return 0 if all ran, 2 for an unknown name or a missing package."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings against peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the JSON")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--tables", type=lambda text: text.split(","), help="data sets, with commas between them")
    parser.add_argument("--parts", type=lambda text: text.split(","), help="of a benchmark, with commas between them")
    parser.add_argument("--cache", type=Path, help="folder of answers that never change, as Adam's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    missing = False
    for name in options.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            extra = extra_arguments(module, options)
            result = module.run(quick=options.quick, **extra)
        except ImportError as err:
            print(f"{name}: skipped, {err} (pip install -e '.[bench]')", file=sys.stderr)
            missing = True
            continue
        parts = extra.get("parts", ())
        path = write_json(options.out, "-".join([name, *parts]), result)
        if name in DRAWN and not parts:
            from benchmarks.plots import draw_record

            draw_record(name, result, options.out / f"{name}.png")
        if options.json:
            print(json.dumps({name: result}))
            continue
        module.show(result)
        print(f"wrote {path}\n")
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
