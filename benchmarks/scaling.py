"""Growth of the cost with n, d, P and c: seconds and bytes of a fixed number of accelerated steps, log-log slopes.

The bytes are arguments, results and temporaries of the compiled program, as the compiler counts them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import device_name, interleave, print_table, versions

BASE = {"n": 1000, "d": 50, "P": 100, "c": 1}
RANGES = {
    "n": (1000, 2000, 4000, 8000, 16000),
    "d": (25, 50, 100, 200, 400),
    "P": (100, 200, 400, 800, 1600),
    "c": (1, 2, 4, 8, 16),
}
STEPS = 40


def instance(n: int, d: int, P: int, c: int) -> Any:
    """A Gaussian problem."""
    import jaxcvx

    rng = np.random.default_rng(0)
    X, gates = rng.standard_normal((n, d)), rng.standard_normal((P, d))
    cells = jaxcvx.Arrangements(jnp.asarray(gates @ X.T >= 0), jnp.asarray(gates))
    problem = jaxcvx.make_problem(X, rng.standard_normal((n, c)), 1.0, arrangements=cells)
    return problem.replace(beta=0.05 * problem.beta_max("gated"))


def slope(sizes: Any, costs: Any) -> float:
    """Least-squares slope of log cost over log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def run(quick: bool = False, *, ranges: dict[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """Time every size of one variable in turns. The other variables keep their base values.

    Args:
      quick: one repeat, and only two sizes of n.
      ranges: sizes for each variable, which replace the default ones.
    """
    import jaxcvx
    from jaxcvx.solvers.core import loop

    solver = jaxcvx.ProximalGradient(tol=0.0, max_steps=STEPS, phases="accelerated")
    ranges = ranges or ({"n": RANGES["n"][:2]} if quick else RANGES)
    program = jax.jit(lambda p: loop.run(p, solver, solver.initial_params(p, None), None))
    curves = {}
    with jax.enable_x64(True):
        for name, sizes in ranges.items():
            problems = {size: instance(**(BASE | {name: size})) for size in sizes}
            memory = []
            for problem in problems.values():
                used = program.lower(problem).compile().memory_analysis()
                memory.append(used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes)
            calls = {str(size): lambda p=problem: program(p).outcome.params for size, problem in problems.items()}
            seconds, _ = interleave(calls, 1 if quick else 5)
            medians = [seconds[str(size)]["median"] for size in sizes]
            curves[name] = {
                "sizes": list(sizes),
                "seconds": medians,
                "bytes": memory,
                "time_slope": slope(sizes, medians),
                "memory_slope": slope(sizes, memory),
            }
    return {
        "benchmark": "scaling",
        "versions": versions("jaxcvx", "jax", "jaxlib"),
        "device": device_name(),
        "dtype": "float64",
        "base": BASE,
        "steps": STEPS,
        "curves": curves,
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for name, curve in result["curves"].items():
        for k, size in enumerate(curve["sizes"]):
            rows.append((f"{name} = {size}", f"{curve['seconds'][k]:.3f}", f"{curve['bytes'][k] / 2**20:.1f}"))
        rows.append((f"slope in {name}", f"{curve['time_slope']:.2f}", f"{curve['memory_slope']:.2f}"))
    print_table(f"{result['steps']} accelerated steps from {result['base']}", ("", "seconds", "MiB"), rows)
