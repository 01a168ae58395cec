"""The `jaxcvx` command: train, predict, certify, bench, experiment.

Exit codes: 0 success, also where the gap stayed open; 2 bad usage or bad data (a line or two on stderr); 130
interrupted by Ctrl-C (one line).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import jax

from jaxcvx.analysis.cross_validation import RULES
from jaxcvx.cli.apply import certify_model, describe, predict_file, write_predictions
from jaxcvx.cli.artifacts import write_artifacts, write_model
from jaxcvx.cli.compare import compare
from jaxcvx.cli.compile_cache import use_compile_cache
from jaxcvx.cli.notation import Notation
from jaxcvx.cli.phases import Compilations, Phases, stop_on_interrupt
from jaxcvx.cli.pipeline import Settings, percent, train
from jaxcvx.cli.report import build_report, finite, print_report
from jaxcvx.cli.tabular import Options, Schema, read_training_csv
from jaxcvx.datasets import DATASET_NAMES, load_dataset
from jaxcvx.errors import FileFormatError, JaxcvxError, invalid
from jaxcvx.status import StepInfo

_CHECKOUT = "needs a checkout of the source: git clone the repository, install it there, and call it in its root"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxcvx", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a two-layer ReLU network, choose beta in folds, prove a bound")
    train.add_argument("data", help="a CSV, Parquet or Excel file, or one of " + ", ".join(DATASET_NAMES))
    train.add_argument("--target", help="target column of the file; by default one named so, else the last")
    train.add_argument("--task", choices=("auto", "classification", "regression"), default="auto")
    _add_reader_options(train)
    train.add_argument("--loss", choices=("auto", "squared", "logistic", "softmax", "huber"), default="auto")
    train.add_argument("--beta", default="auto", help="weight decay: a number, or auto (by cross-validation)")
    rules = "the beta of the best score, or the largest one whose score is within one standard error of it"
    train.add_argument("--rule", choices=RULES, default="best", help=rules)
    train.add_argument("--folds", type=int, default=5, help="folds of the cross-validation")
    train.add_argument("--prove", type=float, default=60.0, metavar="SECONDS", help="time of the proof; 0: no proof")
    train.add_argument("--tol", type=float, default=1e-2, help="relative gap at which the proof ends")
    train.add_argument("--test-fraction", type=float, default=0.0, help="share of rows held out for a last test")
    train.add_argument("--compare", action="store_true", help="train Adam and scikit-learn's models as well")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", required=True, help="directory for model.npz, report.html, report.json, pictures")
    train.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    train.add_argument("--quiet", action="store_true", help="no lines on what is being done")

    predict = commands.add_parser("predict", help="predictions of a trained model for a CSV file")
    predict.add_argument("model", help="directory or model.npz written by train")
    predict.add_argument("file", help="CSV file with the model's feature columns")
    predict.add_argument("--proba", action="store_true", help="add the probability of every class")
    predict.add_argument("--id", metavar="COLUMN", help="a column of the file that comes first in the output")
    predict.add_argument("--output", help="write here instead of to standard output")
    predict.add_argument("--json", action="store_true", help="print JSON instead of CSV")

    certify = commands.add_parser("certify", help="check a model's certificate, and go on with its proof")
    certify.add_argument("model", help="directory or model.npz written by train")
    certify.add_argument("file", nargs="?", help="a file with features and target; the training rows by default")
    certify.add_argument("--seconds", type=float, default=60.0, help="time of the proof; 0: only check")
    certify.add_argument("--tol", type=float, default=1e-2, help="relative gap at which the proof ends")
    certify.add_argument("--as-training-data", action="store_true", help="bound the objective on other rows too")
    certify.add_argument("--method", choices=("auto", "exact", "branch", "relaxed"), default="auto")
    certify.add_argument("--json", action="store_true")
    certify.add_argument("--quiet", action="store_true", help="no lines on what is being done")

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


def _settings(args: argparse.Namespace) -> Settings:
    beta: float | str = args.beta
    if beta != "auto":
        try:
            beta = float(beta)
        except ValueError:
            raise invalid("--beta", repr(beta), "a number > 0, or auto") from None
        if not 0 < beta < float("inf"):
            raise invalid("--beta", beta, "a number > 0, or auto")
    if not 0 <= args.seed < 2**32:
        raise invalid("--seed", args.seed, "an integer from 0 to 2**32 - 1")
    if args.folds < 2:
        raise invalid("--folds", args.folds, "an integer >= 2")
    if not 0 <= args.test_fraction < 1:
        raise invalid("--test-fraction", args.test_fraction, "a number from 0 to below 1")
    _check_proof("--prove", args.prove, args.tol)
    return Settings(
        beta, args.loss, args.folds, args.prove, args.tol, args.test_fraction, args.compare, args.seed, args.rule
    )


def _check_proof(option: str, seconds: float, tol: float) -> None:
    if not 0 <= seconds < float("inf"):
        raise invalid(option, seconds, "seconds >= 0")
    if not 0 < tol < 1:
        raise invalid("--tol", tol, "a number between 0 and 1")


def _load(args: argparse.Namespace) -> Any:
    if args.data in DATASET_NAMES:
        data = load_dataset(args.data)
        return data, Schema.numeric(data.feature_names, "target")
    options = _reader_options(args)
    if not os.path.exists(args.data) and "." not in os.path.basename(args.data):
        raise invalid("data", repr(args.data), "a file, or one of " + ", ".join(DATASET_NAMES))
    return read_training_csv(args.data, args.target, task=args.task, options=options)


def _train(args: argparse.Namespace) -> int:
    settings, phases = _settings(args), Phases(quiet=args.quiet)
    with Compilations() as compiled:
        with phases.phase("reading"):
            data, schema = _load(args)
            if data.name not in DATASET_NAMES:
                phases.state(f"target {schema.target!r}")
        try:
            os.makedirs(args.out, exist_ok=True)
        except OSError as err:
            raise FileFormatError(f"--out: can't make the directory {args.out!r}: {err.strerror}.") from err
        result = train(data, schema, settings, phases, lambda split, network: write_model(args.out, split, network))
        comparison = []
        if args.compare:
            with phases.phase("comparing"):
                comparison = compare(result, settings.seed)
        report = build_report(data, settings, result, phases, compiled, comparison)
        with phases.phase("drawing and writing"):
            files = write_artifacts(args.out, report, result)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, files)
    return 0


def _predict(args: argparse.Namespace) -> int:
    columns, notes = predict_file(args.model, args.file, proba=args.proba, ids=args.id)
    if args.json:
        print(json.dumps(columns | {"notes": notes}))
    else:
        for note in notes:
            print(f"jaxcvx predict: {note}", file=sys.stderr)
        write_predictions(columns, args.output)
    return 0


def _certify(args: argparse.Namespace) -> int:
    _check_proof("--seconds", args.seconds, args.tol)
    phases = Phases("jaxcvx certify", args.quiet)

    def watch(info: StepInfo) -> bool:
        phases.state(f"gap {percent(info.residual)}, {info.step} nodes")
        return stopped()

    with stop_on_interrupt(phases) as stopped, phases.phase("checking"):
        numbers = certify_model(
            args.model,
            args.file,
            method=args.method,
            seconds=args.seconds,
            tol=args.tol,
            as_training_data=args.as_training_data,
            callback=watch,
        )
    if args.json:
        print(json.dumps(finite(numbers), indent=2))
    else:
        print("\n".join(describe(numbers, args.file)))
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
        print(f"jaxcvx {args.command}: interrupted", file=sys.stderr)
        return 130


def run() -> None:
    """Entry point of the console script: keeps compiled programs, and exits with the code of :func:`main`."""
    use_compile_cache()
    sys.exit(main())


if __name__ == "__main__":
    run()
