"""A process that solves one case with a checkpoint, slowly, to be killed: python -m tests.reliability.long_solve ..."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time

import jax

import jaxcvx
from tests.reliability.cases import CASES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("path", help="checkpoint")
    parser.add_argument("result", help="the solution goes here")
    parser.add_argument("--every", type=int, default=1, help="steps between two writes")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each block of steps")
    parser.add_argument("--file-limit", type=int, help="bytes that a file may have: writing more fails")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with it ignored

    def slow(info: jaxcvx.StepInfo) -> bool:
        print(info.step, flush=True)
        time.sleep(args.pause)
        return False

    if args.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.file_limit, resource.RLIM_INFINITY))
    try:
        with jax.enable_x64(True):
            solution = CASES[args.case].solve(callback=[jaxcvx.Checkpoint(args.path, every=args.every), slow])
            jaxcvx.save(args.result, solution)
    except jaxcvx.JaxcvxError as err:
        print(err, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
