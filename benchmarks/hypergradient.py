"""Cost of a derivative of a solution: the gradient of a validation loss through ``solve``, relative to one solve."""

from __future__ import annotations

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import interleave, print_table, versions

TOL = 1e-6


def run(
    quick: bool = False, *, size: tuple[int, int, int] = (400, 20, 50), problems: int = 10, beta: float = 0.02
) -> dict[str, Any]:
    """Time a solve, and a solve with the gradient of its validation loss with respect to X, Y and beta.

    Args:
      quick: three problems.
      size: (n, d, P) of Gaussian data with targets of a planted network. Validation has as many rows.
      problems: number of problems.
      beta: weight decay relative to beta_max.
    """
    import jaxcvx

    n, d, P = size
    solver = jaxcvx.ProximalGradient(tol=TOL)
    rows = []
    with jax.enable_x64(True):

        def loss(problem: Any, X: Any, y: Any, masks: Any) -> Any:
            W = jaxcvx.solve(problem, solver).params
            return jnp.mean((jnp.einsum("pn,nd,pdc->nc", masks, X, W) - y) ** 2)

        value = jax.jit(loss)
        gradient = jax.jit(jax.value_and_grad(loss, allow_int=True))
        for seed in range(3 if quick else problems):
            rng = np.random.default_rng(seed)
            X, U, v = rng.standard_normal((2 * n, d)), rng.standard_normal((d, 5)), rng.standard_normal(5)
            y = np.maximum(X @ U, 0) @ v
            y = (y / y.std() + 0.1 * rng.standard_normal(2 * n))[:, None]
            cells = jaxcvx.sample_arrangements(jax.random.key(seed), X[:n], P)
            problem = jaxcvx.make_problem(X[:n], y[:n], 1.0, arrangements=cells)
            problem = problem.replace(beta=beta * jaxcvx.beta_max(problem))
            masks = (np.asarray(cells.gates) @ X[n:].T >= 0).astype(float)
            arguments = (problem, X[n:], y[n:], masks)
            calls = {"solve": lambda a=arguments: value(*a), "gradient": lambda a=arguments: gradient(*a)}
            seconds, _ = interleave(calls, 3 if quick else 7)
            extra = seconds["gradient"]["median"] / seconds["solve"]["median"] - 1
            rows.append({"seed": seed, "seconds": seconds, "extra": extra})
    return {
        "benchmark": "hypergradient",
        "versions": versions("jaxcvx", "jax", "jaxlib"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "size": size,
        "tol": TOL,
        "beta": beta,
        "problems": rows,
        "median_extra": statistics.median(row["extra"] for row in rows),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    rows = []
    for row in result["problems"]:
        times = (f"{1e3 * row['seconds'][name]['median']:.1f}" for name in ("solve", "gradient"))
        rows.append((str(row["seed"]), *times, f"{row['extra']:.2f}"))
    rows.append(("median", "", "", f"{result['median_extra']:.2f}"))
    title = f"(n, d, P) = {tuple(result['size'])}, gap {result['tol']:g}: cost of a gradient in solves"
    print_table(title, ("problem", "solve, ms", "with gradient, ms", "gradient / solve"), rows)


if __name__ == "__main__":
    import sys

    from benchmarks.__main__ import main

    sys.exit(main(["hypergradient", *sys.argv[1:]]))
