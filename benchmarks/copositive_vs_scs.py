"""The doubly non-negative relaxation on the spiral: CopositiveADMM against SCS through CVXPY, at equal accuracy.

CVXPY gets the program in block form: a positive semidefinite ``[[U, V], [V^T, W]]`` and ``A U A^T >= 0`` per cell,
where A holds only the facets of the cell (two), scaled as in jaxcvx. The data have two features. Then the relaxation
has the same optimum as training, and objectives are compared with the optimum by ColumnGeneration. Answers of SCS are
not quite feasible. The same code certifies the gaps of all answers: it compares the relaxation's value at the nearest
feasible blocks with the best dual value of the answer's residual, for the multipliers that come with the answer and for
fitted ones. An answer of SCS is compared with the cheapest answer of jaxcvx that is at least as good. The last column
is the gap of the network made from an answer, with output weights fitted anew. jaxcvx makes this network for both
solvers.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from benchmarks.common import interleave, print_table, versions

MEASURES = ("error", "infeasibility", "certified_gap", "network_gap")


def block_program(problem: Any) -> tuple[Any, list[Any], list[Any]]:
    """Build the CVXPY problem, its (p + c, p + c) block variables and its facet constraints."""
    import cvxpy as cp

    from jaxcvx.solvers.copositive.program import facet_rows

    Z, Y, masks = np.asarray(problem.X), np.asarray(problem.Y), np.asarray(problem.arrangements.masks, float)
    p, size = Z.shape[1], Z.shape[1] + Y.shape[1]
    blocks = [cp.Variable((size, size), PSD=True) for _ in masks]
    facets = [A @ block[:p, :p] @ A.T >= 0 for A, block in zip(np.asarray(facet_rows(problem)), blocks, strict=True)]
    F = sum((mask[:, None] * Z) @ block[:p, p:] for mask, block in zip(masks, blocks, strict=True))
    penalty = sum(cp.trace(block) for block in blocks)
    objective = 0.5 * cp.sum_squares(F - Y) + 0.5 * float(problem.beta) * penalty
    return cp.Problem(cp.Minimize(objective), facets), blocks, facets


def judge(problem: Any, blocks: np.ndarray, S: np.ndarray, optimum: float) -> dict[str, float]:
    """Measure the quality of (P, p + c, p + c) blocks with multipliers S (P, k, k) of the facet constraints.

    Returns:
      The objective; ``error``, its relative distance from the optimum; ``infeasibility``, the most negative eigenvalue
      or facet value divided by the largest eigenvalue; ``certified_gap``, the relative gap between the relaxation's
      value at feasible blocks and its best dual value; and ``network_gap``, the gap of the network made from the
      blocks.
    """
    import jax
    import jax.numpy as jnp

    from jaxcvx import training_objective
    from jaxcvx.proximal.psd_cone import project_psd
    from jaxcvx.solvers.copositive.program import (
        Blocks,
        Dual,
        congruence,
        facet_rows,
        fit_multipliers,
        make_feasible,
        relaxed_bound,
        relaxed_objective,
    )
    from jaxcvx.solvers.copositive.rounding import evaluate_relaxed
    from jaxcvx.solvers.core.solution import Outcome

    p = problem.X.shape[1]
    M, A = jnp.asarray(blocks), facet_rows(problem)
    params = Blocks(M[:, :p, :p], M[:, :p, p:], M[:, p:, p:])
    dual = Dual(problem.Y - problem.operator.forward(params.V), jnp.asarray(S + S.transpose(0, 2, 1)) / 2)
    bound = max(float(relaxed_bound(problem, each)) for each in (dual, fit_multipliers(problem, dual)))
    N = project_psd(M)
    nearest = make_feasible(problem, Blocks(N[:, :p, :p], N[:, :p, p:], N[:, p:, p:]))
    feasible = float(relaxed_objective(problem, nearest))
    parts = jax.jit(evaluate_relaxed)(problem, Outcome(params, dual))
    upper = float(training_objective(parts.network, problem.X, problem.Y, float(problem.beta)))
    values, facets = np.linalg.eigvalsh(blocks), np.asarray(congruence(A, params.U))
    objective = float(relaxed_objective(problem, params))
    return {
        "objective": objective,
        "error": abs(objective - optimum) / optimum,
        "infeasibility": max(0.0, -float(values.min()), -float(facets.min())) / float(values.max()),
        "certified_gap": (feasible - bound) / feasible,
        "network_gap": (upper - float(parts.lower_bound)) / upper,
    }


def assemble(params: Any) -> np.ndarray:
    """Assemble blocks (U, V, W) into (P, p + c, p + c) matrices."""
    U, V, W = map(np.asarray, params)
    return np.concatenate([np.concatenate([U, V], 2), np.concatenate([V.transpose(0, 2, 1), W], 2)], 1)


def run(
    quick: bool = False,
    *,
    num_per_arm: int = 20,
    betas: tuple[float, ...] = (0.1, 0.01),
    tols: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6),
    eps: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5),
    seconds: float = 30.0,
) -> dict[str, Any]:
    """Time both solvers for every beta.

    Args:
      quick: SCS at the first two eps only, and one repeat of jaxcvx instead of five.
      num_per_arm: a third of n.
      betas: weight decays.
      tols: tolerances of CopositiveADMM.
      eps: tolerances of SCS, absolute and relative.
      seconds: limit on each solve of SCS.
    """
    import cvxpy  # noqa: F401  (a missing package is told before anything is timed)
    import jax
    import scs  # noqa: F401

    with jax.enable_x64(True):
        cases = [_one(num_per_arm, beta, tols, eps[:2] if quick else eps, seconds, 1 if quick else 5) for beta in betas]
    return {
        "benchmark": "copositive_vs_scs",
        "versions": versions("jaxcvx", "jax", "jaxlib", "numpy", "cvxpy", "scs", "clarabel"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "scs_limit_seconds": seconds,
        "cases": cases,
    }


def _one(
    num_per_arm: int,
    beta: float,
    tols: tuple[float, ...],
    eps: tuple[float, ...],
    seconds: float,
    repeats: int,
) -> dict[str, Any]:
    import jaxcvx
    from jaxcvx.datasets import spiral
    from jaxcvx.solvers.core.loop import run_jitted  # the program that solve runs, compiled once for both

    X, arm = spiral(num_per_arm)
    problem = jaxcvx.make_problem(X, np.eye(3)[arm], beta, arrangements=jaxcvx.enumerate_arrangements(X))
    exact = jaxcvx.solve(problem, jaxcvx.ColumnGeneration(tol=1e-9))
    optimum = float(exact.upper_bound)
    prepared = jaxcvx.CopositiveADMM().prepare(problem)
    start = jaxcvx.CopositiveADMM().initial_params(prepared, None)

    ours = []
    for tol in tols:
        solver = jaxcvx.CopositiveADMM(tol=tol)
        calls = {
            "whole": lambda solver=solver: jaxcvx.solve(problem, solver),
            "solver": lambda solver=solver: run_jitted(prepared, solver, start, None),
        }
        times, results = interleave(calls, repeats)
        solution = results["whole"]
        ours.append(
            {
                "tol": tol,
                "seconds": times["whole"],
                "solver_seconds": times["solver"],
                "compile_seconds": times["whole"]["first"] - times["whole"]["median"],
                "steps": int(solution.num_steps),
                "status": jaxcvx.Status(int(solution.status)).name,
                "reported_gap": float(solution.gap),
                **judge(prepared, assemble(solution.params), np.asarray(results["solver"].outcome.dual.S), optimum),
            }
        )
    theirs = [_scs(prepared, each, seconds, optimum) for each in eps]
    for row in theirs:
        enough = [own for own in ours if own["certified_gap"] <= row["certified_gap"]]
        match = min(enough, key=lambda own: own["seconds"]["median"], default=None)
        if match is not None:
            row["matched_tol"] = match["tol"]
            row["scs_over_jaxcvx"] = row["solve_seconds"] / match["seconds"]["median"]
            row["scs_over_jaxcvx_solver"] = row["solve_seconds"] / match["solver_seconds"]["median"]
    n, d = X.shape
    return {
        "size": {"n": n, "d": d, "c": 3, "P": len(problem.arrangements.masks)},
        "beta": beta,
        "optimum": optimum,
        "optimum_gap": float(exact.gap),
        "jaxcvx": ours,
        "scs": theirs,
    }


def _scs(problem: Any, eps: float, seconds: float, optimum: float) -> dict[str, Any]:
    """Run one solve. Return SCS's own time (setup and iterations) and the time of CVXPY's compilation separately."""
    import cvxpy as cp

    start = time.perf_counter()
    program, blocks, facets = block_program(problem)
    program.get_problem_data(cp.SCS)
    compiled = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notice of low accuracy: the gaps tell
        program.solve(solver=cp.SCS, eps_abs=eps, eps_rel=eps, max_iters=10**7, time_limit_secs=seconds)
    stats = program.solver_stats
    return {
        "eps": eps,
        "status": program.status,
        "iterations": int(stats.num_iters),
        "solve_seconds": float(stats.solve_time) + float(stats.setup_time or 0.0),
        "cvxpy_compile_seconds": compiled - start,
        **judge(
            problem,
            np.stack([block.value for block in blocks]),
            2 * np.stack([np.maximum(facet.dual_value, 0.0) for facet in facets]),  # U's block counts half
            optimum,
        ),
    }


def show(result: dict[str, Any]) -> None:
    """Print a table for each beta."""
    for case in result["cases"]:
        size = case["size"]
        rows = []
        for row in case["jaxcvx"]:
            name, taken = f"jaxcvx, tol {row['tol']:g}", row["seconds"]["median"]
            rows.append(
                (
                    name,
                    f"{taken:.4f}",
                    f"{row['compile_seconds']:.1f}",
                    str(row["steps"]),
                    *_accuracy(row),
                    "",
                )
            )
        for row in case["scs"]:
            name = f"SCS, eps {row['eps']:g}"
            ratio = f"{row['scs_over_jaxcvx']:.0f}x" if "scs_over_jaxcvx" in row else ""
            times = (f"{row['solve_seconds']:.4f}", f"{row['cvxpy_compile_seconds']:.1f}")
            rows.append((name, *times, str(row["iterations"]), *_accuracy(row), ratio))
        title = (
            f"Spiral, n={size['n']} P={size['P']}, beta = {case['beta']:g}: optimum {case['optimum']:.8f} "
            f"to {case['optimum_gap']:.0e}"
        )
        header = (
            "",
            "s",
            "compiling s",
            "steps",
            "error",
            "infeasible",
            "gap",
            "network gap",
            "SCS / jaxcvx",
        )
        print_table(title, header, rows)


def _accuracy(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{row[name]:.1e}" for name in MEASURES)
