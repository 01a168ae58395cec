"""The files that `jaxcvx train` leaves in its output directory."""

from __future__ import annotations

import json
import os
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcvx.atomic_file import replacing
from jaxcvx.cli.model import save_model
from jaxcvx.cli.pipeline import Result
from jaxcvx.plots.convergence import plot_convergence
from jaxcvx.plots.regions import plot_regions


def write_text(path: str, text: str) -> None:
    """Write a text file completely, or leave the old one.

    Raises:
      FileFormatError: the file cannot be written.
    """
    with replacing(path) as stream:
        stream.write(text.encode())


def write_artifacts(folder: str, report: dict[str, Any], result: Result) -> list[str]:
    """Write model.npz, report.json and the pictures; returns their paths."""
    paths = {name: os.path.join(folder, name) for name in ("model.npz", "report.json", "convergence.png")}
    save_model(paths["model.npz"], result.network, result.split.prep, {"width": result.network.width})
    write_text(paths["report.json"], json.dumps(report, indent=2) + "\n")
    assert result.solution.history is not None
    plot_convergence(
        paths["convergence.png"],
        history=result.solution.history,
        title=f"{report['data']['name']}: {report['solver']} on {report['cells']['total']} cells",
        upper_bound=report["upper_bound"],
        lower_bound=report["lower_bound"],
        baseline=result.comparison.curve,
    )
    files = list(paths.values())
    if result.split.X.shape[1] == 2 and result.split.prep.classes is not None:
        files.append(_regions(os.path.join(folder, "regions.png"), report, result))
    return files


def _regions(path: str, report: dict[str, Any], result: Result) -> str:
    network, prep, split = result.network, result.split.prep, result.split
    hidden = np.asarray(network.hidden)
    strength = np.linalg.norm(hidden, axis=1) * np.linalg.norm(np.asarray(network.output), axis=1)
    relative = strength / max(strength.max(initial=0.0), np.finfo(float).tiny)
    plot_regions(
        path,
        predict=lambda X: prep.decide(np.asarray(network(jnp.asarray(X)))),
        hidden_lines=np.column_stack([hidden, relative]),
        X=np.concatenate([split.X, split.X_test]),
        labels=np.concatenate([split.y, split.y_test]),
        classes=prep.classes or (),
        title=f"{report['data']['name']}: decision regions and the {network.width} neurons' lines",
    )
    return path
