"""``python -m experiments [NAME ...] [--quick] [--out DIR] [--json]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.common import write_json

NAMES = (
    "spiral",
    "planted",
    "whitened",
    "convolution",
    "exactness",
    "cost",
    "annealed_noise",
    "shortest_path",
    "low_rank",
    "one_bit",
    "line",
    "width",
    "accuracy",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named experiments (all by default). Return 0 if all ran, 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description="The paper's claims, computed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"), help="folder for JSON and PNG")
    parser.add_argument("--quick", action="store_true", help="small instances, to see that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no experiment {unknown[0]!r}; there are: {', '.join(NAMES)}")
    for name in options.names or NAMES:
        module = importlib.import_module(f"experiments.{name}")
        began = time.process_time()
        with jax.enable_x64(True):
            result = module.run(quick=options.quick)
        result["cpu_seconds"] = time.process_time() - began
        path = write_json(options.out, name, result)
        module.draw(result, path.with_suffix(".png"))
        if options.json:
            print(json.dumps({name: result}))
            continue
        module.show(result)
        print(f"wrote {path} and its picture, {result['cpu_seconds']:.0f} CPU seconds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
