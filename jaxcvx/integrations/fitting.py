"""Fits for the estimators: few compiled programs, for data of any size, scale and sample weights.

The data are brought to a normal form that keeps the problem. Equal samples are merged and their weights added up. The
bias becomes a column of ones. Zero rows, which have weight 0, and zero columns are added up to the next of a few sizes.
Therefore fits of nearly equal sizes share their compiled programs, for every beta.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxcvx.analysis.cross_validation import CrossValidation, fit_folds, score_networks, summarise
from jaxcvx.analysis.folds import Folds, make_folds
from jaxcvx.analysis.path import LEAST_FRACTION, regularization_path
from jaxcvx.analysis.scoring import Score, score_name
from jaxcvx.arrangements.cells import Arrangements, count_cells
from jaxcvx.arrangements.enumerate import enumerate_arrangements
from jaxcvx.arrangements.sample import sample_arrangements
from jaxcvx.errors import TooManyArrangements, invalid
from jaxcvx.features.dense import Dense
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import Logistic, Squared
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.networks.network import Network, objective_on_host
from jaxcvx.numerics.on_host import key_of, list_of_keys
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.driver import solve
from jaxcvx.solvers.core.protocol import AnySolver
from jaxcvx.solvers.core.solution import Solution
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration
from jaxcvx.solvers.semi_infinite.scaling import scaled_problem

LOSSES: dict[str, Loss] = {
    "squared": Squared(),
    "logistic": Logistic(),
    "softmax": SoftmaxCrossEntropy(),
}
_DESCENT = 5  # betas of the short path down to a given one
_LEAST = 1e-4  # smallest beta that networks are trained at, as a fraction of beta_max
_NOTHING = 1e-9  # beta_max below this share of the data's size is rounding


class Fit(NamedTuple):
    """The result of a fit, in the caller's units, in float64 numpy arrays.

    Attributes:
      network: without zero neurons; if all are zero, one of them stays.
      objective: training objective of the network.
      lower_bound: proved bound over the networks in ``scope``; -inf if none.
      heuristic_bound: estimate of a bound; -inf if none.
      scope: the networks that the bound covers.
      num_steps: steps of the solver.
    """

    network: Network
    objective: float
    lower_bound: float
    heuristic_bound: float
    scope: str
    num_steps: int


@dataclasses.dataclass(frozen=True)
class Training:
    """Data in normal form.

    Attributes:
      problem: the padded problem, with beta = 1 and sample weights. Its features have no bias column of their own.
      weights: (n,) the caller's sample weights.
      owner: (n,) the row of every sample of the caller; that of samples of weight 0 has no meaning.
      num_rows, num_columns: size of the feature rows without padding.
      features: features of the returned network.
    """

    problem: Problem
    weights: Float[np.ndarray, n]
    owner: Any
    num_rows: int
    num_columns: int
    features: Dense

    def restore(self, network: Network) -> Network:
        """Return the network for the caller's data: balanced, without added columns and without zero neurons."""
        network = self.strip(network)
        a, b = np.linalg.norm(network.hidden, axis=1), np.linalg.norm(network.output, axis=1)
        alive = (a > 0) & (b > 0)
        if not alive.any():
            return dataclasses.replace(network, hidden=0 * network.hidden[:1], output=0 * network.output[:1])
        scale = np.sqrt(b[alive] / a[alive])[:, None]
        hidden: Any = network.hidden[alive] * scale
        output: Any = network.output[alive] / scale
        return dataclasses.replace(network, hidden=hidden, output=output)

    def strip(self, networks: Network) -> Network:
        """Return a network, or a batch of networks, in float64 numpy arrays and without added columns."""
        hidden: Any = np.asarray(networks.hidden, np.float64)[..., : self.num_columns]
        output: Any = np.asarray(networks.output, np.float64)
        bias: Any = None if networks.output_bias is None else np.asarray(networks.output_bias, np.float64)
        return Network(hidden, output, None, self.features, bias)

    def adopt(self, networks: Network) -> Network:
        """Turn a network, or a batch of networks, of an earlier fit into those of the problem: padded with columns."""
        more = [(0, 0)] * (networks.hidden.ndim - 1) + [(0, self.problem.X.shape[1] - self.num_columns)]
        hidden: Any = np.pad(networks.hidden, more)
        return dataclasses.replace(networks, hidden=hidden, features=self.problem.features)

    def folds(self, pairs: Any) -> Folds:
        """Weights of the rows in given folds, which are pairs of indices of the caller's samples."""
        n = len(self.weights)
        own = make_folds(pairs, np.zeros((n, 1)), Squared(), self.weights, None)
        size = self.problem.num_samples
        return Folds(*(np.stack([np.bincount(self.owner, w, minlength=size) for w in part]) for part in own))

    def random_folds(self, num: int, stratified: bool, key: Any) -> Folds:
        """Folds of the merged samples: equal samples are in the same fold."""
        Y = np.asarray(self.problem.Y)
        if stratified:
            Y = np.eye(2)[(Y[:, 0] > 0).astype(int)] if Y.shape[1] == 1 else Y
        loss: Loss = SoftmaxCrossEntropy() if stratified else Squared()
        return make_folds(num, Y, loss, np.asarray(self.problem.sample_weight), key)


def bucket(size: int, smallest: int, coarse: int) -> int:
    """Return the next size for which programs are compiled, at least ``smallest``.

    Sizes up to ``coarse`` are powers of two. Beyond there are eight sizes between a number and its double.
    """
    bits = (size - 1).bit_length()
    step = 2 ** max(0, bits if size <= coarse else bits - 4)
    return max(smallest, -(-size // step) * step)


def _check_range(name: str, A: Any) -> None:
    """Raise if the squares of the numbers overflow or vanish."""
    size = float(np.abs(A).max())
    if size > 0 and not 1e-140 < size < 1e140:
        raise invalid(name, f"numbers of size {size:.0e}", "numbers whose squares float64 holds: scale them")


def prepare(X: Any, Y: Any, weights: Any, loss: str, features: Dense) -> Training:
    """Bring data to normal form.

    Equal samples are merged and sorted. Repeated samples and weighted samples then give the same numbers to the last
    bit, and the same network.

    Args:
      X: (n, d) inputs, numpy.
      Y: (n, c) targets, numpy: reals, +-1, or one-hot rows.
      weights: (n,) sample weights >= 0, numpy, not all zero.
      loss: a key of LOSSES.
      features: ``Dense(...)``, perhaps with a bias and an output bias.
    """
    _check_range("X", X)
    _check_range("y", Y)
    kept, d = weights > 0, X.shape[1]
    rows, found = np.unique(np.concatenate([X, Y], axis=1)[kept] + 0.0, axis=0, return_inverse=True)
    owner = np.zeros(len(X), int)
    owner[kept] = found.ravel()
    inputs: Any = rows[:, :d]
    Z = features.matrix(inputs)
    n, p = Z.shape
    padded = np.zeros((bucket(n, 32, 256), bucket(p, 4, 16)))
    padded[:n, :p] = Z
    targets = np.zeros((len(padded), Y.shape[1]))
    targets[:n] = rows[:, d:]
    inner = dataclasses.replace(features, bias=False)
    weight = jnp.asarray(np.bincount(owner[kept], weights[kept], minlength=len(padded)))
    problem = Problem(
        jnp.asarray(padded), jnp.asarray(targets), jnp.ones(()), None, LOSSES[loss], inner, sample_weight=weight
    )
    return Training(problem, weights, owner, n, p, features)


def beta_max(training: Training, solver: ColumnGeneration) -> float:
    """The smallest beta whose solution is zero, in the caller's units, by many ascents in float64."""
    work, scaling = scaled_problem(training.problem)
    largest = float(solver.largest_beta(work, key_of(0)))
    floor = _NOTHING * float(training.weights.sum())  # in scaled units the entries of X and Y are about 1
    return max(largest, floor) * (scaling.x * scaling.y)


def beta_grid(top: float, num: int) -> np.ndarray:
    """``num`` betas in equal ratios, from ``top`` to 0.01 of it."""
    return top * np.geomspace(1.0, LEAST_FRACTION, num)


def fit_at(training: Training, beta: float, top: float, solver: ColumnGeneration, key: Any, warm: Any) -> Fit:
    """Train at one beta, by a short path down to it or from the network ``warm``."""
    used = min(max(beta, _LEAST * top), 2 * top)
    if warm is not None:
        problem = training.problem.replace(beta=used)
        return finished(
            training, solve(problem, solver, init=jax.tree.map(jnp.asarray, training.adopt(warm)), key=key), beta, used
        )
    betas = np.geomspace(max(used, min(8 * used, top)), used, _DESCENT)
    path_key, last_key = list_of_keys(key, 2)
    path = regularization_path(training.problem, betas, unfinished(solver), key=path_key)
    path = solver.finish_path(training.problem, path, {_DESCENT - 1}, last_key)
    return finished(training, entry(path, -1), beta, used)


def unfinished(solver: ColumnGeneration) -> ColumnGeneration:
    """The solver without last rounds."""
    return dataclasses.replace(solver, final_rounds=0)


def entry(path: Solution, index: int) -> Solution:
    """One solution of a path, in numpy arrays."""
    return jax.tree.map(lambda a: np.asarray(a)[index], path)


def finished(training: Training, solution: Solution, beta: float, used: float | None = None) -> Fit:
    """The fit of a solution, with its objective at ``beta``. Bounds at another beta ``used`` are dropped."""
    same = used is None or used == beta
    network = training.restore(solution.network)
    lower = float(solution.lower_bound) if same else -np.inf
    estimate = float(solution.heuristic_bound) if same else -np.inf
    value = objective(training.problem, training.adopt(network), beta)
    return Fit(network, value, min(lower, value), min(estimate, value), solution.scope, int(solution.num_steps))


def objective(problem: Problem, network: Network, beta: float) -> float:
    """Training objective in float64."""
    number: Any = np.asarray(beta)
    return float(objective_on_host(network, dataclasses.replace(problem, beta=number)))


def stripped(training: Training, path: Solution) -> Solution:
    """The path with networks for the caller's data."""
    networks = training.strip(path.network)
    return dataclasses.replace(path, network=networks, params=networks)


def validate(
    training: Training, betas: Any, parts: Folds, solver: ColumnGeneration, key: Any, score: Score | None
) -> CrossValidation:
    """Cross-validation. Without a ``score`` all scores are NaN; :func:`jaxcvx.analysis.cross_validation.summarise` has
    to be called again with the right ones.
    """
    path_key, fold_key = list_of_keys(key, 2)
    path = regularization_path(training.problem, betas, unfinished(solver), key=path_key)
    networks = fit_folds(training.problem, path, parts, solver, fold_key)
    if score is None:
        nothing = np.full((len(parts.train), len(betas)), np.nan)
        return summarise(stripped(training, path), training.strip(networks), parts, nothing, nothing, "")
    scores = score_networks(training.problem, networks, parts, score)
    return summarise(stripped(training, path), training.strip(networks), parts, *scores, score_name(score))


def finish_choice(
    training: Training, result: CrossValidation, rule: str, solver: ColumnGeneration, key: Any
) -> CrossValidation:
    """The result with the network at the beta that ``rule`` chooses finished in float64."""
    networks = jax.tree.map(jnp.asarray, training.adopt(result.path.network))
    path = dataclasses.replace(result.path, network=networks, params=networks)
    path = solver.finish_path(training.problem, path, {result.index(rule)}, key)
    return dataclasses.replace(result, path=stripped(training, path))


def fit_with_solver(training: Training, beta: float, solver: AnySolver, num_cells: int, key: Any) -> Fit:
    """Train by any solver on the scaled data without padding, over ``num_cells`` cells."""
    whole = training.problem.samples(slice(training.num_rows))
    whole = dataclasses.replace(whole, X=whole.X[:, : training.num_columns])
    if np.all(np.asarray(whole.sample_weight) == 1):
        whole = whole.replace(sample_weight=None)
    work, scaling = scaled_problem(whole)
    work = work.replace(beta=beta / (scaling.x * scaling.y))
    cells = None if isinstance(solver, ColumnGeneration) else choose_cells(work.X, num_cells, key)
    solution = solve(work.replace(arrangements=cells), solver, key=key)
    network = training.restore(scaling.network(solution.network, whole))
    value = objective(whole, dataclasses.replace(network, features=whole.features), beta)
    lower, estimate = (float(scaling.objective(b)) for b in (solution.lower_bound, solution.heuristic_bound))
    return Fit(network, value, min(lower, value), min(estimate, value), solution.scope, int(solution.num_steps))


def choose_cells(rows: Any, num: int, key: Any) -> Arrangements:
    """Return all cells if there are at most ``num``, and ``num`` sampled ones otherwise."""
    if count_cells(rows)[0] <= num:
        with contextlib.suppress(TooManyArrangements):  # the two functions may disagree on which rows are parallel
            return enumerate_arrangements(rows, max_cells=num)
    return sample_arrangements(key, rows, num)
