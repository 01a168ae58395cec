"""``python -m benchmarks [NAME ...] [--out DIR] [--quick]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from benchmarks.common import write_json

NAMES = (
    "peers",
    "gated_vs_celer",
    "gated_vs_fista",
    "copositive_vs_scs",
    "training",
    "completion",
    "path",
    "hypergradient",
    "scaling",
    "roofline",
    "large",
    "memory",
    "import_time",
)


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks (all by default). Return 0 if all ran, 2 for an unknown name or a missing package."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings against peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the JSON")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    missing = False
    for name in options.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        try:
            result = module.run(quick=options.quick)
        except ImportError as err:
            print(f"{name}: skipped, {err} (pip install -e '.[bench]')", file=sys.stderr)
            missing = True
            continue
        path = write_json(options.out, name, result)
        if options.json:
            print(json.dumps({name: result}))
            continue
        module.show(result)
        print(f"wrote {path}\n")
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
