"""Noise annealing escapes the spurious minimum of a two-layer convolutional network; gradient descent does not."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcvx
from benchmarks.common import print_table
from experiments.common import difference_interval, record, wilson
from jaxcvx.numerics.sphere import unit
from jaxcvx.plots.figure import (
    BLACK,
    BLUE,
    GREEN,
    INK,
    ORANGE,
    VERMILLION,
    label,
    new_figure,
    save_png,
    style,
)
from jaxcvx.problems.teacher_cnn import StudentWeights, TeacherCNN

CLAIM = (
    "The population loss of a two-layer convolutional network has a spurious minimum that traps gradient descent with "
    "constant probability; gradients at perturbed iterates, the noise annealed, reach the global minimum."
)
PATCHES, SIZE, STEPS, EPOCH = 25, 6, 8000, 400
SUCCESS = 1e-3
RATIOS = (0.0, 1.0, 4.0, 9.0, 16.0, 25.0)
# Rates of an earlier, independent implementation (numpy), 200 runs each (100 for batches).
REFERENCE = {
    "gradient descent": {0: 0.44, 1: 0.49, 4: 0.735, 9: 1, 16: 1, 25: 1},
    "gradient descent, unit ball": {0: 0.425, 1: 0.46, 4: 0.71, 9: 1, 16: 1, 25: 1},
    "SGD, batch 4": {0: 0.56, 1: 0.59, 4: 0.83, 9: 1},
    "annealed": {0: 0.92, 1: 0.995, 4: 1, 9: 1, 16: 1, 25: 1},
    "reading angle": {0: 0.92, 1: 0.995, 4: 1},
    "reading wn": {0: 0.56, 4: 0.91},
    "no annealing": {1: 0.0},
    "no noise on w": {1: 0.595},
    "no noise on a": {1: 0.995},
    "radius 1 on w": {1: 0.625},
    "radius 3 on w": {1: 0.785},
    "annealed, at the trap": {0: 0.235, 1: 0.86, 4: 1},
}


class Method(NamedTuple):
    """One row of the table."""

    solver: Any  # or a function from the run's key to one
    ratios: tuple[float, ...]
    start: Callable[[TeacherCNN, Any], StudentWeights] = TeacherCNN.initial_params
    share: float = 1.0  # of the runs


def _near_trap(distance: float) -> Callable[[TeacherCNN, Any], StudentWeights]:
    def start(problem: TeacherCNN, key: Any) -> StudentWeights:
        point, off = problem.spurious_point(), problem.random_params(key)
        side = unit(off.w - (off.w @ point.w) * point.w)
        return StudentWeights(unit(point.w + distance * side), point.a + distance * unit(off.a))

    return start


def methods(ratios: tuple[float, ...]) -> dict[str, Method]:
    """List every row: the paper's four methods, the ablations, the starts at the spurious point."""
    low = tuple(q for q in ratios if q < 9)
    decayed = jaxcvx.epochwise_geometric(0.1, 0.8, EPOCH)
    common = {"max_steps": STEPS, "check_every": EPOCH}
    plain = jaxcvx.GradientDescent(optimizer=optax.sgd(0.1), **common)
    batches = jaxcvx.GradientDescent(optimizer=optax.sgd(decayed), batch_size=4, **common)
    annealed = functools.partial(jaxcvx.AnnealedNoise, **common)
    patient = jaxcvx.AnnealedNoise.patient(check_every=4 * EPOCH)
    return {
        "gradient descent": Method(plain, ratios),
        "gradient descent, unit ball": Method(plain, ratios, TeacherCNN.random_params),
        "SGD, batch 4": Method(batches, low + (9.0,), share=0.5),
        "annealed": Method(annealed(), ratios),
        "annealed, unit ball": Method(annealed(), ratios, TeacherCNN.random_params),
        "annealed, batch 4": Method(annealed(batch_size=4), low + (9.0,), share=0.5),
        "patient": Method(patient, low),
        "reading angle": Method(annealed(reading="angle"), low),
        "reading wn": Method(annealed(reading="wn"), low),
        "no annealing": Method(annealed(radius_decay=1.0), (1.0,)),
        "no noise on w": Method(annealed(radius={"w": 0.0, "a": 1.0}), (1.0,)),
        "no noise on a": Method(annealed(radius={"w": 36.0, "a": 0.0}), (1.0,)),
        "radius 1 on w": Method(annealed(radius={"w": 1.0, "a": 1.0}), (1.0,)),
        "radius 3 on w": Method(annealed(radius={"w": 3.0, "a": 1.0}), (1.0,)),
        "gradient noise instead": Method(_gradient_noise, (1.0,)),
        "annealed, at the trap": Method(annealed(), low, _near_trap(0.0)),
        "annealed, .1 from the trap": Method(annealed(), low, _near_trap(0.1)),
        "patient, at the trap": Method(patient, low, _near_trap(0.0)),
    }


def _gradient_noise(key: Any) -> Any:
    """Descent with annealed noise on the gradients. The key belongs to the run, so vmap creates the solver."""
    noise = jaxcvx.annealed_gradient_noise(jaxcvx.epochwise_geometric(1.0, 0.4, EPOCH), key)
    rate = optax.sgd(jaxcvx.epochwise_geometric(0.1, 0.8, EPOCH))
    return jaxcvx.GradientDescent(optimizer=optax.chain(noise, rate), max_steps=STEPS, check_every=EPOCH)


def run(quick: bool = False) -> dict[str, Any]:
    """Compute the table of success rates, in float32, and two phase portraits; ``quick``: 20 runs of a few rows."""
    runs = 20 if quick else 200
    rows = methods((1.0,) if quick else RATIOS)
    if quick:
        rows = {name: rows[name] for name in ("gradient descent", "annealed", "no noise on w")}
    settings = {"k": PATCHES, "p": SIZE, "runs": runs, "success": SUCCESS, "steps": STEPS, "seed": 0}
    with ThreadPoolExecutor(2) as pool:
        table = dict(zip(rows, pool.map(lambda name: _row(name, rows[name], runs), rows), strict=True))
    return record("annealed_noise", CLAIM, quick, settings, dtype="float32", table=table, portraits=_portraits())


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, 0, 0, 0))
def _train(solver: Any, problem: TeacherCNN, init: StudentWeights, key: Any) -> tuple[Any, Any]:
    """Return the loss at the end of each run, and the cosine between its filter and the teacher's."""
    solver = solver(key) if callable(solver) else solver
    solution = jaxcvx.solve(problem, solver, init=init, key=key)
    return solution.upper_bound, jnp.cos(problem.angle(solution.params))


def _row(name: str, method: Method, runs: int) -> list[dict[str, Any]]:
    with jax.enable_x64(False):  # of this thread
        return [_cell(name, method, ratio, round(runs * method.share)) for ratio in method.ratios]


def _cell(name: str, method: Method, ratio: float, runs: int) -> dict[str, Any]:
    teachers, starts, noise = jax.random.split(jax.random.key(0), (3, runs))
    problems = jax.vmap(lambda key: TeacherCNN.random(key, PATCHES, SIZE, ratio))(teachers)
    inits = jax.vmap(method.start)(problems, starts)
    losses, cosines = jax.device_get(_train(method.solver, problems, inits, noise))
    wins = int((losses < SUCCESS).sum())
    cell = {"ratio": ratio, "runs": runs, "wins": wins, "rate": wins / runs, "interval": wilson(wins, runs)}
    cell |= {"median_loss": float(np.median(losses)), "trapped": float((cosines < -0.9).mean())}
    reference = REFERENCE.get(name, {}).get(ratio)
    if reference is not None:
        low, high = difference_interval(wins, runs, round(reference * runs), runs)
        cell |= {"reference": reference, "difference": [low, high], "agrees": low <= 0 <= high}
    return cell


def _portraits(runs: int = 12) -> dict[str, Any]:
    """Record a.a* and the angle along runs with q = 1 from random starts: the two phases of the theorem."""
    solvers = {
        "gradient descent": jaxcvx.GradientDescent(optimizer=optax.sgd(0.1)),
        "annealed": jaxcvx.AnnealedNoise(),
    }
    problem = TeacherCNN.random(jax.random.key(1), PATCHES, SIZE, 1.0, jnp.float32)

    def walk(solver: Any, key: Any) -> tuple[Any, Any]:
        first, noise = jax.random.split(key)
        init = problem.random_params(first)
        path = jaxcvx.trajectory(problem, solver, STEPS, init=init, key=noise, every=80)
        return jax.vmap(problem.alignment)(path), jax.vmap(problem.angle)(path)

    found = {}
    for name, solver in solvers.items():
        keys = jax.random.split(jax.random.key(2), runs)
        alignment, angle = jax.device_get(jax.jit(jax.vmap(functools.partial(walk, solver)))(keys))
        found[name] = {"alignment": alignment.round(4).tolist(), "angle": angle.round(4).tolist()}
    point = problem.spurious_point()
    return found | {"trap": [float(problem.alignment(point)), float(np.pi)]}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    rows = []
    for name, cells in result["table"].items():
        for c in cells:
            low, high = c["interval"]
            seen = f"{c['reference']:.3f} {'yes' if c['agrees'] else 'NO'}" if "reference" in c else ""
            rate = f"{c['rate']:.3f} [{low:.3f}, {high:.3f}]"
            rows.append((name, f"{c['ratio']:g}", rate, f"{c['median_loss']:.1e}", f"{c['trapped']:.3f}", seen))
    header = ("", "q", "success", "median loss", "cos < -.9", "reference, agrees")
    print_table(f"Teacher with k={PATCHES}, p={SIZE}", header, rows)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw success by q, ablations at q = 1, and runs in the plane of a.a* and the angle."""
    figure = new_figure(13, 4.6, "Learning a convolutional teacher: annealed noise against gradient descent")
    rates, bars, plane = figure.subplots(1, 3, width_ratios=[1.1, 1.0, 1.1])
    _draw_rates(rates, result["table"])
    _draw_ablations(bars, result["table"])
    _draw_plane(plane, result["portraits"])
    save_png(figure, path)


def _draw_rates(ax: Any, table: dict[str, Any]) -> None:
    style(ax)
    colors = {
        "gradient descent": VERMILLION,
        "SGD, batch 4": ORANGE,
        "annealed, batch 4": GREEN,
        "annealed": BLUE,
        "patient": BLACK,
    }
    for shift, (name, color) in enumerate(colors.items()):
        cells = table.get(name, [])
        x = np.array([c["ratio"] for c in cells]) + 0.12 * (shift - 2)
        y = np.array([c["rate"] for c in cells])
        error = np.abs(np.array([c["interval"] for c in cells]).reshape(-1, 2).T - y)
        ax.errorbar(x, y, error, color=color, marker="o", markersize=4, linewidth=1.2, elinewidth=0.8, label=name)
    threshold = (PATCHES + np.pi - 1) / np.pi
    ax.axvline(threshold, color=INK, linewidth=0.8, linestyle=":")
    label(ax, threshold + 0.3, 0.08, "no trap right of\n(k + π − 1)/π", INK)
    ax.set(ylim=(0, 1.03), xlabel="q = (1'a*)² / |a*|²", ylabel="share of runs with loss < 1e-3")
    ax.legend(frameon=False, fontsize=8.5, loc="lower right", bbox_to_anchor=(1.0, 0.2))


def _draw_ablations(ax: Any, table: dict[str, Any]) -> None:
    style(ax)
    rows = [(name, c) for name, cells in table.items() for c in cells if c["ratio"] == 1 and "ball" not in name]
    for place, (name, cell) in enumerate(rows):
        low, high = cell["interval"]
        color = VERMILLION if name.startswith(("gradient", "SGD")) else BLUE
        ax.plot([low, high], [place, place], color=color, linewidth=1.2)
        ax.plot(cell["rate"], place, "o", color=color, markersize=5)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8.5)
    ax.invert_yaxis()
    ax.set(xlim=(-0.02, 1.02), xlabel="share of runs with loss < 1e-3")
    ax.set_title("q = 1", fontsize=10, color=INK, loc="left")


def _draw_plane(ax: Any, portraits: dict[str, Any]) -> None:
    style(ax)
    for name, color in (("gradient descent", VERMILLION), ("annealed", BLUE)):
        walks = portraits[name]
        for at, (x, y) in enumerate(zip(walks["alignment"], walks["angle"], strict=True)):
            ax.plot(x, y, color=color, linewidth=0.8, alpha=0.6, label=name if at == 0 else None)
            ax.plot(x[0], y[0], ".", color=color, markersize=4)
    ax.plot(*portraits["trap"], "X", color=BLACK, markersize=9)
    ax.plot(1, 0, "*", color=BLACK, markersize=12)
    label(ax, portraits["trap"][0] - 0.02, np.pi + 0.06, "trap", BLACK, va="bottom", ha="center")
    label(ax, 1, 0.14, "teacher", BLACK, va="bottom", ha="center")
    ax.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    ax.set(xlabel="a·a*", ylabel="angle of w and w*", ylim=(-0.1, 3.5))
    ax.set_title("12 runs from random starts, q = 1", fontsize=10, color=INK, loc="left")
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")


if __name__ == "__main__":
    from experiments.__main__ import main

    sys.exit(main(["annealed_noise", *sys.argv[1:]]))
