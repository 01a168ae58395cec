"""The training pipeline behind `jaxcvx train`: cells, beta, convex program, network, certificate, comparison."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvx.arrangements.cells import Arrangements, arrangements_of, count_cells, merge_arrangements
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.callbacks.checkpoint import Checkpoint
from jaxcvx.certificates.beta_max import beta_max
from jaxcvx.certificates.certificate import Certificate, bound_scope, make_certificate
from jaxcvx.certificates.dual import bound_from_residuals, relaxed_dual_norm
from jaxcvx.cli.model import Preprocessing
from jaxcvx.cli.split import hold_out
from jaxcvx.cli.tabular import Schema
from jaxcvx.datasets import Dataset
from jaxcvx.errors import invalid
from jaxcvx.features.dense import Dense
from jaxcvx.networks.network import Network, network_objective
from jaxcvx.numerics.precision import double_precision, to_double
from jaxcvx.problems.training import Problem, make_problem
from jaxcvx.solvers.cone.admm import ConeADMM
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.solution import Solution, Status, StepInfo
from jaxcvx.solvers.gated.proximal_gradient import ProximalGradient
from jaxcvx.solvers.gradient.descent import GradientDescent
from jaxcvx.solvers.polish import polish_problem

FEATURES = Dense(bias=True)
COMPLETE_LIMIT = 5000  # all cells are used if there are no more than this many
COMPLETE_WORK = 3e6  # and if all their constraints together have no more entries than this
CHECKPOINT_STEPS = 200  # steps of the convex program between two checkpoints
PATH = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the command line."""

    beta: float | str = "auto"
    cells: int = 256
    solver: str = "auto"
    loss: str = "auto"
    test_fraction: float = 0.2
    width: int = 64
    seed: int = 0
    tol: float = 1e-5


@dataclasses.dataclass(frozen=True)
class Split:
    """Standardised training and test rows."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    prep: Preprocessing


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The network trained by Adam for comparison."""

    network: Network
    objective: float
    seconds: float
    steps: int
    status: str
    curve: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Result:
    """The results that the report, the table and the pictures use."""

    split: Split
    problem: Problem
    solution: Solution
    network: Network
    network_source: str
    certificate: Certificate
    beta_fraction: float
    validation: list[tuple[float, float]]
    comparison: Comparison
    seconds: float
    cells: dict[str, int]


Report = Callable[[str, float], None]
"""A function of the name of a stage and of the fraction of it that is done."""


def split_data(data: Dataset, settings: Settings, schema: Schema) -> Split:
    """Random split (stratified for classes), standardised by the statistics of the training rows."""
    n = len(data.y)
    if not 0 < settings.test_fraction < 1:
        raise invalid("--test-fraction", settings.test_fraction, "a number between 0 and 1")
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(n)
    if data.classes is not None:  # interleave the classes, so that every slice contains each in proportion
        rank = np.empty(n)
        for code in range(len(data.classes)):
            mine = order[data.y[order] == code]
            rank[mine] = (np.arange(len(mine)) + rng.random()) / max(len(mine), 1)
        order = np.argsort(rank, kind="stable")
    held = np.zeros(n, bool)
    count = max(1, round(n * settings.test_fraction))
    if n - count < 2:
        raise invalid("--test-fraction", settings.test_fraction, f"a value that leaves 2 of {n} rows to train on")
    held[order[np.linspace(0, n - 1, count).round().astype(int)]] = True
    held = hold_out(held, data.X, data.y, data.classes is not None)
    if not held.any():
        raise invalid("the test part", "no row: each is the only one of a class or category", "more rows")
    X, y = data.X[~held], data.y[~held]
    scale = X.std(axis=0)
    regression = data.task == "regression"
    spread = float(y.std()) if regression else 1.0
    prep = Preprocessing(
        mean=tuple(X.mean(axis=0).tolist()),
        scale=tuple(np.where(scale > 1e-12 * (1 + np.abs(X).max(axis=0)), scale, 1.0).tolist()),
        target_mean=float(y.mean()) if regression else 0.0,
        target_scale=spread if spread > 0 else 1.0,
        task=data.task,
        classes=data.classes,
        loss="squared" if settings.loss == "auto" else settings.loss,
        beta=float("nan"),
        schema=schema,
    )
    _check_loss(prep)
    return Split(prep.inputs(X), y, prep.inputs(data.X[held]), data.y[held], prep)


def _check_loss(prep: Preprocessing) -> None:
    regression = prep.task == "regression"
    fits = prep.loss in ("squared", "huber") if regression else True
    if not fits:
        raise invalid("--loss", prep.loss, "squared or huber for a numeric target")


def _adam(problem: Problem, width: int, steps: int, keys: Any) -> Network:
    """Networks of short Adam runs from several keys, batched by vmap."""
    solver = GradientDescent(width=width, max_steps=steps, schedule="cosine", check_every=max(50, steps // 10))
    problem = problem.replace(arrangements=None)
    return jax.vmap(lambda key: solve(problem, solver, key=key).network)(keys)


def choose_beta(split: Split, settings: Settings, key: Any, report: Report) -> tuple[float, list[tuple[float, float]]]:
    """Choose beta, as a fraction of beta_max, by validation.

    Short Adam runs for all betas at once are compared on a quarter of the rows, which the runs do not see.

    Returns:
      The fraction, and for each beta of the path the pair (fraction, validation error).
    """
    report("choosing beta", 0.0)
    prep, n = split.prep, len(split.y)
    held = np.arange(n) % 4 == 0
    held = hold_out(held, split.X, split.y, prep.task == "classification")
    Y = prep.targets(split.y)
    problem = make_problem(split.X[~held], Y[~held], 1.0, loss=prep.loss, features=FEATURES)
    top = beta_max(problem, "network")
    solver = GradientDescent(width=settings.width, max_steps=400, schedule="cosine", check_every=50)
    betas = jnp.asarray(PATH) * top
    nets = jax.vmap(lambda b: solve(problem.replace(beta=b), solver, key=key).network)(betas)
    F = np.asarray(jax.vmap(lambda net: net(jnp.asarray(split.X[held])))(nets))
    errors = []
    for scores in F:
        metrics = prep.metrics(scores, split.y[held])
        errors.append(1 - metrics["accuracy"] if "accuracy" in metrics else metrics["rmse"])
    best = min(errors)
    close = best + (0.5 / held.sum() if prep.task == "classification" else 0.005 * best)
    index = next(i for i, error in enumerate(errors) if error <= close)  # the largest beta of nearly least error
    return PATH[index], list(zip(PATH, map(float, errors), strict=True))


def choose_cells(
    problem: Problem, nets: Network | None, settings: Settings, key: Any
) -> tuple[Arrangements, dict[str, int]]:
    """All cells if they are few, else the cells of short Adam runs together with sampled ones."""
    count, _ = count_cells(problem.rows)
    if count <= COMPLETE_LIMIT and count * problem.rows.size <= COMPLETE_WORK:
        cells = enumerate_arrangements(problem.X, features=problem.features, max_cells=COMPLETE_LIMIT)
        return cells, {"all": cells.num_cells}
    sampled = sample_arrangements(key, problem.X, settings.cells, features=problem.features)
    if nets is None:
        return sampled, {"sampled": sampled.num_cells}
    flat = Network(
        nets.hidden.reshape(-1, nets.hidden.shape[2]),
        nets.output.reshape(-1, nets.output.shape[2]),
        None,
        problem.features,
    )
    strength = jnp.linalg.norm(flat.hidden, axis=1) * jnp.linalg.norm(flat.output, axis=1)
    keep = jnp.argsort(-strength)[: max(1, 3 * settings.cells // 4)]
    strong = Network(flat.hidden[keep], flat.output[keep], None, problem.features)
    own = arrangements_of(strong, problem.X)
    room = max(1, settings.cells - own.num_cells)
    some = Arrangements(sampled.masks[:room], sampled.gates[:room])
    cells = merge_arrangements(own, some)
    return cells, {"from short Adam runs": own.num_cells, "sampled": cells.num_cells - own.num_cells}


def _pick_solver(settings: Settings, problem: Problem) -> Any:
    name = settings.solver
    if name == "auto":
        name = "cone" if problem.num_outputs == 1 or not problem.loss.is_smooth else "gated"
    if name == "gated":
        return ProximalGradient(tol=settings.tol, max_steps=5000)
    if name == "cone":
        return ConeADMM(tol=1e-3 * settings.tol, max_steps=5000)  # its Newton phase makes digits cheap
    raise invalid("--solver", settings.solver, "auto, gated or cone")


def compare(problem: Problem, width: int, seconds: float, key: Any, report: Report) -> Comparison:
    """Train by Adam with the same width and wall time, and cosine decay. A short run measures its speed beforehand."""
    problem = problem.replace(arrangements=None)
    stamps: list[tuple[float, int]] = []

    def stamp(info: StepInfo) -> bool:
        stamps.append((time.perf_counter(), info.step))
        return stamps[-1][0] - stamps[0][0] > 1.5

    solve(problem, GradientDescent(width=width, max_steps=100_000, check_every=500), key=key, callback=stamp)
    (first, start), (last, end) = stamps[0], stamps[-1]  # leaves out the block before the first stamp, which compiles
    steps = int(np.clip(seconds * (end - start) / max(last - first, 1e-9), 400, 10_000_000))
    solver = GradientDescent(width=width, max_steps=steps, schedule="cosine", check_every=max(50, steps // 200))
    curve: list[tuple[float, float]] = []
    began = time.perf_counter()

    def watch(info: StepInfo) -> bool:
        elapsed = time.perf_counter() - began
        curve.append((elapsed, info.objective))
        report("Adam, same width and wall time", min(1.0, info.step / steps))
        return False

    solution = solve(problem, solver, key=key, callback=watch)
    elapsed, status = time.perf_counter() - began, Status(int(solution.status)).name
    objective, done = float(solution.upper_bound), int(solution.num_steps)
    return Comparison(solution.network, objective, elapsed, done, status, curve)


def train(data: Dataset, schema: Schema, settings: Settings, report: Report, checkpoint: str | None = None) -> Result:
    """Run the pipeline. All random numbers come from ``settings.seed``.

    If ``checkpoint`` names a file, the state of the convex program is saved there. If the file exists, the convex
    program resumes from it.
    """
    began = time.perf_counter()
    split = split_data(data, settings, schema)
    keys = jax.random.split(jax.random.key(settings.seed), 5)
    Y = split.prep.targets(split.y)
    problem = make_problem(split.X, Y, 1.0, loss=split.prep.loss, features=FEATURES)
    top = float(beta_max(problem, "network"))
    validation: list[tuple[float, float]] = []
    if settings.beta == "auto":
        fraction, validation = choose_beta(split, settings, keys[0], report)
        beta = fraction * top
    else:
        beta = float(settings.beta)
        fraction = beta / top if top > 0 else 0.0
    problem = problem.replace(beta=make_problem(split.X, Y, beta, loss=split.prep.loss, features=FEATURES).beta)
    split = dataclasses.replace(split, prep=dataclasses.replace(split.prep, beta=beta))

    report("short Adam runs", 0.0)
    nets = _adam(problem, settings.width, 600, jax.random.split(keys[1], 4))
    cells, sources = choose_cells(problem, nets, settings, keys[2])
    problem = problem.replace(arrangements=cells)
    singles = [jax.tree.map(lambda a, i=i: a[i], nets) for i in range(4)]
    best = min(singles, key=lambda net: _value(problem, net))

    solver = _pick_solver(settings, problem)
    stage = f"convex program, {cells.num_cells} cells"

    def watch(info):
        wanted, start = np.log10(settings.tol), 0.0
        gap = np.log10(max(info.residual, 1e-300)) if np.isfinite(info.residual) else start
        report(stage, float(np.clip((gap - start) / (wanted - start), 0, 1)))

    init = best if isinstance(solver, ConeADMM) else None
    watchers: list[Any] = [watch]
    if checkpoint is not None:
        watchers.append(Checkpoint(checkpoint, every=CHECKPOINT_STEPS))
    solution = solve(problem, solver, init=init, callback=watchers)
    report("polishing", 0.0)
    source, network = "the convex program", solution.network
    if not isinstance(solver, ConeADMM):
        # Gated programs are another class of models, and rounding them gives wide networks. So the best short run is
        # trained further and polished as well.
        longer = GradientDescent(width=settings.width, max_steps=3000, schedule="cosine", check_every=100)
        trained = solve(problem.replace(arrangements=None), longer, init=best).network
        polished = polish_problem(problem, trained)
        narrow = network.width <= 4 * settings.width
        if not narrow or _value(problem, polished) < _value(problem, network):
            source, network = "an Adam run, polished by convex programs", polished
    spent = time.perf_counter() - began

    comparison = compare(problem, max(network.width, 1), spent, keys[3], report)
    if _value(problem, network) > comparison.objective:
        report("polishing the comparison", 0.0)
        source, network = "the Adam comparison, polished", polish_problem(problem, comparison.network)
    report("certifying", 0.0)
    certificate = _certify(problem, network, solution)
    total = time.perf_counter() - began - comparison.seconds
    return Result(
        split,
        problem,
        solution,
        network,
        source,
        certificate,
        fraction,
        validation,
        comparison,
        total,
        sources,
    )


def _value(problem: Problem, network: Network) -> float:
    return float(network_objective(network, problem))


@jax.jit
def _bounds(problem: Problem, network: Network, residuals: Any) -> tuple[Any, Any]:
    norms = jax.lax.map(lambda R: relaxed_dual_norm(problem.operator.carefully(), R), residuals)
    return network_objective(network, problem), bound_from_residuals(problem, network, residuals, norms)


def _certify(problem: Problem, network: Network, solution: Solution) -> Certificate:
    """Certificate over the cells, with the better bound of two: from the network's residual and the solution's."""
    cells = problem.arrangements
    assert cells is not None
    if not cells.complete:
        cells = merge_arrangements(cells, arrangements_of(network, problem.X))
    with double_precision():
        exact, returned, params = to_double((problem, network, solution.params))
        loss, Y = exact.loss, exact.Y
        W = params[0] - params[1] if isinstance(params, tuple) else params
        candidates = [exact.operator.forward(W), returned(exact.X)]
        residuals = jnp.stack([loss.project_dual(-loss.grad(F, Y), Y) for F in candidates])
        upper, lower = _bounds(exact.replace(arrangements=to_double(cells)), returned, residuals)
    if cells.complete or network is solution.network:
        lower = max(float(lower), float(solution.lower_bound))
    return make_certificate(upper, min(lower, upper), bound_scope(cells, problem.num_outputs))
