"""The `jaxcvx` command: train, predict, certify, bench, experiment.

Exit codes: 0 success; 1 a solve failed numerically, but the results were written; 2 bad usage or bad data (a line or
two on stderr); 130 interrupted by Ctrl-C (one line).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from jaxcvx.cli.apply import certify_file, predict_file, write_predictions
from jaxcvx.cli.artifacts import write_artifacts
from jaxcvx.cli.notation import Notation
from jaxcvx.cli.pipeline import Settings, train
from jaxcvx.cli.report import SCOPES, build_report, finite, print_report
from jaxcvx.cli.tabular import Options, Schema, read_training_csv
from jaxcvx.datasets import DATASET_NAMES, load_dataset
from jaxcvx.errors import FileFormatError, JaxcvxError, invalid, require_extra

_CHECKOUT = "needs a checkout of the source: git clone the repository, install it there, and call it in its root"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxcvx", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a two-layer ReLU network, certify it, compare it with Adam")
    train.add_argument("data", help="one of " + ", ".join(DATASET_NAMES) + ", or a CSV file")
    train.add_argument("--target", help="target column of a CSV file (required there)")
    train.add_argument("--task", choices=("auto", "classification", "regression"), default="auto")
    _add_reader_options(train)
    train.add_argument("--beta", default="auto", help="weight decay: a number, or auto (by validation)")
    train.add_argument("--cells", type=int, default=256, help="arrangement cells to use (all, if few exist)")
    train.add_argument("--solver", choices=("auto", "gated", "cone"), default="auto")
    train.add_argument("--loss", choices=("auto", "squared", "logistic", "softmax", "huber", "hinge"), default="auto")
    train.add_argument("--test-fraction", type=float, default=0.2)
    train.add_argument("--width", type=int, default=64, help="neurons of the short Adam runs")
    train.add_argument("--tol", type=float, default=1e-5, help="relative gap of the convex program")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", required=True, help="directory for model.npz, report.json and pictures")
    train.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")

    predict = commands.add_parser("predict", help="predictions of a trained model for a CSV file")
    predict.add_argument("model", help="directory or model.npz written by train")
    predict.add_argument("file", help="CSV file with the model's feature columns")
    predict.add_argument("--output", help="write here instead of to standard output")
    predict.add_argument("--json", action="store_true", help="print JSON instead of CSV")

    certify = commands.add_parser("certify", help="bound how far a model is from the best on a CSV file")
    certify.add_argument("model", help="directory or model.npz written by train")
    certify.add_argument("file", help="CSV file with the model's feature columns and target")
    certify.add_argument("--method", choices=("auto", "exact", "relaxed"), default="auto")
    certify.add_argument("--json", action="store_true")

    for name, text in (("bench", "run the benchmarks"), ("experiment", "run an experiment")):
        extra = commands.add_parser(name, help=f"{text} (in a checkout)")
        extra.add_argument("names", nargs="*")
        extra.add_argument("--json", action="store_true")
    return parser


def _add_reader_options(parser: argparse.ArgumentParser) -> None:
    """The options on how a CSV file is read. The model keeps them for predict and certify."""
    group = parser.add_argument_group("CSV file")
    group.add_argument("--decimal", default=".", help="decimal mark")
    group.add_argument("--thousands", default="", help="mark between groups of digits")
    group.add_argument(
        "--na", action="extend", nargs="+", default=[], metavar="WORD", help="further words for missing values"
    )
    group.add_argument("--missing", choices=("impute", "error", "drop"), default="impute", help="missing cells")
    group.add_argument("--no-header", action="store_true", help="the columns have no names: call them c1, c2, ...")
    for choice, text in (
        ("drop", "leave columns out"),
        ("keep", "use columns that look like identifiers"),
        ("categorical", "the texts of these columns are categories"),
        ("datetime", "columns of dates; C=FORMAT gives their format, as in 01.02.2024: C=%%d.%%m.%%Y"),
    ):
        group.add_argument(f"--{choice}", action="extend", nargs="+", default=[], metavar="C", help=text)


def _reader_options(args: argparse.Namespace) -> Options:
    for name in ("decimal", "thousands"):
        mark = getattr(args, name)
        if len(mark) != (1 if name == "decimal" or mark else 0) or mark.isalnum() or mark in ("+", "-"):
            raise invalid(f"--{name}", repr(mark), "one mark that is no digit, letter or sign")
    if args.decimal == args.thousands:
        raise invalid("--thousands", repr(args.thousands), "another mark than --decimal")
    choices: dict[str, str] = {}
    for choice in ("drop", "keep", "categorical", "datetime"):
        for value in getattr(args, choice):
            column, equals, form = value.partition("=") if choice == "datetime" else (value, "", "")
            if column in choices:
                raise invalid(
                    f"--{choice}", repr(column), f"a column that --{choices[column].partition('=')[0]} does not name"
                )
            choices[column] = choice + equals + form
    notation = Notation(args.decimal, args.thousands, tuple(args.na))
    return Options(notation, args.missing, not args.no_header, tuple(choices.items()))


def _settings(args: argparse.Namespace) -> Any:
    beta: float | str = args.beta
    if beta != "auto":
        try:
            beta = float(beta)
        except ValueError:
            raise invalid("--beta", repr(beta), "a number >= 0, or auto") from None
        if not 0 <= beta < float("inf"):
            raise invalid("--beta", beta, "a number >= 0, or auto")
    if not 0 <= args.seed < 2**32:
        raise invalid("--seed", args.seed, "an integer from 0 to 2**32 - 1")
    for name in ("cells", "width"):
        if getattr(args, name) < 1:
            raise invalid(f"--{name}", getattr(args, name), "a positive integer")
    if not 0 < args.tol < 1:
        raise invalid("--tol", args.tol, "a number between 0 and 1")
    return Settings(beta, args.cells, args.solver, args.loss, args.test_fraction, args.width, args.seed, args.tol)


def _load(args: argparse.Namespace) -> Any:
    if args.data in DATASET_NAMES:
        data = load_dataset(args.data)
        return data, Schema.numeric(data.feature_names, "target")
    options = _reader_options(args)
    if not os.path.exists(args.data) and not args.data.lower().endswith(".csv"):
        raise invalid("data", repr(args.data), "a CSV file, or one of " + ", ".join(DATASET_NAMES))
    if args.target is None:
        raise invalid("--target", "nothing", "the name of the target column, for a CSV file")
    return read_training_csv(args.data, args.target, task=args.task, options=options)


@contextlib.contextmanager
def _progress(show: bool) -> Iterator[Callable[[str, float], None]]:
    """Show a progress bar on stderr, if asked; yields the function to which stages report their progress."""
    if not show:
        yield lambda stage, done: None
        return
    module: Any = require_extra("rich.progress", "cli")
    console = require_extra("rich.console", "cli").Console(stderr=True)  # type: ignore[attr-defined]
    bar = module.Progress(console=console, transient=True)
    with bar:
        task = bar.add_task("starting", total=1.0)

        def report(stage, done):
            bar.update(task, description=stage, completed=done)

        yield report


def _checkpoint(folder: str) -> str:
    """Path of the file from which ``train`` resumes after an interruption. It is removed when training is done."""
    return os.path.join(folder, "checkpoint.npz")


def _train(args: argparse.Namespace) -> int:
    settings = _settings(args)
    data, schema = _load(args)
    try:
        os.makedirs(args.out, exist_ok=True)
    except OSError as err:
        raise FileFormatError(f"--out: can't make the directory {args.out!r}: {err.strerror}.") from err
    checkpoint = _checkpoint(args.out)
    with _progress(sys.stderr.isatty() and not args.json) as report_stage:
        result = train(data, schema, settings, report_stage, checkpoint)
    report = build_report(data, settings, result)
    files = write_artifacts(args.out, report, result)
    with contextlib.suppress(FileNotFoundError):
        os.remove(checkpoint)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, files)
    return 1 if report["status"] in ("DIVERGED", "INFEASIBLE", "INVALID_INPUT") else 0


def _predict(args: argparse.Namespace) -> int:
    values, notes = predict_file(args.model, args.file)
    if args.json:
        print(json.dumps({"prediction": values, "notes": notes}))
    else:
        for note in notes:
            print(f"jaxcvx predict: {note}", file=sys.stderr)
        write_predictions(values, args.output)
    return 0


def _certify(args: argparse.Namespace) -> int:
    numbers = certify_file(args.model, args.file, args.method)
    if args.json:
        print(json.dumps(finite(numbers), indent=2))
        return 0
    print(f"training objective on {args.file} (beta {numbers['beta']:.6g}): {numbers['upper']:.8g}")
    print(f"lower bound: {numbers['lower']:.8g}, valid for {SCOPES[numbers['scope']]}")
    print(f"relative gap: {numbers['gap']:.3g}   metrics: {numbers['metrics']}")
    return 0


def _from_checkout(module: str, args: argparse.Namespace) -> int:
    sys.path.insert(0, os.getcwd())
    if importlib.util.find_spec(module) is None:
        raise invalid(f"jaxcvx {args.command}", f"no {module}/ package here", f"one: it {_CHECKOUT}")
    entry = importlib.import_module(f"{module}.__main__")
    return int(entry.main([*args.names, *(["--json"] if args.json else [])]) or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    handlers = {
        "train": _train,
        "predict": _predict,
        "certify": _certify,
        "bench": lambda a: _from_checkout("benchmarks", a),
        "experiment": lambda a: _from_checkout("experiments", a),
    }
    try:
        with jax.enable_x64(True):
            return handlers[args.command](args)
    except JaxcvxError as err:
        print(f"jaxcvx {args.command}: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = args.command == "train" and os.path.exists(_checkpoint(args.out))
        rest = f"; run the same command again to resume from {_checkpoint(args.out)}" if kept else ""
        print(f"jaxcvx {args.command}: interrupted{rest}", file=sys.stderr)
        return 130


def run() -> None:
    """Entry point of the console script: exits with the code of :func:`main`."""
    sys.exit(main())


if __name__ == "__main__":
    run()
