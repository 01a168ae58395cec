"""The numbers of a training run, as JSON and as a printed table."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import jax
import numpy as np

from jaxcvx.certificates.certificate import Certificate
from jaxcvx.cli.model import outputs
from jaxcvx.cli.phases import Compilations, Phases
from jaxcvx.cli.pipeline import Result, Settings, percent
from jaxcvx.cli.split import classes_not_held_out
from jaxcvx.datasets import Dataset
from jaxcvx.errors import require_extra
from jaxcvx.networks.network import Network
from jaxcvx.status import Status

SHOWN_NEURONS = 12
_WIDTH = 110  # least width of the printed tables
_SHOWN_COLUMNS = 4  # of the direction of a neuron


def finite(value: Any) -> Any:
    """A copy for JSON: plain numbers, and None instead of inf and NaN."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [finite(v) for v in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def describe_certificate(certificate: Certificate) -> dict[str, Any]:
    """The numbers of a certificate, and one sentence."""
    return {
        "upper": certificate.upper,
        "lower": certificate.lower,
        "gap": certificate.gap,
        "scope": certificate.scope,
        "seconds": certificate.seconds,
        "status": Status(int(certificate.status)).name,
        "nodes": int(certificate.work),
        "sentence": certificate.explain(),
    }


def build_report(
    data: Dataset,
    settings: Settings,
    result: Result,
    phases: Phases,
    compiled: Compilations,
    comparison: list[dict[str, Any]],
) -> dict[str, Any]:
    """The report of a run. Its bounds and its training objective are those of the returned network."""
    split, certificate, validation = result.split, describe_certificate(result.certificate), result.validation
    prep, chosen = split.prep, result.chosen
    held = [split.y_test] if len(split.y_test) else [split.y[test] for _, test in result.folds]
    rows = [(split.X, split.y)] + ([(split.X_test, split.y_test)] if len(split.y_test) else [])
    measured = [prep.metrics(outputs(result.network, prep, X), y) for X, y in rows]
    report = {
        "data": {
            "name": data.name,
            "task": data.task,
            "target": prep.schema.target,
            "train_rows": len(split.y),
            "test_rows": len(split.y_test),
            "features": split.X.shape[1],
            "columns": data.feature_names,
            "outputs": result.network.output.shape[1],
            "classes": data.classes,
            "classes_without_test_rows": classes_not_held_out(data.classes, held),
            "preparation": prep.schema.describe(),
        },
        "loss": prep.loss,
        "beta": prep.beta,
        "beta_max": result.beta_max,
        "beta_fraction": prep.beta / result.beta_max if result.beta_max > 0 else None,
        "betas": validation.betas,
        "cv_scores": validation.scores,
        "cv_mean": validation.mean,
        "cv_standard_error": validation.standard_error,
        "scoring": validation.scoring or "accuracy",
        "folds": len(result.folds),
        "rule": settings.rule if settings.beta == "auto" else "given",
        "chosen": chosen,
        "score": {"mean": validation.mean[chosen], "standard_error": validation.standard_error[chosen]},
        "num_neurons": _alive(result.network),
        "train": measured[0],
        "test": measured[1] if len(measured) > 1 else None,
        "status": certificate["status"],
        "upper_bound": certificate["upper"],
        "lower_bound": certificate["lower"],
        "gap": certificate["gap"],
        "scope": certificate["scope"],
        "certificate": certificate,
        "proof": result.trace,
        "neurons": neuron_table(result.network, [*data.feature_names, "(constant)"]),
        "seconds": phases.seconds | {"compiling": compiled.seconds, "total": sum(phases.seconds.values())},
        "programs": compiled.programs,
        "comparison": comparison,
        "seed": settings.seed,
        "versions": {"jaxcvx": importlib.metadata.version("jaxcvx"), "jax": jax.__version__},
    }
    return finite(report)


def _alive(network: Network) -> int:
    strength = np.linalg.norm(network.hidden, axis=1) * np.linalg.norm(network.output, axis=1)
    return int((strength > 0).sum())


def neuron_table(network: Network, names: list[str]) -> list[dict[str, Any]]:
    """The strongest neurons: their share of all strength, the largest entries of their directions, and outputs.

    The strength of a neuron is the product of the sizes of its hidden and its output weights. Directions have length 1,
    for standardised inputs.
    """
    hidden, output = np.asarray(network.hidden), np.asarray(network.output)
    size = np.linalg.norm(hidden, axis=1)
    strength = size * np.linalg.norm(output, axis=1)
    table = []
    for j in np.argsort(-strength, kind="stable")[:SHOWN_NEURONS]:
        if strength[j] == 0:
            break
        direction = hidden[j] / size[j]
        largest = np.argsort(-abs(direction), kind="stable")[:_SHOWN_COLUMNS]
        table.append(
            {
                "strength": strength[j] / strength.sum(),
                "direction": [[names[k], direction[k]] for k in largest if direction[k] != 0],
                "output": output[j] * size[j],
            }
        )
    return table


def print_report(report: dict[str, Any], files: list[str]) -> None:
    """Print the report as a table, with a few sentences below."""
    table_module: Any = require_extra("rich.table", "cli")
    console: Any = require_extra("rich.console", "cli").Console()  # type: ignore[attr-defined]
    console.width = max(console.width, _WIDTH)
    data, score = report["data"], report["score"]
    title = f"{data['name']}: {data['train_rows']} rows, {data['features']} features"
    table = table_module.Table(title=title, title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")

    def number(value: Any, form: str = ".6g") -> str:
        return "-" if value is None else format(value, form)

    name = score_text_of(report)
    plus_minus = f"{number(score['mean'], '.4f')} ± {number(score['standard_error'], '.4f')}"
    table.add_row(f"{name} in {report['folds']} folds ± standard error", plus_minus)
    for split in ("train", "test"):
        for metric, value in (report[split] or {}).items():
            table.add_row(f"{split} {metric}", number(value, ".4f"))
    table.add_row("training objective", number(report["upper_bound"]))
    table.add_row("proved lower bound, all networks", number(report["lower_bound"]))
    table.add_row("gap", "-" if report["gap"] is None else percent(report["gap"]))
    of_max = "" if report["beta_fraction"] is None else f" ({report['beta_fraction']:.3g} of beta_max)"
    table.add_row("weight decay beta", f"{report['beta']:.4g}{of_max}")
    table.add_row("neurons", str(report["num_neurons"]))
    seconds = ", ".join(f"{value:.1f} {name}" for name, value in short_seconds(report["seconds"]).items())
    table.add_row("seconds", seconds)
    console.print(table)
    lines = [report["certificate"]["sentence"]]
    if data["classes_without_test_rows"]:
        names = ", ".join(data["classes_without_test_rows"])
        lines.append(f"Too small to hold out a row, so all in training: class {names}.")
    lines += data["preparation"]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    if report["comparison"]:
        console.print(_comparison(report, table_module, number))
    console.print("Written: " + ", ".join(files), highlight=False, soft_wrap=True)


def score_text_of(report: dict[str, Any]) -> str:
    """The name of the score, for people."""
    return {"r2": "R2"}.get(report["scoring"], report["scoring"])


def short_seconds(seconds: dict[str, float]) -> dict[str, float]:
    """The seconds of the phases under their first words."""
    return {name.split()[0]: value for name, value in seconds.items()}


def own_seconds(report: dict[str, Any]) -> float:
    """The seconds of training and proving, compilation included."""
    return sum(value for name, value in report["seconds"].items() if name.startswith(("training", "proving")))


def _comparison(report: dict[str, Any], table_module: Any, number: Any) -> Any:
    name = score_text_of(report)
    table = table_module.Table(title="Other methods on the same rows and folds", title_justify="left")
    for column in ("", "training objective", "neurons", f"{name} in folds", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    own = {
        "method": "jaxcvx",
        "objective": report["upper_bound"],
        "neurons": report["num_neurons"],
        **report["score"],
        "score": report["score"]["mean"],
        "seconds": own_seconds(report),
    }
    for row in (own, *report["comparison"]):
        score = "-" if row["score"] is None else f"{row['score']:.4f} ± {row['standard_error']:.4f}"
        neurons = number(row["neurons"], "d")
        table.add_row(row["method"], number(row["objective"]), neurons, score, number(row["seconds"], ".1f"))
    return table
