"""A small project that uses jaxcvx, checked by ``mypy --strict``: the package's types are part of what it offers."""

from __future__ import annotations

import jax
import numpy as np
import numpy.typing as npt

import jaxcvx


def fit(X: npt.NDArray[np.float64], y: npt.NDArray[np.float64], beta: float = 0.5) -> jaxcvx.Solution:
    """Solve one problem over all of its cells."""
    cells: jaxcvx.Arrangements = jaxcvx.enumerate_arrangements(X)
    problem: jaxcvx.Problem = jaxcvx.make_problem(X, y, beta, loss="squared", arrangements=cells)
    print(problem.memory_estimate(jaxcvx.ConeADMM()))
    return jaxcvx.solve(problem, jaxcvx.ConeADMM(tol=1e-6), callback=[stop_early, jaxcvx.Progress("silent")])


def stop_early(info: jaxcvx.StepInfo) -> bool:
    """A callback."""
    return info.residual < 1e-3


def complete(
    rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> jaxcvx.Solution:
    """A low-rank problem takes the same entry point."""
    problem = jaxcvx.MatrixCompletion(rows, cols, values, (20, 10), 2)
    return jaxcvx.solve(problem, jaxcvx.GradientDescent(), key=jax.random.key(0))


def report(network: jaxcvx.Network, X: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> dict[str, float | str]:
    """Numbers of a certificate."""
    certificate: jaxcvx.Certificate = jaxcvx.certify(network, X, y, 0.5)
    return {"upper": float(certificate.upper), "lower": float(certificate.lower), "scope": certificate.scope}


def main() -> int:
    """Fit, certify, save and load."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 2)), rng.standard_normal(20)
    solution = fit(X, y)
    try:
        jaxcvx.make_problem(X, y, -1.0)
    except jaxcvx.JaxcvxError as err:
        print(err)
    jaxcvx.save("network.npz", solution.network)
    print(report(jaxcvx.load("network.npz"), X, y), jaxcvx.Status(int(solution.status)).name)
    return 0 if report(solution.network, X, y)["scope"] == "global" else 1


if __name__ == "__main__":
    raise SystemExit(main())
