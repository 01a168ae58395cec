"""A path of convex programs: 50 betas against 50 solves from zero. Both have certificates and are compiled once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import interleave, make_problem, planted_instance, print_table, versions

TOL = 1e-6


def run(
    quick: bool = False,
    *,
    sizes: tuple[tuple[int, int, int], ...] = ((400, 20, 50), (1000, 50, 100)),
    betas: int = 50,
    smallest: float = 0.01,
) -> dict[str, Any]:
    """Time both in turns.

    Args:
      quick: the first size, with 10 betas.
      sizes: (n, d, P) of planted instances.
      betas: number of betas, from beta_max down in equal ratios.
      smallest: the last beta, relative to beta_max.
    """
    import jaxcvx

    if quick:
        sizes, betas = sizes[:1], 10
    solver = jaxcvx.ProximalGradient(tol=TOL)
    cases = []
    with jax.enable_x64(True):
        for size in sizes:
            instance = planted_instance(*size)
            problem = make_problem(instance, 1.0)
            grid = float(jaxcvx.beta_max(problem)) * np.geomspace(1.0, smallest, betas)
            single = jax.jit(lambda problem, beta: jaxcvx.solve(problem.replace(beta=beta), solver))
            calls = {
                "path": lambda p=problem, g=grid: jaxcvx.regularization_path(p, g, solver),
                "cold": lambda p=problem, g=grid, f=single: [f(p, jnp.asarray(beta)) for beta in g],
            }
            seconds, results = interleave(calls, 1 if quick else 3)
            path, cold = results["path"], jax.tree.map(lambda *a: np.stack(a), *results["cold"])
            difference = np.abs(path.objective - cold.objective) / np.abs(cold.objective)
            cases.append(
                {
                    "size": size,
                    "seconds": seconds,
                    "ratio": seconds["cold"]["median"] / seconds["path"]["median"],
                    "largest_gap": {"path": float(np.max(path.program_gap)), "cold": float(np.max(cold.program_gap))},
                    "steps": {"path": int(np.sum(path.num_steps)), "cold": int(np.sum(cold.num_steps))},
                    "difference": float(np.max(difference)),
                }
            )
    return {
        "benchmark": "convex_path",
        "versions": versions("jaxcvx", "jax", "jaxlib"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "tol": TOL,
        "betas": betas,
        "smallest": smallest,
        "cases": cases,
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for case in result["cases"]:
        for name in ("path", "cold"):
            t = case["seconds"][name]
            numbers = (f"{t['median']:.3f}", f"{t['min']:.3f}", f"{t['max']:.3f}", str(case["steps"][name]))
            rows.append((f"{tuple(case['size'])}, {name}", *numbers, f"{case['largest_gap'][name]:.1e}"))
        rows.append((f"cold / path: {case['ratio']:.2f}", "", "", "", "", f"{case['difference']:.1e}"))
    title = f"{result['betas']} betas down to {result['smallest']:g} beta_max, to a gap of {result['tol']:g}"
    print_table(title, ("(n, d, P)", "median s", "min s", "max s", "steps", "gap"), rows)


if __name__ == "__main__":
    import sys

    from benchmarks.__main__ import main

    sys.exit(main(["convex_path", *sys.argv[1:]]))
