"""Samples on a line: the optimal network is a spline. Compared with Adam, the NTK and a classifier; cost of a cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcvx
from benchmarks.common import print_table
from experiments.common import describe, record, slope, timed_solve
from jaxcvx.plots.figure import BLUE, INK, VERMILLION, new_figure, save_png, style
from jaxcvx.plots.geometry import draw_fits

CLAIM = (
    "With unpenalised biases the least-norm network through samples on a line is the linear spline; cutting planes "
    "find it exactly, at n log n per cut. The tangent kernel does not find it, and gradient descent comes "
    "the nearer the smaller its first weights are."
)
PAPER = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), np.array([1.0, -1.0, 1.0, 1.0, -1.0])


def run(quick: bool = False) -> dict[str, Any]:
    """Run all parts; ``quick``: short runs and small sizes."""
    settings = {
        "width": 50 if quick else 600,
        "adam_steps": 500 if quick else 10_000,
        "init_scales": [0.1, 1.0] if quick else [0.03, 0.1, 0.3, 1.0, 2.0],
        "beta_fit": 1e-3,
        "mixture": {"n": 40, "beta": 1e-3, "tests": 5000},
        "cost_n": [200, 400] if quick else [1000, 2000, 4000, 8000, 16_000],
        "cost_tol": 1e-4,
    }
    return record(
        "line",
        CLAIM,
        quick,
        settings,
        spline=_spline(settings),
        hinge=_hinge(settings),
        mixture=_mixture(settings),
        cost=_cost(settings),
    )


def _predict(network: Any, grid: np.ndarray) -> list[float]:
    return np.asarray(network(grid[:, None]))[:, 0].tolist()


def _adam(problem: Any, settings: dict[str, Any], scale: float, seed: int = 0) -> Any:
    solver = jaxcvx.GradientDescent(
        width=settings["width"], max_steps=settings["adam_steps"], schedule="cosine", init_scale=scale
    )
    return jaxcvx.solve(problem, solver, key=jax.random.key(seed))


def ntk(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Tangent kernel of two-layer ReLU networks on inputs (x, 1)."""
    a, b = (np.stack([t, np.ones_like(t)], axis=1) for t in (x, z))
    sizes = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    t = np.clip(a @ b.T / sizes, -1, 1)
    angle = np.pi - np.arccos(t)
    return sizes * (2 * t * angle + np.sqrt(1 - t**2)) / np.pi


def _spline(settings: dict[str, Any]) -> dict[str, Any]:
    """Figures 1, 7 and 9: interpolation of the paper's five points."""
    x, y = PAPER
    grid = np.linspace(-2.5, 2.5, 501)
    inside = np.abs(grid) <= 2
    features = jaxcvx.FreeBias()
    exact = jaxcvx.make_problem(x[:, None], y, 1.0, loss="interpolation", features=features)
    solution, seconds = timed_solve(exact, jaxcvx.CuttingPlane(tol=1e-9))
    network = solution.network
    line = np.interp(grid, x, y)
    ends = np.asarray(jaxcvx.bias_intervals(network, x[:, None], solution.params.dual, tol=1e-5))
    soft = jaxcvx.make_problem(x[:, None], y, settings["beta_fit"], features=features)
    optimum = jaxcvx.solve(soft, jaxcvx.CuttingPlane(tol=1e-9))
    runs = []
    for scale in settings["init_scales"]:
        found = _adam(soft, settings, scale)
        values = np.asarray(_predict(found.network, grid))
        runs.append(
            {
                "init_scale": scale,
                "objective": float(found.upper_bound),
                "deviation": float(np.abs(values - line)[inside].max()),
                "values": values.tolist(),
            }
        )
    kernel = ntk(grid, x) @ np.linalg.solve(ntk(x, x), y)
    values = np.asarray(_predict(network, grid))
    return {
        "solve": {**describe(solution), "seconds": seconds},
        "formula": float(jaxcvx.spline_rnorm(x, y)),
        "dual": solution.params.dual[:, 0].tolist(),
        "kinks": (-np.asarray(network.hidden[:, 1]) / np.asarray(network.hidden[:, 0])).tolist(),
        "bias_intervals": np.clip(ends, -1e6, 1e6).tolist(),
        "deviation": float(np.abs(values - line)[inside].max()),
        "kernel_deviation": float(np.abs(kernel - line)[inside].max()),
        "optimum": describe(optimum),
        "grid": grid.tolist(),
        "values": values.tolist(),
        "kernel": kernel.tolist(),
        "adam": runs,
    }


def _hinge(settings: dict[str, Any]) -> dict[str, Any]:
    """Figure 8: the hinge loss on five points, small weight decay; the optimum against Adam."""
    x, y = PAPER
    beta = 2e-5
    problem = jaxcvx.make_problem(x[:, None], y, beta, loss="hinge", features=jaxcvx.FreeBias())
    solution = jaxcvx.solve(problem, jaxcvx.CuttingPlane(tol=1e-8))
    runs = [float(_adam(problem, settings, 1.0, seed).upper_bound) for seed in range(3)]
    return {"beta": beta, "solve": describe(solution), "adam": runs}


def mixture(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """a ~ N(mu, 1/4), class +1 at mu in {-1, 0, 2} and -1 at mu in {-2, 1}."""
    rng = np.random.default_rng(seed)
    mu = rng.choice([-2, -1, 0, 1, 2], n)
    return mu + 0.25 * rng.standard_normal(n), np.where(np.isin(mu, (-2, 1)), -1.0, 1.0)


def _mixture(settings: dict[str, Any]) -> dict[str, Any]:
    """Figure 10: the l1 classifier against Adam on a Gaussian mixture."""
    options = settings["mixture"]
    x, y = mixture(0, options["n"])
    test, labels = mixture(1, options["tests"])
    grid = np.linspace(-3, 3, 601)
    network = jaxcvx.l1_classifier(x[:, None], y, options["beta"])
    problem = jaxcvx.make_problem(x[:, None], y, options["beta"], loss="hinge", features=jaxcvx.FreeBias())
    cuts = jaxcvx.solve(problem, jaxcvx.CuttingPlane(tol=1e-8))

    def accuracy(net: Any) -> float:
        return float((np.sign(np.asarray(_predict(net, test))) == labels).mean())

    adam = [_adam(problem, settings, 1.0, seed) for seed in range(3)]
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "grid": grid.tolist(),
        "values": _predict(network, grid),
        "adam_values": _predict(adam[0].network, grid),
        "objective": float(jaxcvx.training_objective(network, x[:, None], y, options["beta"], "hinge")),
        "cuts": describe(cuts),
        "accuracy": accuracy(network),
        "adam_objective": [float(a.upper_bound) for a in adam],
        "adam_accuracy": [accuracy(a.network) for a in adam],
    }


def _cost(settings: dict[str, Any]) -> dict[str, Any]:
    """Time a round and an oracle call against n, after compilation."""
    rows = []
    for n in settings["cost_n"]:
        rng = np.random.default_rng(1)
        x = rng.uniform(-3, 3, n)
        y = np.sin(2 * x) + 0.3 * rng.standard_normal(n)
        problem = jaxcvx.make_problem(x[:, None], y, 1.0, features=jaxcvx.FreeBias())
        solution, seconds = timed_solve(problem, jaxcvx.CuttingPlane(tol=settings["cost_tol"]), repeat=True)
        cuts = int(np.any(solution.params.directions != 0, axis=1).sum())
        rows.append({"n": n, **describe(solution), "seconds": seconds, "cuts": cuts, "per_cut": seconds / cuts})
    n, cost = np.array([r["n"] for r in rows]), np.array([r["per_cut"] for r in rows])
    overall = float(np.log(cost[-1] / cost[0]) / np.log(n[-1] / n[0]))
    return {"rows": rows, "exponent": overall, "last_exponent": slope(n, cost)}


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    spline, cost = result["spline"], result["cost"]
    solve = spline["solve"]
    rows = [("cutting planes", f"{solve['upper_bound']:.9f}", f"{spline['deviation']:.1e}")]
    rows.append(("formula", f"{spline['formula']:.9f}", ""))
    for adam in spline["adam"]:
        rows.append((f"Adam, scale {adam['init_scale']:g}", f"{adam['objective']:.6f}", f"{adam['deviation']:.1e}"))
    rows.append(("tangent kernel", "", f"{spline['kernel_deviation']:.1e}"))
    print_table("Five points: value, deviation from the spline", ("", "value", "deviation"), rows)
    header = ("n", "gap", "rounds", "cuts", "CPU s", "s per cut")
    table = [
        (
            str(r["n"]),
            f"{r['gap']:.1e}",
            str(r["steps"]),
            str(r["cuts"]),
            f"{r['seconds']:.2f}",
            f"{r['per_cut']:.4f}",
        )
        for r in cost["rows"]
    ]
    print_table(f"Cost, exponent {cost['exponent']:.2f}", header, table)
    mixture_, hinge = result["mixture"], result["hinge"]
    print(f"hinge: optimum {hinge['solve']['upper_bound']:.6e}, Adam {', '.join(f'{v:.4e}' for v in hinge['adam'])}")
    print(f"mixture: accuracy {mixture_['accuracy']:.4f}, Adam {mixture_['adam_accuracy']}")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw four panels: fits of five points, deviation by scale of the first weights, classifier, cost."""
    figure = new_figure(11, 7.6, "Samples on a line")
    (fits, scales), (classes, cost) = figure.subplots(2, 2)
    spline = result["spline"]
    curves = {"optimal network (spline)": spline["values"]}
    curves |= {
        f"Adam, first weights x {a['init_scale']:g}": a["values"] for a in (spline["adam"][0], spline["adam"][-1])
    }
    curves["tangent kernel"] = spline["kernel"]
    draw_fits(fits, *PAPER, spline["grid"], curves, spline["kinks"], "five points, kinks of the optimum in grey")
    style(scales)
    place = [a["init_scale"] for a in spline["adam"]]
    scales.plot(place, [a["deviation"] for a in spline["adam"]], "o-", color=VERMILLION, label="Adam")
    scales.axhline(spline["kernel_deviation"], color=BLUE, linestyle="--", label="tangent kernel")
    scales.set(
        xscale="log",
        yscale="log",
        xlabel="scale of the first weights",
        ylabel="deviation from the spline",
    )
    scales.legend(frameon=False, fontsize=8.5)
    mixture_ = result["mixture"]
    draw_fits(
        classes,
        mixture_["x"],
        mixture_["y"],
        mixture_["grid"],
        {
            f"optimum, test accuracy {mixture_['accuracy']:.3f}": np.clip(mixture_["values"], -3, 3),
            f"Adam, test accuracy {mixture_['adam_accuracy'][0]:.3f}": np.clip(mixture_["adam_values"], -3, 3),
        },
        title="Gaussian mixture, hinge loss (clipped at 3)",
    )
    style(cost)
    rows = result["cost"]["rows"]
    n = np.array([r["n"] for r in rows], float)
    measured = np.array([r["per_cut"] for r in rows])
    cost.plot(n, measured, "o-", color=BLUE, label="measured")
    law = n * np.log(n)
    cost.plot(n, measured[0] * law / law[0], "--", color=INK, linewidth=1, label="n log n from the first")
    cost.set(xscale="log", yscale="log", xlabel="samples n", ylabel="CPU seconds per cut")
    cost.legend(frameon=False, fontsize=8.5)
    save_png(figure, path)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["line", *sys.argv[1:]]))
