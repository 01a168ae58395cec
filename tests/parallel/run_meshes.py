r"""Problems on meshes of eight simulated devices and on one, as JSON lines. Run it in its own process.

XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m tests.parallel.run_meshes
"""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np

import jaxcvx
from jaxcvx import parallel

N, D, P = 30, 3, 10
ACCELERATED = jaxcvx.ProximalGradient(tol=1e-6, phases="accelerated")
CASES = {
    "squared": ("squared", 2, ACCELERATED, [(8, 1), (2, 4)]),
    "logistic": ("logistic", 1, ACCELERATED, [(4, 2)]),
    "softmax": ("softmax", 3, ACCELERATED, [(4, 2)]),
    "huber": ("huber", 2, ACCELERATED, [(4, 2)]),
    "default phases": ("squared", 1, jaxcvx.ProximalGradient(tol=1e-6), [(4, 2)]),
    "cones": ("squared", 1, jaxcvx.ConeADMM(tol=1e-6), [(4, 2)]),
}


def problem_of(loss: str, outputs: int) -> Any:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((N, D)), rng.standard_normal((N, outputs))
    if loss == "logistic":
        Y = np.sign(Y)
    if loss == "softmax":
        Y = np.eye(outputs)[Y.argmax(axis=1)]
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, P)
    problem = jaxcvx.make_problem(X, Y, 1.0, loss=loss, arrangements=cells)
    return problem.replace(beta=0.3 * problem.beta_max("gated"))


def relative(a: Any, b: Any) -> float:
    scale = max(float(np.max(np.abs(b))), np.finfo(float).tiny)
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) / scale


def collectives(problem: Any) -> dict[str, dict[str, int]]:
    """Collectives in the compiled forward and adjoint products."""
    W = jax.numpy.zeros((problem.operator.num_blocks, D, problem.num_outputs))
    programs = {
        "forward": jax.jit(lambda p, W: p.operator.forward(W)).lower(problem, W),
        "adjoint": jax.jit(lambda p, R: p.operator.adjoint(R)).lower(problem, problem.Y),
    }
    words = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    texts = {name: program.compile().as_text() for name, program in programs.items()}
    return {
        name: {word: text.count(f" {word}(") + text.count(f" {word}-start(") for word in words}
        for name, text in texts.items()
    }


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    assert jax.device_count() == 8
    for name, (loss, outputs, solver, meshes) in CASES.items():
        whole = problem_of(loss, outputs)
        run = jax.jit(lambda problem, solver=solver: jaxcvx.solve(problem, solver))
        one = run(whole)
        for samples, cells in meshes:
            mesh = parallel.make_mesh(samples, cells)
            problem = parallel.shard_problem(whole, mesh)
            many = run(problem)
            blocks = [a[:P] for a in jax.tree.leaves(parallel.gather(many.params))]
            record = {
                "case": name,
                "mesh": [samples, cells],
                "samples": problem.num_samples,
                "cells": len(problem.arrangements),
                "devices": len(problem.X.sharding.device_set),
                "objective": relative(many.objective, one.objective),
                "bound": relative(many.lower_bound, one.lower_bound),
                "params": max(map(relative, blocks, jax.tree.leaves(one.params))),
                "steps": [int(many.num_steps), int(one.num_steps)],
                "status": [int(many.status), int(one.status)],
                "scope": [many.scope, one.scope],
            }
            if name == "squared" and cells > 1:
                record["collectives"] = collectives(problem)
                record["outside"] = relative(jaxcvx.solve(problem, solver).objective, one.objective)
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
