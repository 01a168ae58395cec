"""Time solves of the jaxcvx on the path, one for each line of standard input: the number of a case, answered by JSON.

    python solves.py < cases

The first answer to a case holds the seconds of its first call, with compilation. Each answer holds the seconds of one
later call, the number of steps and the objective.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcvx
from benchmarks import peers
from jaxcvx.datasets import spiral


def group_lasso(case: Any) -> tuple[Any, Any]:
    """Problem and solver of a case of ``benchmarks.peers``."""
    X, Y, gates = case.data()
    masks = (gates @ X.T) >= 0
    first = np.sort(np.unique(masks, axis=0, return_index=True)[1])
    pull = np.einsum("pn,nd,nc->pdc", masks[first], X, Y, optimize=True)
    beta = case.fraction * np.linalg.norm(pull, axis=(1, 2)).max()
    cells = jaxcvx.Arrangements(jnp.asarray(masks[first]), jnp.asarray(gates[first]))
    solver = jaxcvx.ProximalGradient if case.kind == "gated" else jaxcvx.ConeADMM
    return jaxcvx.make_problem(X, Y, beta, arrangements=cells), solver(tol=case.tol)


def digits() -> tuple[Any, Any, Any]:
    """300 digits, their classes one-hot, and 32 sampled cells."""
    from sklearn.datasets import load_digits

    data = load_digits()
    X, Y = data.data[:300] / 16, np.eye(10)[data.target[:300]]
    return X, Y, jaxcvx.sample_arrangements(jax.random.key(0), X, 32)


def accelerated() -> tuple[Any, Any]:
    X, Y, cells = digits()
    return jaxcvx.make_problem(X, Y, 0.3, arrangements=cells), jaxcvx.ProximalGradient(phases="accelerated", tol=1e-4)


def logistic() -> tuple[Any, Any]:
    X, Y, cells = digits()
    signs = 2 * Y[:, :1] - 1
    return jaxcvx.make_problem(X, signs, 0.3, loss="logistic", arrangements=cells), jaxcvx.ProximalGradient(tol=1e-5)


def nuclear() -> tuple[Any, Any]:
    X, Y, cells = digits()
    return jaxcvx.make_problem(X, Y, 1.0, arrangements=cells), jaxcvx.NuclearProximalGradient(tol=1e-4)


def copositive() -> tuple[Any, Any]:
    X, arm = spiral(10)
    problem = jaxcvx.make_problem(X, np.eye(3)[arm], 1e-2, arrangements=jaxcvx.enumerate_arrangements(X))
    return problem, jaxcvx.CopositiveADMM(tol=1e-4)


def adam() -> tuple[Any, Any]:
    X, Y, _ = digits()
    return jaxcvx.make_problem(X, Y, 0.3), jaxcvx.GradientDescent(width=64, max_steps=500, tol=0.0)


def cutting_planes() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return jaxcvx.make_problem(rng.standard_normal((30, 2)), rng.standard_normal(30), 1.0), jaxcvx.CuttingPlane()


CASES: tuple[tuple[str, Callable[[], tuple[Any, Any]]], ...] = (
    *((case.name, lambda case=case: group_lasso(case)) for case in peers.CASES),
    ("accelerated, digits", accelerated),
    ("logistic, digits", logistic),
    ("nuclear, digits", nuclear),
    ("copositive, spiral", copositive),
    ("Adam, digits", adam),
    ("cutting planes (30, 2)", cutting_planes),
)


def serve() -> None:
    """Answer the lines of standard input until it ends."""
    problems: dict[int, tuple[Any, Any]] = {}
    for line in sys.stdin:
        index, answer = int(line), {}

        def timed(index: int = index) -> tuple[float, Any]:
            begin = time.perf_counter()
            solution = jax.block_until_ready(jaxcvx.solve(*problems[index], key=jax.random.key(0)))
            return time.perf_counter() - begin, solution

        if index not in problems:
            problems.clear()  # one at a time in memory
            problems[index] = CASES[index][1]()
            answer["first"] = timed()[0]
        answer["seconds"], solution = timed()
        answer |= {"steps": int(solution.num_steps), "objective": float(solution.objective)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with jax.enable_x64(True):
        serve()
