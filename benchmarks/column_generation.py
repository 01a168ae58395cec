"""Training objective at equal wall time: ColumnGeneration against the best of 20 Adam runs, and a wider, longer one.

Planted problems: one output (n=500, d=10, 5 neurons, noise 0.1, beta 0.5) and three (n=300, d=8). Adam runs take
5000 steps of cosine decay at width 100, one after the other; ColumnGeneration is given at most the time of those
20 runs; then one Adam run of width 400 and 20000 steps. Compiling is not counted. Everything in float32 but
ColumnGeneration's final weights and all objectives, which are evaluated in float64. The heuristic gap after
``gap_seconds`` is by at least 5000 fresh starts at the final network.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import print_table, versions


def planted(key: int, n: int, d: int, neurons: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and Y (n, c) of a planted network plus noise; drawn in float64."""
    k = jax.random.split(jax.random.PRNGKey(key), 4)
    X = jax.random.normal(k[0], (n, d))
    U, V = jax.random.normal(k[1], (d, neurons)), jax.random.normal(k[2], (neurons,) if c == 1 else (neurons, c))
    Y = jax.nn.relu(X @ U) @ V
    Y = Y / jnp.std(Y) + 0.1 * jax.random.normal(k[3], Y.shape)
    return np.asarray(X), np.asarray(Y).reshape(n, c)


def run(
    quick: bool = False,
    *,
    sizes: tuple[tuple[int, int, int, int], ...] = ((500, 10, 5, 1), (300, 8, 5, 3)),
    problems: int = 10,
    beta: float = 0.5,
    runs: int = 20,
    gap_seconds: float = 60.0,
    wide: tuple[int, int] = (400, 20_000),
) -> dict[str, Any]:
    """All problems.

    Args:
      quick: two problems of each size, five Adam runs, and no run for the gap.
      sizes: (n, d, planted neurons, outputs).
      problems: keys of each size.
      beta: weight decay.
      runs: Adam runs.
      gap_seconds: wall time of the solve that the heuristic gap is taken from, scalar problems only.
      wide: width and steps of the long Adam run.
    """
    if quick:
        problems, runs, gap_seconds = 2, 5, 0.0
    with jax.enable_x64(True):
        rows = [
            _one(key, size, beta, runs, gap_seconds if size[3] == 1 else 0.0, wide)
            for size in sizes
            for key in range(problems)
        ]
    return {
        "benchmark": "column_generation",
        "versions": versions("jaxcvx", "jax", "jaxlib", "optax"),
        "backend": jax.default_backend(),
        "beta": beta,
        "adam_runs": runs,
        "wide": {"width": wide[0], "steps": wide[1]},
        "problems": rows,
    }


def _one(
    key: int, size: tuple[int, int, int, int], beta: float, runs: int, gap_seconds: float, wide: tuple[int, int]
) -> dict[str, Any]:
    import jaxcvx

    n, d, neurons, c = size
    X, Y = planted(key, n, d, neurons, c)
    problem = jaxcvx.make_problem(X, Y, beta)
    low = jaxcvx.make_problem(X.astype(np.float32), Y.astype(np.float32), beta)

    def adam(width: int, steps: int, seed: int) -> tuple[float, float]:
        solver = jaxcvx.GradientDescent(width=width, max_steps=steps, schedule="cosine", check_every=500)
        start = time.perf_counter()
        network = jaxcvx.solve(low, solver, key=jax.random.key(seed)).network
        seconds = time.perf_counter() - start
        wide_network = jax.tree.map(lambda a: a.astype(jnp.float64), network)
        return float(jaxcvx.training_objective(wide_network, X, Y, beta)), seconds

    if key == 0:  # compiles; the other problems have equal shapes
        adam(100, 5000, 0)
        adam(*wide, 0)
    plain = [adam(100, 5000, seed) for seed in range(runs)]
    budget = sum(seconds for _, seconds in plain)
    wide_objective, wide_seconds = adam(*wide, 0)

    def generate(seconds: float | None, starts: int, rounds: int = 1000) -> tuple[Any, float]:
        solver = jaxcvx.ColumnGeneration(tol=1e-4, max_steps=rounds, max_seconds=seconds, final_starts=starts)
        start = time.perf_counter()
        return jaxcvx.solve(problem, solver, key=jax.random.key(key)), time.perf_counter() - start

    generate(None, 512, rounds=6)  # compiles: how many neurons there are, and so the shapes, depends on the problem
    solution, spent = generate(0.5 * budget, 512)  # the last round and the final certificate come on top
    row = {
        "n": n,
        "d": d,
        "outputs": c,
        "key": key,
        "adam_best": min(value for value, _ in plain),
        "adam_median": float(np.median([value for value, _ in plain])),
        "adam_seconds": budget,
        "wide_adam": wide_objective,
        "wide_adam_seconds": wide_seconds,
        "jaxcvx": float(solution.upper_bound),
        "jaxcvx_seconds": spent,
        "width": solution.network.width,
    }
    if gap_seconds:
        longer, spent = generate(0.7 * gap_seconds, 5000)
        estimate = float(longer.heuristic_bound)
        row |= {
            "long": float(longer.upper_bound),
            "long_seconds": spent,
            "heuristic_bound": estimate,
            "heuristic_gap": (float(longer.upper_bound) - estimate) / float(longer.upper_bound),
        }
    return row


def show(result: dict[str, Any]) -> None:
    """Print the table; objectives per sample."""
    rows = []
    for row in result["problems"]:
        per = 1 / row["n"]
        gap = f"{100 * row['heuristic_gap']:.2f} %" if "heuristic_gap" in row else ""
        rows.append(
            (
                f"n={row['n']} d={row['d']} c={row['outputs']} key {row['key']}",
                *(f"{row[name] * per:.7f}" for name in ("adam_best", "wide_adam", "jaxcvx")),
                *(f"{row[name]:.1f}" for name in ("adam_seconds", "wide_adam_seconds", "jaxcvx_seconds")),
                f"{row['long'] * per:.7f}" if "long" in row else "",
                f"{row['long_seconds']:.0f}" if "long" in row else "",
                gap,
            )
        )
    header = ("", f"Adam best of {result['adam_runs']}", "wide Adam", "jaxcvx", "s", "s", "s", "longer", "s", "gap")
    print_table("Training objective per sample", header, rows)
