"""CVXPY in a process of its own, so that it can be stopped: ``python convex.py TASK.npz ANSWER.npz``.

The task holds X, y, masks, beta, kind ("gated" or "relu"), solver, options (JSON). ``seconds`` is the solver's own
time, ``total`` with CVXPY's compilation.
"""

from __future__ import annotations

import json
import sys
import time

import cvxpy as cp
import numpy as np


def main(task_path: str, answer_path: str) -> None:
    """Solve one task."""
    task = np.load(task_path)
    X, y, masks, beta = task["X"], task["y"], task["masks"], float(task["beta"])
    P, d = len(masks), X.shape[1]
    signs = [1.0] if str(task["kind"]) == "gated" else [1.0, -1.0]
    A = np.concatenate([mask[:, None] * X for mask in masks], axis=1)
    blocks = [cp.Variable((P, d)) for _ in signs]
    fit = sum(sign * (A @ cp.reshape(W, (P * d,), order="C")) for sign, W in zip(signs, blocks, strict=True))
    constraints = []
    if len(signs) == 2:
        tall = cp.Constant(2 * masks.T - 1.0)
        constraints = [cp.multiply(tall, X @ W.T) >= 0 for W in blocks]
    penalty = sum(cp.sum(cp.norm(W, 2, axis=1)) for W in blocks)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(fit - y) + beta * penalty), constraints)
    begin = time.perf_counter()
    problem.solve(solver=str(task["solver"]), **json.loads(str(task["options"])))
    total = time.perf_counter() - begin
    seconds = problem.solver_stats.solve_time or total
    np.savez(answer_path, seconds=seconds, total=total, **{f"weights_{k}": W.value for k, W in enumerate(blocks)})


if __name__ == "__main__":
    main(*sys.argv[1:])
