"""The same problem, key and device give the same bits: again, compiled anew, in another process, in any thread.

What XLA does not promise, and is not asked for here: other devices, another number of devices or of threads (sums are
split otherwise), ``vmap`` against a loop, and a solve under ``jit`` against one that calls back to the host (other
programs, whose operations are fused otherwise). There results agree to rounding, not to the bit.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxcvx
from tests.reliability.cases import CASES, SAMPLERS, differing, digest, result

ROOT = Path(__file__).parents[2]
NAMES = (*CASES, *SAMPLERS)
# The others compile for longer: with -m soak.
DEFAULT = ("adam", "minibatches", "noise", "gated", "cone", "svd", "columns", "cuts", "gaussian-gates", "data-gates")
DEFAULT += ("conv-gates", "all-cells", "perturbed", "gradient-noise", "langevin", "spike-free", "beta-max")
BITS = ("adam", "cone", "gaussian-gates", "all-cells", "langevin", "beta-max")


def elsewhere(names: tuple[str, ...]) -> dict[str, str]:
    """Digests from another process, which compiles everything itself."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    command = [sys.executable, "-m", "tests.reliability.cases", *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("names", [BITS, pytest.param(NAMES, marks=pytest.mark.soak)], ids=["some", "all"])
def test_the_same_bits_again_compiled_anew_and_elsewhere(names: tuple[str, ...]) -> None:
    first = {name: digest(result(name)) for name in names}
    again = {name: digest(result(name)) for name in names}
    jax.clear_caches()
    compiled_anew = {name: digest(result(name)) for name in names}
    assert first == again
    assert first == compiled_anew
    assert first == elsewhere(names)
    print(f"{len(names)} results, each in 4 ways: {3 * len(names)} comparisons, all the same bits")


def problem_of(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    cells = jaxcvx.sample_arrangements(jax.random.key(seed), X, 10)
    return jaxcvx.make_problem(X, Y, 0.05, arrangements=cells)


SOLVERS = (
    jaxcvx.ProximalGradient(tol=1e-6, phases="accelerated"),
    jaxcvx.GradientDescent(width=6, max_steps=200),
    jaxcvx.ColumnGeneration(tol=1e-6, width=20, move_steps=50),
    jaxcvx.AnnealedNoise(width=6, max_steps=200),
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("rounds", "solvers"),
    [(1, (*3 * SOLVERS[1:2], SOLVERS[2])), pytest.param(5, SOLVERS, marks=pytest.mark.soak)],
    ids=["some", "all"],
)
def test_eight_threads_give_what_one_gives(rounds: int, solvers: tuple[Any, ...]) -> None:
    """Different problems and solvers at the same time, the first ones while they compile."""
    problems = [problem_of(seed) for seed in range(8)]

    def solve(k: int) -> Any:
        with jax.enable_x64(True):  # a setting of the thread
            return jaxcvx.solve(problems[k % 8], solvers[k % len(solvers)], key=jax.random.key(k))

    together = threading.Barrier(8)

    def at_once(k: int) -> Any:
        together.wait(timeout=600)
        return solve(k)

    compared = 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(rounds):
            jax.clear_caches()
            parallel = list(pool.map(at_once, range(8)))
            serial = [solve(k) for k in range(8)]
            for one, other in zip(parallel, serial, strict=True):
                assert differing(one, other) == []
                compared += 1
    print(f"{compared} solves in 8 threads compared with serial ones, all the same bits")
