"""Every public solver with small problems: the one table that the tests of all solvers share.

A new solver is one more row of ``CASES``. The rows are crossed with transformations (tests/transforms_of_solve), with
interruptions and repeated runs (tests/reliability), and with several devices (tests/sharding).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import pytest

import jaxcvx
from jaxcvx.arrangements.cells import Arrangements
from jaxcvx.solvers.core.protocol import HostSolver

N, D, P = 16, 3, 8


class Case(NamedTuple):
    """A solver and a small problem for it.

    Attributes:
      problem: makes the problem in a floating type.
      solver: the solver. Its tolerance is so small that it takes several blocks of steps, in all of its phases.
      key: seed of its random key, for solvers that draw random numbers.
      varied: the field of the problem that tests change, such as ``beta``.
      rtol: relative difference of the objectives of two solves that differ in rounding only.
      float32_rtol: the same between float32 and float64.
      float64_params: True if the solver works in float64 on the host, whatever the type of the data.
      routine: False for further settings of a solver, which run with ``-m long`` only.
    """

    problem: Callable[[Any], Any]
    solver: Any
    key: int | None = None
    varied: str = "beta"
    rtol: float = 1e-6
    float32_rtol: float = 1e-4
    float64_params: bool = False
    routine: bool = True

    @property
    def on_host(self) -> bool:
        """True if the solver's loop runs on the host, outside jit and vmap."""
        return isinstance(self.solver, HostSolver)

    @property
    def refuses_tracers(self) -> bool:
        """True if ``solve`` works neither under jit nor under vmap."""
        return self.on_host and type(self.solver).solve_traced is HostSolver.solve_traced

    def make(self, dtype: Any = None) -> Any:
        """The problem, by default in the precision of the moment."""
        return self.problem(jnp.result_type(float) if dtype is None else dtype)

    def prepared(self, dtype: Any = None) -> Any:
        """The problem with everything attached that ``solve`` under jit needs."""
        problem = self.make(dtype)
        return problem if self.on_host else self.solver.prepare(problem)

    def solve(self, problem: Any = None, **options: Any) -> Any:
        """The solution of ``problem``, by default of the case's own."""
        problem = self.make() if problem is None else problem
        key = None if self.key is None else jax.random.key(self.key)
        return jaxcvx.solve(problem, self.solver, **{"key": key} | options)

    def value(self, problem: Any) -> jax.Array:
        """The field of a problem that tests change."""
        return getattr(problem, self.varied)

    def replaced(self, problem: Any, value: Any) -> Any:
        """The problem with another value of that field."""
        replace = getattr(problem, "replace", functools.partial(dataclasses.replace, problem))
        return replace(**{self.varied: value})


def random_data(n: int = N, d: int = D, c: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """X (n, d) and Y (n, c), normally distributed."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)), rng.standard_normal((n, c))


def distinct_cells(Z: np.ndarray, num: int, dtype: Any) -> Arrangements:
    """Cells of random gates, no two the same."""
    gates = np.random.default_rng(1).standard_normal((20 * num, Z.shape[1]))
    masks, chosen = np.unique(gates @ Z.T >= 0, axis=0, return_index=True)
    assert len(masks) >= num
    return Arrangements(jnp.asarray(masks[:num]), jnp.asarray(gates[chosen[:num]], dtype))


def training(
    *,
    n: int = N,
    d: int = D,
    c: int = 1,
    cells: int | None = P,
    loss: str = "squared",
    beta: float = 0.5,
    features: jaxcvx.Dense = jaxcvx.Dense(),
) -> Callable[[Any], jaxcvx.Problem]:
    """Maker of a network's training problem, over given cells or over none."""

    def make(dtype: Any) -> jaxcvx.Problem:
        X, Y = random_data(n, d, c)
        Y = np.sign(Y) if loss == "logistic" else Y
        chosen = None if cells is None else distinct_cells(X, cells, dtype)
        arrays = (jnp.asarray(a, dtype) for a in (X, Y))
        return jaxcvx.make_problem(*arrays, beta, loss=loss, arrangements=chosen, features=features)

    return make


def whitened(dtype: Any) -> jaxcvx.Problem:
    """A training problem whose data rows are orthonormal."""
    X, Y = random_data(N, 2 * N, 2)
    rows = np.linalg.qr(X.T)[0].T
    return jaxcvx.make_problem(jnp.asarray(rows, dtype), jnp.asarray(Y, dtype), 1.0)


def completion(**options: Any) -> Callable[[Any], jaxcvx.MatrixCompletion]:
    """Maker of a problem with 60 of the 80 entries of a matrix of rank 2 plus noise."""

    def make(dtype: Any) -> jaxcvx.MatrixCompletion:
        rng = np.random.default_rng(0)
        truth = rng.standard_normal((10, 2)) @ rng.standard_normal((2, 8)) + 0.1 * rng.standard_normal((10, 8))
        rows, cols = np.divmod(rng.permutation(80)[:60], 8)
        values = jnp.asarray(truth[rows, cols], dtype)
        return jaxcvx.MatrixCompletion(rows, cols, values, (10, 8), 2, **options)

    return make


def teacher(dtype: Any) -> jaxcvx.TeacherCNN:
    """A convolutional teacher with filter of length 4 and 3 patches."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal(4)
    return jaxcvx.TeacherCNN(jnp.asarray(w / np.linalg.norm(w), dtype), jnp.asarray(rng.standard_normal(3), dtype))


NO_CELLS = training(cells=None)

CASES: dict[str, Case] = {
    "gated": Case(training(c=2), jaxcvx.ProximalGradient(tol=1e-9, check_every=5)),
    "gated-logistic": Case(training(loss="logistic"), jaxcvx.ProximalGradient(tol=1e-9, check_every=5), routine=False),
    "gated-accelerated": Case(
        training(c=2),
        jaxcvx.ProximalGradient(tol=1e-6, check_every=20, phases="accelerated"),
        rtol=4e-6,
        routine=False,
    ),
    "cone": Case(training(), jaxcvx.ConeADMM(tol=1e-9, check_every=3)),
    "cone-admm": Case(
        training(c=2), jaxcvx.ConeADMM(tol=1e-5, check_every=10, phases="admm"), rtol=4e-5, routine=False
    ),
    "nuclear": Case(training(c=2), jaxcvx.NuclearProximalGradient(tol=1e-8, check_every=10)),
    "copositive": Case(training(n=8, d=2, cells=4), jaxcvx.CopositiveADMM(tol=1e-6), rtol=4e-6),
    "copositive-admm": Case(
        training(n=8, d=2, cells=4),
        jaxcvx.CopositiveADMM(tol=1e-4, check_every=10, phases="admm"),
        rtol=4e-4,
        float32_rtol=4e-4,
        routine=False,
    ),
    "adam": Case(
        NO_CELLS,
        jaxcvx.GradientDescent(width=6, max_steps=300, check_every=10, schedule="cosine"),
        key=0,
    ),
    "adam-output-bias": Case(
        training(cells=None, features=jaxcvx.Dense(output_bias=True)),
        jaxcvx.GradientDescent(width=6, max_steps=200, check_every=10, schedule="cosine"),
        key=0,
    ),
    "adam-output-bias-logistic": Case(
        training(loss="logistic", features=jaxcvx.Dense(output_bias=True)),
        jaxcvx.GradientDescent(width=6, max_steps=200, check_every=10, schedule="cosine"),
        key=0,
        routine=False,
    ),
    "minibatches": Case(
        NO_CELLS,
        jaxcvx.GradientDescent(width=6, max_steps=200, check_every=10, batch_size=4),
        key=0,
        float32_rtol=0.1,  # other samples are drawn
        routine=False,
    ),
    "momentum": Case(
        NO_CELLS,
        jaxcvx.GradientDescent(width=6, max_steps=200, check_every=10, optimizer=optax.sgd(1e-3, momentum=0.9)),
        key=0,
        routine=False,
    ),
    "jaxopt": Case(
        NO_CELLS,
        jaxcvx.Jaxopt(jaxopt.NonlinearCG, width=6, max_steps=60, check_every=10),
        key=0,
        float32_rtol=1e-2,  # other paths to other weights
    ),
    "factors": Case(completion(), jaxcvx.GradientDescent(tol=1e-9, check_every=3), key=0, varied="targets"),
    "noise": Case(
        NO_CELLS,
        jaxcvx.AnnealedNoise(width=6, max_steps=300, check_every=10, epoch_length=30),
        key=0,
        float32_rtol=0.1,  # other noise is drawn
    ),
    "noise-on-sphere": Case(
        teacher,
        jaxcvx.AnnealedNoise(max_steps=300, check_every=10, epoch_length=30),
        key=0,
        varied="a_star",
        float32_rtol=0.1,
        routine=False,
    ),
    "primal-dual": Case(completion(row_bound=2.0), jaxcvx.PrimalDual(tol=1e-6, check_every=5), key=0, varied="targets"),
    "svd": Case(whitened, jaxcvx.SoftThresholdedSVD()),
    "columns": Case(NO_CELLS, jaxcvx.ColumnGeneration(tol=1e-6, width=20, move_steps=50), rtol=4e-6),
    "columns-multistart": Case(
        NO_CELLS,
        jaxcvx.ColumnGeneration(tol=1e-4, width=20, move_steps=50, pricing="multistart", final_starts=256),
        key=0,
        rtol=4e-4,
        float32_rtol=4e-4,
        routine=False,
    ),
    "cuts": Case(NO_CELLS, jaxcvx.CuttingPlane(tol=1e-6), rtol=4e-6, float64_params=True),
    "cuts-output-bias": Case(
        training(cells=None, beta=1.0, features=jaxcvx.Dense(output_bias=True)),
        jaxcvx.CuttingPlane(tol=1e-6),
        rtol=4e-6,
        float64_params=True,
        routine=False,
    ),
    "frank-wolfe": Case(
        NO_CELLS, jaxcvx.FrankWolfe(radius=1.0, tol=1e-3, max_steps=200), key=0, rtol=4e-3, float32_rtol=4e-3
    ),
}


def rows(names: Iterable[str] = CASES, *, covered: Iterable[str] = ()) -> list[Any]:
    """Rows of the table as parameters of a test, marked ``long`` if not routine or covered by another default test."""
    long = {name for name in names if not CASES[name].routine} | set(covered)
    return [pytest.param(name, marks=pytest.mark.long if name in long else ()) for name in names]


@functools.cache
def solved(name: str) -> jaxcvx.Solution:
    """The solution of a row in float64, computed once."""
    with jax.enable_x64(True):
        return CASES[name].solve()


def compiled_programs(caplog: pytest.LogCaptureFixture, call: Callable[[], Any]) -> list[str]:
    """Names of the programs that a call compiles."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="jax"), jax.log_compiles():
        call()
    return [message.split()[1] for message in caplog.messages if message.startswith("Compiling ")]
