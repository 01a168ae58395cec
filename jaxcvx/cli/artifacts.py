"""The files that `jaxcvx train` leaves in its output directory."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcvx.atomic_file import write_text
from jaxcvx.cli.model import MODEL, ROWS, fingerprint, outputs, save_model, save_rows
from jaxcvx.cli.page import page
from jaxcvx.cli.pipeline import Result, Split
from jaxcvx.networks.network import Network
from jaxcvx.plots.beta_path import path as plot_path
from jaxcvx.plots.effects import effects as plot_effects
from jaxcvx.plots.proof import proof as plot_proof
from jaxcvx.plots.regions import plot_regions

REPORT, PAGE = "report.json", "report.html"
PICTURES = ("path", "proof", "effects", "regions")


def write_model(folder: str, split: Split, network: Network, certificate: dict[str, Any] | None = None) -> list[str]:
    """Write the training rows and the model with its certificate; returns their paths."""
    rows, model = os.path.join(folder, ROWS), os.path.join(folder, MODEL)
    save_rows(rows, split.X, split.y)
    save_model(
        model,
        network,
        split.prep,
        {"width": network.width, "rows": fingerprint(split.X, split.y), "certificate": certificate},
    )
    return [model, rows]


def write_artifacts(folder: str, report: dict[str, Any], result: Result) -> list[str]:
    """Write the model, the report and the pictures; returns their paths."""
    files = write_model(folder, result.split, result.network, report["certificate"])
    pictures = draw(folder, report, result)
    shown = {}
    for file in pictures:
        with open(file, "rb") as stream:
            shown[os.path.basename(file).removesuffix(".png")] = stream.read()
    web, numbers = os.path.join(folder, PAGE), os.path.join(folder, REPORT)
    write_text(web, page(report, shown))
    write_text(numbers, json.dumps(report, indent=2) + "\n")
    return [web, numbers, *files, *pictures]


def draw(folder: str, report: dict[str, Any], result: Result) -> list[str]:
    """Draw the path, the proof, and what the network learned; returns the files."""
    split, prep = result.split, result.split.prep
    name = report["data"]["name"]
    files = {kind: os.path.join(folder, f"{kind}.png") for kind in PICTURES}
    for file in files.values():  # those of an earlier run
        with contextlib.suppress(FileNotFoundError):
            os.remove(file)
    plot_path(result.validation, files["path"], title=f"{name}: the path of betas")
    if result.trace:
        plot_proof(result.trace, files["proof"], title=f"{name}: the proof")
    probable = prep.probabilities(np.zeros((1, report["data"]["outputs"]))) is not None

    def predict(X: Any) -> np.ndarray:
        F = outputs(result.network, prep, X)
        if prep.classes is None:
            return prep.decide(F)
        return np.asarray(prep.probabilities(F)) if probable else F

    plot_effects(
        predict,
        split.X,
        report["data"]["columns"],
        files["effects"],
        classes=prep.classes,
        title=f"{name}: what the network learned",
        y_label=(prep.schema.target or "") if prep.classes is None else "probability" if probable else "output",
    )
    if split.X.shape[1] == 2 and prep.classes is not None:
        _regions(files["regions"], report, result)
    return [file for file in files.values() if os.path.exists(file)]


def _regions(path: str, report: dict[str, Any], result: Result) -> None:
    network, prep, split = result.network, result.split.prep, result.split
    hidden = np.asarray(network.hidden)
    strength = np.linalg.norm(hidden, axis=1) * np.linalg.norm(np.asarray(network.output), axis=1)
    relative = strength / max(strength.max(initial=0.0), np.finfo(float).tiny)
    plot_regions(
        path,
        predict=lambda X: prep.decide(np.asarray(network(jnp.asarray(X)))),
        hidden_lines=np.column_stack([hidden, relative]),
        X=np.concatenate([prep.inputs(split.X), prep.inputs(split.X_test)]),
        labels=np.concatenate([split.y, split.y_test]),
        classes=prep.classes or (),
        title=f"{report['data']['name']}: decision regions and the {report['num_neurons']} neurons' lines",
    )
