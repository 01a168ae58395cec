"""The gated ReLU program against a plain FISTA in JAX (fixed step 1/L), both to the same relative gap.

Each stops at the gap that it computes itself. FISTA uses the dual value of its residual. ProximalGradient also uses the
dual point of its Newton phase. The table has both gaps of each answer, computed in numpy.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import (
    blocks,
    compare,
    interleave,
    make_problem,
    planted_instance,
    print_table,
    reference,
    versions,
)

TOL = 1e-6


def fista(X: Any, y: Any, masks: Any, beta: Any, *, restart: bool, max_steps: int = 40_000, every: int = 20) -> Any:
    """Run textbook FISTA with matrix-free products to a gap of TOL. Return weights (P, d) and the number of steps.

    With ``restart`` the momentum is dropped whenever it points uphill (O'Donoghue and Candes 2015).
    """
    D = masks.astype(X.dtype)

    def forward(W):
        return jnp.sum((D.T @ W) * X, axis=1)

    def adjoint(R):
        return (D * R) @ X

    def gap(W):
        R = y - forward(W)
        objective = 0.5 * R @ R + beta * jnp.sum(jnp.linalg.norm(W, axis=1))
        limit = beta / jnp.max(jnp.linalg.norm(adjoint(R), axis=1))
        scale = jnp.clip(R @ y / (R @ R), -limit, limit)
        return (objective - scale * (R @ y) + 0.5 * scale**2 * (R @ R)) / objective

    def power(_, v):
        v = forward(adjoint(v))
        return v / jnp.linalg.norm(v)

    v = jax.lax.fori_loop(0, 50, power, jnp.ones_like(y) / jnp.sqrt(len(y)))
    step = 1 / (1.02 * jnp.linalg.norm(forward(adjoint(v))))

    def iteration(_, state):
        W, Z, t = state
        V = Z + step * adjoint(y - forward(Z))
        size = jnp.linalg.norm(V, axis=1, keepdims=True)
        new = V * jnp.maximum(1 - beta * step / jnp.maximum(size, 1e-300), 0)
        t = jnp.where(restart & (jnp.sum((Z - new) * (new - W)) > 0), 1.0, t)
        t_new = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return new, new + (t - 1) / t_new * (new - W), t_new

    def block(carry):
        state = jax.lax.fori_loop(0, every, iteration, carry[0])
        return state, carry[1] + every, gap(state[0])

    zero = jnp.zeros((len(D), X.shape[1]), X.dtype)
    start = (zero, zero, jnp.ones((), X.dtype)), 0, jnp.asarray(jnp.inf, X.dtype)
    state, steps, _ = jax.lax.while_loop(lambda c: (c[2] > TOL) & (c[1] < max_steps), block, start)
    return state[0], steps


def run(
    quick: bool = False,
    *,
    size: tuple[int, int, int] = (1000, 50, 100),
    fractions: tuple[float, ...] = (0.05, 0.01),
) -> dict[str, Any]:
    """Time FISTA and ProximalGradient in turns, for each beta.

    Args:
      quick: three repeats instead of seven.
      size: n, d, P.
      fractions: betas as fractions of the gated beta_max.
    """
    import jaxcvx
    from jaxcvx.solvers.core import loop

    instance = planted_instance(*size)
    solver = jaxcvx.ProximalGradient(tol=TOL)
    accelerated = jaxcvx.ProximalGradient(tol=TOL, phases="accelerated")
    cases = []
    with jax.enable_x64(True):
        X, y, masks = (jnp.asarray(a) for a in (instance.X, instance.y, instance.masks))
        plain = jax.jit(lambda beta, restart: fista(X, y, masks, beta, restart=restart), static_argnums=1)
        solve_only = {
            "ProximalGradient": jax.jit(lambda p: loop.run(p, solver, solver.initial_params(p, None), None)),
            "accelerated phase only": jax.jit(
                lambda p: loop.run(p, accelerated, accelerated.initial_params(p, None), None)
            ),
        }
        for fraction in fractions:
            beta = fraction * instance.beta_max
            problem = make_problem(instance, beta)
            calls: dict[str, Any] = {
                "plain FISTA": lambda b=beta: plain(b, False),
                "FISTA with restarts": lambda b=beta: plain(b, True),
            }
            calls |= {name: lambda f=f, p=problem: f(p) for name, f in solve_only.items()}
            calls["jaxcvx.solve, all of it"] = lambda p=problem: jaxcvx.solve(p, solver)
            seconds, results = interleave(calls, 3 if quick else 7)
            found = {name: _weights(result) for name, result in results.items()}
            weights = {name: W for name, (W, _) in found.items()}
            answers = compare(instance, weights | {"reference": reference(instance, beta)}, beta)
            for name, (_, steps) in found.items():
                case = {"beta_over_beta_max": fraction, "method": name, "steps": steps, **answers[name]}
                cases.append({**case, "seconds": seconds[name]})
    return {
        "benchmark": "gated_vs_fista",
        "versions": versions("jaxcvx", "jax", "jaxlib", "numpy", "scipy"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "size": {"n": size[0], "d": size[1], "P": len(instance.masks)},
        "tol": TOL,
        "cases": cases,
    }


def _weights(result: Any) -> tuple[np.ndarray, int]:
    if isinstance(result, tuple) and len(result) == 2:
        return np.asarray(result[0]), int(result[1])
    params = result.outcome.params if hasattr(result, "outcome") else result.params
    return blocks(params), int(result.num_steps)


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    size = result["size"]
    title = f"Gated ReLU to relative gap {result['tol']:g}, n={size['n']} d={size['d']} P={size['P']}"
    rows, slowest = [], 1.0
    for case in result["cases"]:
        t = case["seconds"]
        slowest = t["median"] if case["method"] == "plain FISTA" else slowest
        times = (f"{t[key]:.3f}" for key in ("median", "min", "max"))
        gaps = (f"{case['own_gap']:.1e}", f"{case['true_gap']:.1e}")
        numbers = (str(case["steps"]), *gaps, f"{slowest / t['median']:.1f}x")
        rows.append((f"{case['beta_over_beta_max']:g}", case["method"], *times, *numbers))
    header = ("beta", "method", "median s", "min s", "max s", "steps", "own gap", "true gap", "speed-up")
    print_table(title, header, rows)
