r"""Solve problems on meshes of eight simulated devices and on one, and print JSON lines. Runs in its own process.

XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m tests.parallel.run_meshes [CASE ...]
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

import jaxcvx
from jaxcvx import parallel
from tests.sharding.run_sharded import fast_options

N, D, P = 30, 3, 11  # the mesh (8, 1) needs added rows, (2, 4) added cells, (4, 2) both
ACCELERATED = jaxcvx.ProximalGradient(tol=1e-6, phases="accelerated")
DENSE, PATCHES = jaxcvx.Dense(), jaxcvx.ConvPool(3)
Case = tuple[str, int, jaxcvx.Features, Any, list[tuple[int, int]]]  # loss, outputs, features, solver, meshes
CASES: dict[str, Case] = {
    "squared": ("squared", 2, DENSE, ACCELERATED, [(8, 1), (4, 2), (2, 4)]),
    "logistic": ("logistic", 1, DENSE, ACCELERATED, [(4, 2)]),
    "softmax": ("softmax", 3, DENSE, ACCELERATED, [(4, 2)]),
    "huber": ("huber", 2, DENSE, ACCELERATED, [(4, 2)]),
    "patches": ("squared", 1, PATCHES, ACCELERATED, [(4, 2)]),
    "skip": ("squared", 1, jaxcvx.Dense(skip=True), ACCELERATED, [(4, 2)]),
    "default phases": ("squared", 1, DENSE, jaxcvx.ProximalGradient(tol=1e-6), [(4, 2)]),
    "cones": ("squared", 1, DENSE, jaxcvx.ConeADMM(tol=1e-6, phases="admm"), [(4, 2)]),
    "cones, Newton": ("squared", 1, DENSE, jaxcvx.ConeADMM(tol=1e-6), [(4, 2)]),
}


def one_device_mesh(kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((1,), ("rows",), (kind,), devices=jax.devices()[:1])


def problem_of(loss: str, outputs: int, features: jaxcvx.Features) -> jaxcvx.Problem:
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((N, 6 if features is PATCHES else D)), rng.standard_normal((N, outputs))
    if loss == "logistic":
        Y = np.sign(Y)
    if loss == "softmax":
        Y = np.eye(outputs)[Y.argmax(axis=1)]
    cells = jaxcvx.sample_arrangements(jax.random.key(0), X, P, features=features)
    problem = jaxcvx.make_problem(X, Y, 1.0, loss=loss, features=features, arrangements=cells)
    return problem.replace(beta=0.3 * problem.beta_max("gated"))


def relative(a: Any, b: Any) -> float:
    scale = max(float(np.max(np.abs(b))), np.finfo(float).tiny)
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) / scale


def collectives(problem: jaxcvx.Problem) -> dict[str, list[list[Any]]]:
    """List the collectives in the compiled forward and adjoint products: kind, and number of devices in a group."""
    W = jax.numpy.zeros((problem.operator.num_blocks, D, problem.num_outputs))
    programs = {
        "forward": jax.jit(lambda p, W: p.operator.forward(W)).lower(problem, W),
        "adjoint": jax.jit(lambda p, R: p.operator.adjoint(R)).lower(problem, problem.Y),
    }
    return {name: collectives_in(program.compile().as_text()) for name, program in programs.items()}


def collectives_in(text: str) -> list[list[Any]]:
    operations = []
    for line in text.splitlines():
        kind = re.search(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(", line)
        if kind:
            # The text is {{0,1},{2,3}} or [groups,devices]<=..., or empty if all devices form one group.
            listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
            counted = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
            size = len(listed[1].split(",")) if listed else int(counted[1]) if counted else jax.device_count()
            operations.append([kind[1], size])
    return operations


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    assert jax.device_count() == 8
    options = fast_options()
    for name in sys.argv[1:] or CASES:
        loss, outputs, features, solver, meshes = CASES[name]
        whole = problem_of(loss, outputs, features)
        run = jax.jit(lambda problem, solver=solver: jaxcvx.solve(problem, solver), compiler_options=options)
        single = run(whole)
        for samples, cells in meshes:
            problem = parallel.shard_problem(whole, parallel.make_mesh(samples, cells))
            spread, added = run(problem), problem.arrangements.num_cells - P
            leaves = jax.tree.leaves(parallel.gather(spread.params))
            given = [np.delete(a, np.s_[P : P + added], axis=0) for a in leaves]
            record = {
                "case": name,
                "mesh": [samples, cells],
                "samples": problem.num_samples,
                "cells": problem.arrangements.num_cells,
                "devices": len(problem.X.sharding.device_set),
                "objective": relative(spread.objective, single.objective),
                "lower": relative(spread.lower_bound, single.lower_bound),
                "upper": relative(spread.upper_bound, single.upper_bound),
                "params": max(map(relative, given, jax.tree.leaves(single.params))),
                "added": max(float(np.abs(a[P : P + added]).max(initial=0.0)) for a in leaves),
                "steps": [int(spread.num_steps), int(single.num_steps)],
                "status": [int(spread.status), int(single.status)],
                "scope": [spread.scope, single.scope],
            }
            if name == "squared":
                record["collectives"] = collectives(problem)
            if name == "squared" and (samples, cells) == (4, 2):
                record["outside"] = relative(jaxcvx.solve(problem, solver).objective, single.objective)
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
