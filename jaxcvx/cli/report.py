"""The numbers of a training run, as JSON and as a printed table."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import jax
import numpy as np

from jaxcvx.cli.model import outputs
from jaxcvx.cli.pipeline import Result, Settings
from jaxcvx.cli.split import classes_not_held_out
from jaxcvx.datasets import Dataset
from jaxcvx.errors import require_extra
from jaxcvx.solvers.core.solution import Status

SCOPES = {
    "global": "all networks",
    "relaxation": "all networks, by a relaxation",
    "sampled-cells": "networks in the cells used, and this one's",
    "none": "nothing",
}


def finite(value: Any) -> Any:
    """A copy for JSON: plain numbers, and None instead of inf and NaN."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def build_report(data: Dataset, settings: Settings, result: Result) -> dict[str, Any]:
    """The report of a run. Its bounds and its training objective are those of the returned network."""
    split, solution, certificate, other = result.split, result.solution, result.certificate, result.comparison
    prep = split.prep
    raw_test = split.X_test * np.array(prep.scale) + np.array(prep.mean)
    raw_train = split.X * np.array(prep.scale) + np.array(prep.mean)

    def measure(network):
        return {
            "train": prep.metrics(outputs(network, prep, raw_train), split.y),
            "test": prep.metrics(outputs(network, prep, raw_test), split.y_test),
        }

    ours, theirs = measure(result.network), measure(other.network)
    report = {
        "data": {
            "name": data.name,
            "task": data.task,
            "train_rows": len(split.y),
            "test_rows": len(split.y_test),
            "features": split.X.shape[1],
            "outputs": result.problem.num_outputs,
            "classes": data.classes,
            "classes_without_test_rows": classes_not_held_out(data.classes, split.y_test),
            "preparation": prep.schema.describe(),
        },
        "solver": type_name(result),
        "loss": prep.loss,
        "beta": prep.beta,
        "beta_fraction_of_max": result.beta_fraction,
        "beta_path": [{"fraction": f, "validation_error": e} for f, e in result.validation],
        "cells": result.cells | {"total": result.problem.operator.num_cells},
        "objective": solution.objective,
        "program_gap": solution.program_gap,
        "status": Status(int(solution.status)).name,
        "num_steps": solution.num_steps,
        "lower_bound": certificate.lower,
        "upper_bound": certificate.upper,
        "gap": certificate.gap,
        "heuristic_bound": certificate.heuristic_bound,
        "scope": certificate.scope,
        "width": result.network.width,
        "network_from": result.network_source,
        "train": ours["train"],
        "test": ours["test"],
        "seconds": result.seconds,
        "baseline": {
            "method": "Adam, cosine decay, same width and wall time",
            "objective": other.objective,
            "width": other.network.width,
            "steps": other.steps,
            "seconds": other.seconds,
            "status": other.status,
            "train": theirs["train"],
            "test": theirs["test"],
        },
        "seed": settings.seed,
        "versions": {"jaxcvx": importlib.metadata.version("jaxcvx"), "jax": jax.__version__},
    }
    return finite(report)


def type_name(result: Result) -> str:
    """Name of the convex solver of the run."""
    return "ConeADMM" if isinstance(result.solution.params, tuple) else "ProximalGradient"


def _gap(value: float | None) -> str:
    return "none" if value is None else f"{value:.1e}" if value < 0.01 else f"{100 * value:.1f} %"


def print_report(report: dict[str, Any], files: list[str]) -> None:
    """Print the report as a table, with a short summary below."""
    table_module: Any = require_extra("rich.table", "cli")
    consoles: Any = require_extra("rich.console", "cli")
    console = consoles.Console()
    data, base = report["data"], report["baseline"]
    table = table_module.Table(title=f"{data['name']}: {data['train_rows']} rows to train on", title_justify="left")  # type: ignore[attr-defined]
    table.add_column("")
    table.add_column("jaxcvx", justify="right")
    table.add_column("Adam", justify="right")

    def number(value, form=".8g"):
        return "-" if value is None else format(value, form)

    table.add_row("training objective", number(report["upper_bound"]), number(base["objective"]))
    table.add_row("lower bound", number(report["lower_bound"]), "")
    for split in ("train", "test"):
        for name in report[split]:
            table.add_row(f"{split} {name}", number(report[split][name], ".4f"), number(base[split][name], ".4f"))
    table.add_row("hidden neurons", str(report["width"]), str(base["width"]))
    table.add_row("seconds", f"{report['seconds']:.1f}", f"{base['seconds']:.1f}")
    console.print(table)
    program = "cone-constrained" if report["solver"] == "ConeADMM" else "gated"
    kinds = {k: v for k, v in report["cells"].items() if k != "total"}
    total = report["cells"]["total"]
    cells = (
        f"all {total} cells"
        if "all" in kinds
        else f"{total} cells (" + ", ".join(f"{v} {k}" for k, v in kinds.items()) + ")"
    )
    lines = [
        f"The {program} convex program over {cells} was solved to a relative gap of "
        f"{_gap(report['program_gap'])} ({report['status'].lower()}).",
        f"Proved: no network has an objective lower by more than {_gap(report['gap'])}. "
        f"This covers {SCOPES[report['scope']]}.",
        f"Its weights came from: {report['network_from']}. beta = {report['beta']:.4g} "
        f"({report['beta_fraction_of_max']:.3g} of the bound on beta_max).",
    ]
    if data["classes_without_test_rows"]:
        names = ", ".join(data["classes_without_test_rows"])
        lines.append(f"Too small to hold out a test row, so all in training: class {names}.")
    lines += data["preparation"]
    if base["status"] == "CONVERGED":
        lines.append("Adam stopped before its time was up: its gradient had vanished.")
    for line in lines:
        console.print(line, highlight=False, markup=False)
    console.print("Written: " + ", ".join(files), highlight=False, soft_wrap=True)
