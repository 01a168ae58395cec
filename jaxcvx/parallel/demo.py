"""``python -m jaxcvx.parallel.demo --processes 2``: local processes that solve one problem together.

The program starts the processes on this machine (CPU, two simulated devices each) and spreads the rows of one problem
over them. They solve it together, and each compares the result with a solve on one device. Under SLURM or on a TPU pod
the launcher starts the processes, and the program begins with ``jaxcvx.parallel.initialize()``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np

import jaxcvx
from jaxcvx import parallel

DEVICES = 2  # per process
SAMPLES, WIDTH, OUTPUTS, CELLS, BETA = 45, 4, 2, 13, 5.0  # 45 and 13 are not divisible by the number of devices


def data() -> tuple[Any, Any, Any]:
    """Generate the whole problem, the same on all processes. In practice each process loads its own rows."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((SAMPLES, WIDTH))
    Y = np.maximum(X @ rng.standard_normal((WIDTH, 3)), 0) @ rng.standard_normal((3, OUTPUTS))
    return X, Y, rng.standard_normal((CELLS, WIDTH))


def solve_together(process: int, processes: int, coordinator: str) -> dict[str, Any]:
    """Run one process: join the others, solve together, and return the comparison with one device."""
    parallel.initialize(coordinator, processes, process)
    with jax.enable_x64(True):
        return _compare(process, processes)


def _compare(process: int, processes: int) -> dict[str, Any]:
    """Solve with this process's rows and those of the others, then with all rows on one device."""
    X, Y, gates = data()
    mine = np.array_split(np.arange(SAMPLES), processes)[process]  # unequal shares: rows are added
    mesh = parallel.make_mesh(cells=DEVICES)  # samples over processes, cells over the devices of each
    problem = parallel.problem_from_local_rows(X[mine], Y[mine], BETA, mesh, gates=gates)
    solver = jaxcvx.ProximalGradient(tol=1e-6, phases="accelerated")
    together = parallel.gather(jaxcvx.solve(problem, solver))

    cells = jaxcvx.Arrangements(gates @ X.T >= 0, gates)
    alone = jax.jit(lambda p: jaxcvx.solve(p, solver))(jaxcvx.make_problem(X, Y, BETA, arrangements=cells))
    return {
        "process": process,
        "devices": jax.device_count(),
        "rows": len(mine),
        "steps": [int(together.num_steps), int(alone.num_steps)],
        "status": [int(together.status), int(alone.status)],
        "objective": float(together.objective),
        "lower_bound": float(together.lower_bound),
        "objective_difference": abs(float(together.objective) - float(alone.objective)),
        "params_difference": float(np.max(np.abs(together.params[:CELLS] - np.asarray(alone.params)))),
    }


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main(arguments: list[str] | None = None) -> int:
    """Start the processes, or run as one of them. Return 0 if all agree with one device."""
    parser = argparse.ArgumentParser(prog="python -m jaxcvx.parallel.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--process", type=int, default=None, help="be this one of them")
    parser.add_argument("--coordinator", default=None, help="address:port of process 0")
    options = parser.parse_args(arguments)
    if options.process is not None:
        print(json.dumps(solve_together(options.process, options.processes, options.coordinator)), flush=True)
        return 0
    coordinator = f"127.0.0.1:{free_port()}"
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={DEVICES}"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)  # several processes on CPUs hang in programs read from jax's cache
    command = [sys.executable, "-m", "jaxcvx.parallel.demo", "--processes", str(options.processes)]
    started = [
        subprocess.Popen(
            [*command, "--coordinator", coordinator, "--process", str(k)], env=env, stdout=subprocess.PIPE, text=True
        )
        for k in range(options.processes)
    ]
    outputs = [process.communicate()[0] for process in started]
    print("".join(outputs), end="")
    if any(process.returncode for process in started):
        return 1
    reports = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith("{")]
    same = len(reports) == options.processes and len({(r["objective"], r["steps"][0]) for r in reports}) == 1
    differences = [r[name] for r in reports for name in ("objective_difference", "params_difference")]
    agree = same and max(differences) < 1e-10 and all(len(set(r["steps"])) == 1 for r in reports)
    print("processes and one device agree" if agree else "processes and one device differ")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
