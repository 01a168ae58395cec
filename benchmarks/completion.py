"""Matrix completion: jaxcvx against the same iteration on scipy.sparse, and against plain gradient descent there.

All methods start from the spectral estimate and stop at a relative error of 1e-4 (``||X - X*||_F / ||X*||_F``, computed
from the factors; the time of this computation is not counted). Plain gradient descent runs with the usual constant
step, a quarter of the inverse of the largest singular value, and with the best of several steps, chosen afterwards.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import interleave, print_table, versions

TARGET = 1e-4
USUAL = 0.25  # step of plain gradient descent, over the largest singular value
STEPS = (USUAL, 0.5, 0.75, 1.0)


def planted(d1: int, d2: int, r: int, share: float, seed: int = 0) -> tuple[Any, ...]:
    """Draw Gaussian factors, and the observed places and values."""
    rng = np.random.default_rng(seed)
    U, V = rng.standard_normal((d1, r)), rng.standard_normal((d2, r))
    flat = np.sort(rng.choice(d1 * d2, int(share * d1 * d2), replace=False))
    rows, cols = np.divmod(flat, d2)
    return U, V, rows, cols, np.einsum("nr,nr->n", U[rows], V[cols])


def relative_error(U: np.ndarray, V: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> float:
    """``||U V^T - U* V*^T||_F / ||U* V*^T||_F`` in O((d1 + d2) r^2)."""
    L, R = np.hstack([U, -truth[0]]), np.hstack([V, truth[1]])
    size = np.trace((truth[0].T @ truth[0]) @ (truth[1].T @ truth[1]))
    return float(np.sqrt(max(np.trace((L.T @ L) @ (R.T @ R)), 0.0) / size))


class Sparse:
    """The completion problem in NumPy and SciPy: indexing for the entries, CSR matrices for the products."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, values: np.ndarray, shape: tuple[int, int]):
        from scipy.sparse import csr_matrix

        self.rows, self.cols, self.values = rows, cols, values
        self.matrix = csr_matrix((values, (rows, cols)), shape=shape)
        assert np.array_equal(self.matrix.data, values)  # the places are sorted
        self.share = len(rows) / (shape[0] * shape[1])

    def entries(self, U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return np.einsum("nr,nr->n", U[self.rows], V[self.cols])

    def gradient(self, residual: np.ndarray, U: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.matrix.data = residual
        return self.matrix @ V, self.matrix.T @ U

    def scaled(self, gradient: np.ndarray, other: np.ndarray) -> np.ndarray:
        gram, r = other.T @ other, other.shape[1]
        return np.linalg.solve(gram + 1e-4 * np.trace(gram) / r * np.eye(r), gradient.T).T / self.share

    def plain_steps(self, U: np.ndarray, V: np.ndarray, step: float) -> Any:
        """Run gradient descent with a constant step."""
        while True:
            left, right = self.gradient(self.entries(U, V) - self.values, U, V)
            U, V = U - step * left, V - step * right
            yield U, V

    def conjugate_steps(self, U: np.ndarray, V: np.ndarray) -> Any:
        """Run the iteration of jaxcvx: scaled gradients, conjugate directions, exact steps."""
        before, direction = None, None
        while True:
            e = self.entries(U, V) - self.values
            g = self.gradient(e, U, V)
            s = (self.scaled(g[0], V), self.scaled(g[1], U))
            direction_new = tuple(-x for x in s)
            if before is not None:
                change = sum(np.vdot(x, y - z) for x, y, z in zip(s, g, before[0], strict=True))
                keep = max(change, 0) / sum(np.vdot(x, y) for x, y in zip(*before, strict=True))
                tried = tuple(x + keep * y for x, y in zip(direction_new, direction, strict=True))
                if sum(np.vdot(x, y) for x, y in zip(tried, g, strict=True)) < 0:
                    direction_new = tried
            before, direction = (g, s), direction_new
            P, Q = direction
            a = self.entries(np.hstack([P, U]), np.hstack([V, Q]))
            b = self.entries(P, Q)
            slope = [2 * b @ b, 3 * a @ b, a @ a + 2 * e @ b, e @ a]
            roots = np.roots(slope)
            t = min(x.real for x in roots if abs(x.imag) < 1e-9 * abs(x) and x.real > 0)
            U, V = U + t * P, V + t * Q
            yield U, V


def time_to_target(steps: Any, truth: tuple[np.ndarray, np.ndarray], limit: int) -> tuple[float, int, float]:
    """Return the seconds spent in the steps, the number of steps, and the error reached."""
    seconds, count, error = 0.0, 0, np.inf
    while count < limit and error > TARGET:
        start = time.perf_counter()
        U, V = next(steps)
        seconds += time.perf_counter() - start
        count, error = count + 1, relative_error(U, V, truth)
    return seconds, count, error


def run(quick: bool = False, *, size: tuple[int, int, int] = (2000, 2000, 10), share: float = 0.05) -> dict[str, Any]:
    """Time the three methods in turns.

    Args:
      quick: two repeats instead of five.
      size: d1, d2, r.
      share: share of the entries that are observed.
    """
    import jaxcvx
    from jaxcvx.transforms.scaled_descent import conjugate_descent

    d1, d2, r = size
    *truth, rows, cols, values = planted(d1, d2, r, share)
    sparse = Sparse(rows, cols, values, (d1, d2))
    with jax.enable_x64(True):
        problem = jaxcvx.MatrixCompletion(rows, cols, values, (d1, d2), r)
        start = jax.jit(lambda p: p.spectral_params())(problem)
        U, V = (np.asarray(F) for F in start)
        largest = float(np.linalg.norm(U, 2) ** 2) * sparse.share

        def steps(count):
            def descend(problem, params):
                optimizer = conjugate_descent(problem)

                def body(_, carry):
                    params, state = carry
                    updates, state = optimizer.update(jax.grad(problem.objective)(params), state, params)
                    return jax.tree.map(jnp.add, params, updates), state

                return jax.lax.fori_loop(0, count, body, (params, optimizer.init(params)))[0]

            return descend

        needed = _steps_needed(jax.jit(steps(1)), steps, problem, start, truth)
        ours = jax.jit(steps(needed)).lower(problem, start).compile()
        solver = jaxcvx.GradientDescent(tol=3e-5, check_every=10)
        plain = {}
        for factor in STEPS:
            seconds, count, error = time_to_target(sparse.plain_steps(U, V, factor / largest), truth, 600)
            plain[factor] = {"seconds": seconds, "steps": count, "error": error}
        best = min((f for f in plain if plain[f]["error"] <= TARGET), key=lambda f: plain[f]["steps"])
        calls = {
            "jaxcvx": lambda: ours(problem, start),
            "jaxcvx.solve, all of it": lambda: jaxcvx.solve(problem, solver),
            "the same on scipy CSR": lambda: time_to_target(sparse.conjugate_steps(U, V), truth, 600),
            f"plain gradient descent on scipy CSR, step {USUAL:g} / sigma": lambda: time_to_target(
                sparse.plain_steps(U, V, USUAL / largest), truth, 600
            ),
            f"plain gradient descent on scipy CSR, best step {best:g} / sigma": lambda: time_to_target(
                sparse.plain_steps(U, V, best / largest), truth, 600
            ),
        }
        seconds, results = interleave(calls, 2 if quick else 5)
        solution = results["jaxcvx.solve, all of it"]
        cases = [
            {"method": "jaxcvx", "steps": needed, "error": _error(results["jaxcvx"], truth)},
            {
                "method": "jaxcvx.solve, all of it",
                "steps": int(solution.num_steps),
                "error": _error(solution.params, truth),
            },
        ]
        for name in list(calls)[2:]:
            cases.append({"method": name, "steps": results[name][1], "error": results[name][2]})
        for case in cases:
            case["seconds"] = seconds[case["method"]]
        memory = ours.memory_analysis()
    return {
        "benchmark": "completion",
        "versions": versions("jaxcvx", "jax", "jaxlib", "numpy", "scipy"),
        "backend": jax.default_backend(),
        "dtype": "float64",
        "size": {"d1": d1, "d2": d2, "r": r, "observed": len(rows)},
        "target": TARGET,
        "plain_steps": {str(f): plain[f] for f in plain if np.isfinite(plain[f]["error"])},
        "temporary_bytes": int(memory.temp_size_in_bytes) if memory is not None else None,
        "problem_bytes": sum(x.nbytes for x in jax.tree.leaves(problem)),
        "cases": cases,
    }


def _error(params: Any, truth: Any) -> float:
    return relative_error(*(np.asarray(F) for F in params), truth)


def _steps_needed(single: Any, steps: Any, problem: Any, start: Any, truth: Any) -> int:
    """Find the smallest number of steps from ``start`` that reaches the target."""
    low, high = 0, 1
    while _error(jax.jit(steps(high))(problem, start), truth) > TARGET:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        reached = _error(jax.jit(steps(middle))(problem, start), truth) <= TARGET
        low, high = (low, middle) if reached else (middle, high)
    return high


def show(result: dict[str, Any]) -> None:
    """Print the result."""
    size = result["size"]
    title = f"Completion {size['d1']} x {size['d2']}, rank {size['r']}, {size['observed']} entries"
    ours = result["cases"][0]["seconds"]["median"]
    rows = []
    for case in result["cases"]:
        t = case["seconds"]
        times = (f"{t[key]:.3f}" for key in ("median", "min", "max"))
        rows.append((case["method"], *times, str(case["steps"]), f"{case['error']:.1e}", f"{t['median'] / ours:.1f}x"))
    print_table(title, ("method", "median s", "min s", "max s", "steps", "error", "time"), rows)
    print(f"problem {result['problem_bytes'] / 2**20:.1f} MiB, temporaries {result['temporary_bytes'] / 2**20:.1f} MiB")


if __name__ == "__main__":
    import sys

    from benchmarks.__main__ import main

    sys.exit(main(["completion", *sys.argv[1:]]))
