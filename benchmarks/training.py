"""Training objective at equal wall time: ColumnGeneration, Adam, pyscnn's and our cone program on random cells.

Ten problems with 300 to 5000 samples, squared loss, beta = n / 1000 for targets of unit scale. ColumnGeneration stops
after 0.6 of the given time. Each opponent gets at least the time that ColumnGeneration took in all, including its final
certificate:

- Adam: the best of as many runs as fit (width 100, 5000 steps, cosine decay); the last run is finished;
- pyscnn's augmented Lagrangian on 100 random cells, for as many iterations as fit;
- ConeADMM on 50 and on 200 random cells, each for the whole time; the better of both counts. It runs up to 4096 targets
  in all, because beyond them no Newton phase ends the solve.

Every objective is that of the returned network, in float64. Compilation is not counted. The gap is between our network
and the estimate of the optimum from 512 fresh starts at the end, whose time is counted. This estimate is not proved
("heuristic").
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import device_name, print_table, versions
from benchmarks.peers import LIMIT, PYSCNN, run_worker

Data = Callable[[], tuple[np.ndarray, np.ndarray]]
OPPONENTS = ("adam", "pyscnn", "cone")
CONE_CELLS = (50, 200)
CONE_TARGETS = 4096
PYSCNN_CELLS = 100


def _standardised(a: np.ndarray) -> np.ndarray:
    size = a.std(axis=0)
    return (a - a.mean(axis=0)) / np.where(size > 0, size, 1.0)


def planted(n: int, d: int, c: int, neurons: int = 5) -> Data:
    """Gaussian data, a teacher of a few neurons, noise of a tenth of the signal."""

    def data() -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(n + d + c)
        X = rng.standard_normal((n, d))
        Y = np.maximum(X @ rng.standard_normal((d, neurons)), 0) @ rng.standard_normal((neurons, c))
        return X, Y / Y.std() + 0.1 * rng.standard_normal(Y.shape)

    return data


def bundled(name: str) -> Data:
    """A data set of scikit-learn, standardised; classes as centred one-hot columns, two of them as one column."""

    def data() -> tuple[np.ndarray, np.ndarray]:
        import jaxcvx.datasets

        found = jaxcvx.datasets.load_dataset(name)
        Y = found.y.astype(float)[:, None]
        if found.classes is not None and len(found.classes) > 2:
            Y = np.eye(len(found.classes))[found.y]
        return _standardised(found.X), _standardised(Y)

    return data


def friedman() -> tuple[np.ndarray, np.ndarray]:
    """Friedman's first regression problem, 1000 samples of 10 columns."""
    from sklearn.datasets import make_friedman1

    X, y = make_friedman1(1000, 10, noise=1.0, random_state=0)
    return _standardised(X), _standardised(y[:, None])


def cover(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Imitate forest cover types: ten skewed measurements, one-hot soil and area (44 columns), 7 unequal classes."""
    rng = np.random.default_rng(7)
    measured = np.exp(0.5 * rng.standard_normal((n, 10)) @ rng.standard_normal((10, 10)) / 10**0.5)
    area, soil = rng.choice(4, n, p=[0.45, 0.43, 0.07, 0.05]), rng.choice(40, n, p=rng.dirichlet(np.ones(40)))
    X = _standardised(np.concatenate([measured, np.eye(4)[area], np.eye(40)[soil]], axis=1))
    scores = np.maximum(X @ rng.standard_normal((54, 20)) / 54**0.5, 0) @ rng.standard_normal((20, 7))
    labels = np.argmax(scores + np.log([0.36, 0.49, 0.06, 0.01, 0.02, 0.03, 0.03]) / 2, axis=1)
    return X, _standardised(np.eye(7)[labels])


PROBLEMS: dict[str, Data] = {
    "planted (300, 8), c = 3": planted(300, 8, 3),
    "planted (500, 10)": planted(500, 10, 1),
    "planted (1000, 20)": planted(1000, 20, 1),
    "planted (2000, 10), c = 2": planted(2000, 10, 2),
    "planted (5000, 10)": planted(5000, 10, 1),
    "diabetes (442, 10)": bundled("diabetes"),
    "breast cancer (569, 30)": bundled("breast_cancer"),
    "digits (1797, 64), c = 10": bundled("digits"),
    "friedman (1000, 10)": friedman,
    "cover types (3000, 54), c = 7": cover,
}


class Opponents:
    """The other methods on one problem. Each returns its best training objective and the seconds it took."""

    def __init__(self, X: np.ndarray, Y: np.ndarray, beta: float) -> None:
        self.X, self.Y, self.beta = X, Y, beta

    def objective(self, network: Any) -> float:
        """Objective of any network in float64, with its neurons rescaled for the least penalty."""
        import jaxcvx

        double = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), network)
        return float(jaxcvx.training_objective(jaxcvx.balance(double), self.X, self.Y, self.beta))

    def adam(self, seconds: float) -> tuple[float, float, int]:
        """Return the best of as many runs as fit, and the number of these runs."""
        import jaxcvx

        low = jaxcvx.make_problem(self.X.astype(np.float32), self.Y.astype(np.float32), self.beta)
        solver = jaxcvx.GradientDescent(width=100, max_steps=5000, schedule="cosine", check_every=500)
        jaxcvx.solve(low, solver, key=jax.random.key(0))  # compiles
        best, spent, runs = np.inf, 0.0, 0
        while spent < seconds:
            start = time.perf_counter()
            network = jaxcvx.solve(low, solver, key=jax.random.key(runs)).network
            spent += time.perf_counter() - start
            best, runs = min(best, self.objective(network)), runs + 1
        return best, spent, runs

    def cone(self, seconds: float) -> tuple[float, float, int] | None:
        """Return the better result of both numbers of random cells, and that number."""
        import jaxcvx

        if self.Y.size > CONE_TARGETS:
            return None
        found = []
        for cells in CONE_CELLS:
            arrangements = jaxcvx.sample_arrangements(jax.random.key(1), self.X, cells)
            problem = jaxcvx.make_problem(self.X, self.Y, self.beta, arrangements=arrangements)
            solver = jaxcvx.ConeADMM(tol=1e-6, max_steps=10_000, grouping="per-output")
            jaxcvx.solve(problem, solver, callback=lambda info: True)  # compiles
            start = time.perf_counter()
            late = lambda info, start=start: time.perf_counter() - start > seconds  # noqa: E731
            network = jaxcvx.solve(problem, solver, callback=late).network
            found.append((self.objective(network), time.perf_counter() - start, cells))
        return min(found)

    def pyscnn(self, seconds: float) -> tuple[float, float, int] | None:
        """Solve pyscnn's constrained program by the augmented Lagrangian: objective, seconds by its clock, steps."""
        gates = np.random.default_rng(1).standard_normal((PYSCNN_CELLS, self.X.shape[1]))
        iterations = 100
        for _ in range(3):
            answer = run_worker(
                PYSCNN, "pyscnn.py", LIMIT, X=self.X, Y=self.Y, gates=gates, beta=self.beta, kind="relu",
                tol=1e-10, max_iters=iterations, curve=False, dtype="float32",
            )  # fmt: skip
            if not answer:
                return None
            spent = float(answer["seconds"])
            if spent >= 0.9 * seconds:
                break
            iterations = int(iterations * min(1.1 * seconds / max(spent, 1e-3), 50.0)) + 1
        return self.objective(_network_of(answer)), spent, iterations


def _network_of(answer: dict[str, Any]) -> Any:
    """Turn pyscnn's blocks (c, P, d), positive and negative, into a ReLU network."""
    import jaxcvx

    hidden, output = [], []
    for key, sign in (("weights_0", 1.0), ("weights_1", -1.0)):
        blocks = answer[key]
        for k, block in enumerate(blocks):
            hidden.append(block)
            output.append(sign * np.tile(np.eye(len(blocks))[k], (len(block), 1)))
    weights = np.concatenate(hidden).astype(float), np.concatenate(output)
    return jaxcvx.balance(jaxcvx.Network(*map(jnp.asarray, weights)))


def compare(name: str, data: Data, seconds: float, key: int = 0) -> dict[str, Any]:
    """One problem."""
    import jaxcvx

    X, Y = data()
    beta = 1e-3 * len(X)
    problem, others = jaxcvx.make_problem(X, Y, beta), Opponents(X, Y, beta)
    solver = jaxcvx.ColumnGeneration(tol=1e-6, max_steps=1000, max_seconds=0.6 * seconds, final_starts=512)
    for _ in range(2):  # the first compiles: how many neurons there are, and so the shapes, depends on the problem
        start = time.perf_counter()
        solution = jaxcvx.solve(problem, solver, key=jax.random.key(key))
        spent = time.perf_counter() - start
    row: dict[str, Any] = {
        "problem": name,
        "beta": beta,
        "jaxcvx": {
            "objective": others.objective(solution.network),
            "seconds": spent,
            "width": solution.network.width,
            "rounds": int(solution.num_steps),
            "scope": solution.scope,
            "lower_bound": float(solution.lower_bound) if np.isfinite(solution.lower_bound) else None,
            "heuristic_bound": float(solution.heuristic_bound) if np.isfinite(solution.heuristic_bound) else None,
        },
    }
    mine = row["jaxcvx"]["objective"]
    bounds = [row["jaxcvx"][kind] for kind in ("lower_bound", "heuristic_bound") if row["jaxcvx"][kind] is not None]
    row["jaxcvx"]["gap"] = (mine - max(bounds)) / mine if bounds else None
    for opponent in OPPONENTS:
        if opponent == "pyscnn" and not PYSCNN.exists():
            continue
        answer = getattr(others, opponent)(max(seconds, spent))
        if answer is not None:
            value, took, count = answer
            row[opponent] = {"objective": value, "seconds": took, "count": count, "above": (value - mine) / mine}
    return row


def run(quick: bool = False, *, problems: dict[str, Data] | None = None, seconds: float = 20.0) -> dict[str, Any]:
    """Run all problems; ``quick``: the first two, for five seconds each."""
    problems = problems or PROBLEMS
    if quick:
        problems, seconds = dict(list(problems.items())[:2]), 5.0
    rows = []
    with jax.enable_x64(True):
        for name, data in problems.items():
            rows.append(compare(name, data, seconds))
            print(rows[-1], file=sys.stderr, flush=True)  # a long run may be cut off
    return {
        "benchmark": "training",
        "versions": versions("jaxcvx", "jax", "jaxlib", "optax"),
        "device": device_name(),
        "seconds": seconds,
        "problems": rows,
    }


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    rows = []
    for row in result["problems"]:
        own = row["jaxcvx"]
        gap = "" if own["gap"] is None else f"{100 * own['gap']:.2f} % {own['scope']}"
        theirs = (f"{100 * row[name]['above']:+.2f} %" if name in row else "-" for name in OPPONENTS)
        rows.append((row["problem"], f"{own['objective']:.5f}", f"{own['seconds']:.0f}", gap, *theirs))
    header = ("", "jaxcvx", "s", "gap", "best Adam", "pyscnn", "cone, random cells")
    print_table("Training objective at equal wall time; the others' relative to ours", header, rows)
