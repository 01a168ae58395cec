"""The gated ReLU program to a relative gap of 1e-8, against celer's GroupLasso to its tol of 1e-5.

celer gets the explicit n x (dP) matrix in Fortran order; the time to build it is not counted. Its objective is ``1/(2n)
||y - A w||^2 + alpha sum_i ||w_i||``, so alpha = beta / n. Its tol is relative to ``||y||^2 / n``, which is less strict
than a tolerance relative to the objective. The table has the relative gap of each answer, computed here in numpy: by
the dual value of its own residual, and by the best dual value known.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from benchmarks.common import (
    Instance,
    blocks,
    compare,
    interleave,
    make_problem,
    planted_instance,
    print_table,
    reference,
    versions,
)

TOL = 1e-8
CELER_TOL = 1e-5


def explicit_matrix(instance: Instance) -> np.ndarray:
    """Build the n x (dP) matrix ``[D_1 X, ..., D_P X]`` in Fortran order."""
    n, d = instance.X.shape
    A = np.empty((n, d * len(instance.masks)), order="F")
    for i, mask in enumerate(instance.masks):
        A[:, i * d : (i + 1) * d] = mask[:, None] * instance.X
    return A


def run(quick: bool = False, *, size: tuple[int, int, int] = (1000, 50, 100), fraction: float = 0.01) -> dict[str, Any]:
    """Time both in turns and judge both answers by the same float64 numpy code.

    Args:
      quick: three repeats instead of seven.
      size: n, d, P.
      fraction: beta as a fraction of the gated beta_max.
    """
    import celer
    import jax

    import jaxcvx
    from jaxcvx.solvers.core import loop

    instance = planted_instance(*size)
    n, d = instance.X.shape
    beta = fraction * instance.beta_max
    A = explicit_matrix(instance)
    solver = jaxcvx.ProximalGradient(tol=TOL)

    model = celer.GroupLasso(groups=d, alpha=beta / n, fit_intercept=False, tol=CELER_TOL)

    def fit() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notice of not having converged: the gaps tell
            return model.fit(A, instance.y)

    with jax.enable_x64(True):
        problem = make_problem(instance, beta)
        alone = jax.jit(lambda p: loop.run(p, solver, solver.initial_params(p, None), None))
        calls = {"jaxcvx": lambda: jaxcvx.solve(problem, solver), "celer": fit}
        seconds, results = interleave(calls, 3 if quick else 7)
        only, _ = interleave({"solver": lambda: alone(problem)}, 3 if quick else 7)
        weights = {
            "jaxcvx": blocks(results["jaxcvx"].params),
            "celer": np.asarray(results["celer"].coef_, np.float64).reshape(-1, d),
            "reference": reference(instance, beta),
        }
    answers = compare(instance, weights, beta)
    solution = results["jaxcvx"]
    return {
        "benchmark": "gated_vs_celer",
        "versions": versions("jaxcvx", "jax", "jaxlib", "numpy", "scipy", "celer", "scikit-learn"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "size": {"n": n, "d": d, "P": len(instance.masks)},
        "beta": beta,
        "beta_over_beta_max": fraction,
        "tol": {"jaxcvx": TOL, "celer": CELER_TOL},
        "seconds": {**seconds, "jaxcvx, solver only": only["solver"]},
        "jaxcvx_compile_seconds": seconds["jaxcvx"]["first"] - seconds["jaxcvx"]["median"],
        "jaxcvx_steps": int(solution.num_steps),
        "jaxcvx_program_gap": float(solution.program_gap),
        "jaxcvx_status": jaxcvx.Status(int(solution.status)).name,
        "celer_reported_gap": float(results["celer"].dual_gap_) * n / answers["celer"]["objective"],
        "answers": answers,
        "celer_over_jaxcvx": seconds["celer"]["median"] / seconds["jaxcvx"]["median"],
    }


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    size = result["size"]
    shape = f"n={size['n']} d={size['d']} P={size['P']}"
    title = f"Gated ReLU, {shape}, beta = {result['beta_over_beta_max']:g} beta_max"
    rows = []
    for name, tol in result["tol"].items():
        answer, t = result["answers"][name], result["seconds"][name]
        times = (f"{t[key]:.3f}" for key in ("median", "min", "max"))
        gaps = (f"{answer['own_gap']:.1e}", f"{answer['true_gap']:.1e}")
        rows.append((f"{name}, tol {tol:g}", *times, f"{answer['objective']:.10f}", *gaps))
    print_table(title, ("", "median s", "min s", "max s", "objective", "own gap", "true gap"), rows)
    only = result["seconds"]["jaxcvx, solver only"]["median"]
    compiling = result["jaxcvx_compile_seconds"]
    print(f"celer / jaxcvx: {result['celer_over_jaxcvx']:.2f}x (compiling, {compiling:.1f} s, not counted)")
    print(f"jaxcvx without certificate and rounding: {only:.3f} s; {result['jaxcvx_steps']} steps")
