"""Low-rank recovery: success against the number of observations, noise, certificates, and a spurious minimum."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcvx
from benchmarks.common import print_table
from experiments.common import record, track
from jaxcvx.plots.figure import BLUE, GREEN, INK, ORANGE, VERMILLION, new_figure, save_png, style

CLAIM = (
    "Sensing and completion of low-rank matrices have no spurious local minima once there are enough observations: "
    "gradient descent recovers from random starts as from spectral ones. With an isometry constant of 1/2 it can fail."
)
SUCCESS = 1e-3
DESCENT = jaxcvx.GradientDescent(max_steps=600)


def run(quick: bool = False) -> dict[str, Any]:
    """Run all parts; ``quick``: few trials and cells."""
    settings = {
        "trials": 4 if quick else 20,
        "sensing": {"n": 20, "ranks": [1, 2] if quick else [1, 2, 3, 4], "m_over_nr": (np.arange(1, 9) / 2).tolist()},
        "completion": {
            "shape": (60, 50),
            "ranks": [2] if quick else [1, 2, 3, 4, 5],
            "n_over_dof": (np.arange(2, 11) / 2).tolist(),
        },
        "noise": {"sigmas": [1e-3, 1e-2, 1e-1], "m": [150, 300, 600]},
        "certified": {"shape": (60, 50), "rank": 3, "n_over_dof": [3, 4, 5, 6], "trials": 2 if quick else 20},
        "landscape": {
            "starts": 200 if quick else 5000,
            "rate": 0.02,
            "steps": 6000,
            "shown": 40,
            "annealed": {"radius": 0.5, "radius_decay": 0.8, "epoch_length": 200, "max_steps": 8000},
        },
    }
    keys = jax.random.split(jax.random.key(0), settings["trials"])
    sensing, completion, certified = (settings[name] for name in ("sensing", "completion", "certified"))
    return record(
        "low_rank",
        CLAIM,
        quick,
        settings,
        sensing=[_sensing(keys, r, sensing) for r in sensing["ranks"]],
        completion=[_completion(keys, r, completion) for r in completion["ranks"]],
        noise=_noise(keys, settings["noise"]),
        certified=[_certified(x, certified) for x in track(certified["n_over_dof"], "certificates")],
        landscape=_landscape(settings["landscape"]),
    )


def _relative_error(problem: Any, params: Any, truth: Any) -> Any:
    return jnp.linalg.norm(problem.matrix(params) - truth) / jnp.linalg.norm(truth)


def _two_starts(problem: Any, truth: Any, key: Any) -> Any:
    """Compute errors from the spectral estimate and from a random start."""
    starts = (problem.spectral_params(), problem.random_params(key))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *starts)
    solve = jax.vmap(lambda params: jaxcvx.solve(problem, DESCENT, init=params).params)
    return jax.vmap(lambda params: _relative_error(problem, params, truth))(solve(stacked))


def _rates(trial: Any, keys: Any, counts: list[int], label: str) -> dict[str, list[float]]:
    """Compute success rates for each count. All trials of one count form one program."""
    trials = jax.jit(jax.vmap(trial, in_axes=(0, None)))
    errors = np.stack([np.asarray(trials(keys, jnp.asarray(count))) for count in track(counts, label)])
    rates = np.mean(errors < SUCCESS, axis=1)
    return {"spectral": rates[:, 0].tolist(), "random": rates[:, 1].tolist()}


def _sensing(keys: Any, r: int, settings: dict[str, Any]) -> dict[str, Any]:
    n, counts = settings["n"], [round(x * settings["n"] * r) for x in settings["m_over_nr"]]

    def trial(key: Any, m: Any) -> Any:
        """One size for all cells: measurements beyond the first m are zero."""
        factor, operators, start = jax.random.split(key, 3)
        U = jax.random.normal(factor, (n, r)) / n**0.5
        A = jax.random.normal(operators, (max(counts), n, n)) * (jnp.arange(max(counts)) < m)[:, None, None]
        problem = jaxcvx.MatrixSensing(A, jnp.einsum("mij,ij->m", A, U @ U.T), r)
        return _two_starts(problem, U @ U.T, start)

    return {"rank": r, "m": counts, **_rates(trial, keys, counts, f"sensing, rank {r}")}


def _completion(keys: Any, r: int, settings: dict[str, Any]) -> dict[str, Any]:
    d1, d2 = settings["shape"]
    counts = [min(round(x * r * (d1 + d2 - r)), d1 * d2) for x in settings["n_over_dof"]]
    rows, cols = np.divmod(np.arange(d1 * d2), d2)
    whole = jaxcvx.MatrixCompletion(rows, cols, np.zeros(d1 * d2), (d1, d2), r)

    def trial(key: Any, count: Any) -> Any:
        """One size for all cells: all places, of which a random ``count`` are kept."""
        left, right, choose, start = jax.random.split(key, 4)
        X = jax.random.normal(left, (d1, r)) @ jax.random.normal(right, (d2, r)).T
        kept = jax.random.permutation(choose, d1 * d2) < count
        operator = whole.operator.only(kept)
        problem = whole.replace(operator=operator, targets=operator.spread(jnp.where(kept, X.reshape(-1), 0)))
        return _two_starts(problem, X, start)

    return {"rank": r, "n": counts, **_rates(trial, keys, counts, f"completion, rank {r}")}


def _noise(keys: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Compute errors of noisy sensing (n = 20, r = 2) against sigma and m, and of noisy completion against sigma."""

    def sensing(key: Any, sigma: Any, m: int) -> Any:
        factor, operators, noise = jax.random.split(key, 3)
        U = jax.random.normal(factor, (20, 2)) / 20**0.5
        A = jax.random.normal(operators, (m, 20, 20))
        y = jnp.einsum("mij,ij->m", A, U @ U.T) + sigma * jax.random.normal(noise, (m,))
        problem = jaxcvx.MatrixSensing(A, y, 2)
        return _relative_error(problem, jaxcvx.solve(problem, DESCENT).params, U @ U.T)

    def completion(key: Any, sigma: Any) -> Any:
        left, right, noise, choose = jax.random.split(key, 4)
        X = jax.random.normal(left, (60, 3)) @ jax.random.normal(right, (50, 3)).T
        rows, cols = jnp.divmod(jax.random.choice(choose, 3000, (1800,), replace=False), 50)
        values = X[rows, cols] + sigma * jax.random.normal(noise, (1800,))
        problem = jaxcvx.MatrixCompletion(rows, cols, values, (60, 50), 3)
        return _relative_error(problem, jaxcvx.solve(problem, DESCENT).params, X)

    sigmas = jnp.asarray(settings["sigmas"])
    by_m = {}
    for m in settings["m"]:
        batch = jax.jit(jax.vmap(jax.vmap(functools.partial(sensing, m=m), in_axes=(0, None)), in_axes=(None, 0)))
        by_m[str(m)] = np.median(batch(keys, sigmas), axis=1).tolist()
    batch = jax.jit(jax.vmap(jax.vmap(completion, in_axes=(0, None)), in_axes=(None, 0)))
    return {"sensing": by_m, "completion": np.median(batch(keys, sigmas), axis=1).tolist()}


def _certified(multiple: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Count the recoveries that the certificate proves."""
    (d1, d2), r, trials = settings["shape"], settings["rank"], settings["trials"]
    count = round(multiple * r * (d1 + d2 - r))
    build = jax.jit(lambda rows, cols, values: jaxcvx.MatrixCompletion(rows, cols, values, (d1, d2), r))
    recovered, certified, bounds = 0, 0, []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((d1, r)) @ rng.standard_normal((r, d2))
        rows, cols = np.divmod(rng.choice(d1 * d2, count, replace=False), d2)
        problem = build(rows, cols, X[rows, cols])  # traced places: one shape for all trials
        solution = jaxcvx.solve(problem, jaxcvx.GradientDescent(tol=1e-10, max_steps=1000))
        certificate = jaxcvx.recovery_certificate(problem, solution.params)
        error = float(np.linalg.norm(problem.matrix(solution.params) - X))
        recovered += error < SUCCESS * np.linalg.norm(X)
        if certificate.certified:
            certified += 1
            assert error <= certificate.error_bound
            bounds.append(certificate.error_bound)
    median = float(np.median(bounds)) if bounds else None
    counts = {"trials": trials, "recovered": int(recovered), "certified": certified}
    return {"n_over_dof": multiple, **counts, "median_bound": median}


def _landscape(settings: dict[str, Any]) -> dict[str, Any]:
    """Run gradient descent and annealed noise on the problem of isometry constant 1/2."""
    problem, solution, trap = jaxcvx.half_rip_counterexample()
    truth = solution @ solution.T
    # The radius of the noise was chosen on other keys.
    starts = jax.random.normal(jax.random.key(11), (settings["starts"], 2, 1))
    keys = jax.random.split(jax.random.key(12), settings["starts"])
    optimizer = optax.sgd(settings["rate"])
    solvers = {
        "constant step": jaxcvx.GradientDescent(optimizer=optimizer, max_steps=settings["steps"], tol=0.0),
        "conjugate, exact steps": DESCENT,
        "annealed noise": jaxcvx.AnnealedNoise(optimizer=optimizer, **settings["annealed"]),
    }
    rates = {}
    for name, solver in solvers.items():
        ends = jax.jit(jax.vmap(lambda x, k, s=solver: jaxcvx.solve(problem, s, init=x, key=k).params))(starts, keys)
        errors = jnp.linalg.norm(ends @ jnp.swapaxes(ends, 1, 2) - truth, axis=(1, 2))
        rates[name] = float(jnp.mean(errors < 1e-2))

    def walk(x: Any, _: Any) -> Any:
        return x - settings["rate"] * jax.grad(problem.objective)(x), x[:, 0]

    shown = starts[: settings["shown"]]
    paths = jax.jit(jax.vmap(lambda x: jax.lax.scan(walk, x, None, length=400)[1]))(shown)
    points = {"solution": solution, "trap": trap, "zero": 0 * trap}
    kinds = {
        name: {
            "objective": float(problem.objective(x)),
            "smallest_eigenvalue": float(jaxcvx.second_order(problem, x, jax.random.key(0)).smallest),
        }
        for name, x in points.items()
    }
    isometry = float(jaxcvx.isometry_constant(problem, jax.random.key(0)))
    return {"success": rates, "points": kinds, "isometry": isometry, "paths": np.asarray(paths)[:, ::4].tolist()}


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    for name, axis in (("sensing", "m_over_nr"), ("completion", "n_over_dof")):
        columns = result["settings"][name][axis]
        rows = [
            (f"r={row['rank']}, {start}", *(f"{x:.2f}" for x in row[start]))
            for row in result[name]
            for start in ("spectral", "random")
        ]
        print_table(f"Success of {name} by {axis}", ("", *(f"{x:g}" for x in columns)), rows)
    rows = [
        (f"{c['n_over_dof']:g}", *(f"{c[k]}/{c['trials']}" for k in ("recovered", "certified")), str(c["median_bound"]))
        for c in result["certified"]
    ]
    print_table("Completion, proved", ("n/dof", "recovered", "certified", "median error bound"), rows)
    sigmas = result["settings"]["noise"]["sigmas"]
    noise = result["noise"]
    rows = [(f"sensing, m={m}", *(f"{e:.2e}" for e in errors)) for m, errors in noise["sensing"].items()]
    rows.append(("completion", *(f"{e:.2e}" for e in noise["completion"])))
    print_table("Median relative error by noise", ("", *(f"{s:g}" for s in sigmas)), rows)
    print(f"isometry constant {result['landscape']['isometry']:.3f}: success {result['landscape']['success']}")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw, above: phase maps; below: landscape with its paths, noise and certificates."""
    figure = new_figure(12, 8, "Low-rank recovery by gradient descent")
    (sensing, completion, landscape), (random_sensing, random_completion, noise) = figure.subplots(2, 3)
    for start, axes in (("spectral", (sensing, completion)), ("random", (random_sensing, random_completion))):
        for name, axis, ax in (("sensing", "m_over_nr", axes[0]), ("completion", "n_over_dof", axes[1])):
            image = _heat_map(ax, result, name, axis, start)
    figure.colorbar(image, ax=[completion, random_completion], shrink=0.6, label="success rate")
    _draw_landscape(landscape, result["landscape"])
    _draw_noise(noise, result)
    save_png(figure, path)


def _heat_map(ax: Any, result: dict[str, Any], name: str, axis: str, start: str) -> Any:
    rates = np.array([row[start] for row in result[name]])
    image = ax.imshow(rates, vmin=0, vmax=1, cmap="viridis", aspect="auto", origin="lower")
    columns = result["settings"][name][axis]
    ax.set_xticks(range(len(columns)), [f"{x:g}" for x in columns], fontsize=8.5)
    ax.set_yticks(range(len(rates)), [str(row["rank"]) for row in result[name]], fontsize=8.5)
    for (i, j), rate in np.ndenumerate(rates):
        ax.text(j, i, f"{rate:.2f}", ha="center", va="center", fontsize=7, color="white" if rate < 0.6 else "black")
    ax.set(xlabel="m / (n r)" if name == "sensing" else "n / degrees of freedom", ylabel="rank")
    ax.set_title(f"{name}, {start} start", fontsize=10, color=INK, loc="left")
    return image


def _draw_landscape(ax: Any, found: dict[str, Any]) -> None:
    style(ax)
    problem, _, _ = jaxcvx.half_rip_counterexample()
    side = np.linspace(-1.6, 1.6, 121)
    grid = jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1))
    values = jax.vmap(jax.vmap(lambda x: problem.objective(x[:, None])))(grid)
    ax.contour(side, side, np.log(np.asarray(values) + 1e-2), 18, cmap="Greys", linewidths=0.7)
    for steps in found["paths"]:
        walk = np.array(steps)
        trapped = abs(walk[-1, 0]) < 0.5
        ax.plot(*walk.T, color=VERMILLION if trapped else BLUE, linewidth=0.9, alpha=0.7)
    ax.plot([1, -1], [0, 0], "*", color=GREEN, markersize=12, label="solutions")
    ax.plot([0, 0], [0.5**0.5, -(0.5**0.5)], "X", color=ORANGE, markersize=8, label="spurious")
    rates = found["success"]
    ax.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xlabel="u1", ylabel="u2")
    title = f"solved by descent {rates['constant step']:.1%}, annealed noise {rates['annealed noise']:.1%}"
    ax.set_title(f"isometry constant 1/2:\n{title}", fontsize=9, color=INK, loc="left")
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")


def _draw_noise(ax: Any, result: dict[str, Any]) -> None:
    style(ax)
    sigmas = result["settings"]["noise"]["sigmas"]
    for (m, errors), color in zip(result["noise"]["sensing"].items(), (VERMILLION, ORANGE, BLUE), strict=False):
        ax.plot(sigmas, errors, "o-", color=color, label=f"sensing, m = {m}")
    ax.plot(sigmas, result["noise"]["completion"], "s--", color=GREEN, label="completion, 60% observed")
    ax.set(xscale="log", yscale="log", xlabel="noise sigma", ylabel="relative error (median)")
    ax.set_title("error is linear in the noise", fontsize=10, color=INK, loc="left")
    ax.legend(frameon=False, fontsize=8.5)


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["low_rank", *sys.argv[1:]]))
