"""Cross-validation along a path of betas: the folds are sample weights and share the program of the whole path."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxcvx.analysis.folds import Folds, make_folds
from jaxcvx.analysis.path import regularization_path
from jaxcvx.analysis.scoring import Score, UnweightedScore, r2, resolve_scoring, score_name
from jaxcvx.errors import InvalidTypeError, invalid, wrong_type
from jaxcvx.features.dense import Dense, Features
from jaxcvx.losses.base import Loss
from jaxcvx.networks.network import Network, prune
from jaxcvx.numerics.on_host import key_of, list_of_keys, split_keys
from jaxcvx.numerics.precision import double_precision, to_double, with_full_precision
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import check_key
from jaxcvx.problems.buckets import in_bucket_of_samples
from jaxcvx.problems.training import Problem, make_problem
from jaxcvx.solvers.core.solution import Solution
from jaxcvx.solvers.semi_infinite.column_generation import ColumnGeneration
from jaxcvx.solvers.semi_infinite.neuron_path import empty_start, follow, follow_on_host, grow, pace_of
from jaxcvx.solvers.semi_infinite.pool import Pool, pool_network
from jaxcvx.solvers.semi_infinite.scaling import Scaling, scaled_problem
from jaxcvx.solvers.semi_infinite.sliding import Pace, Settings, Sliding

RULES = ("best", "one_standard_error")
_FEWER = 4  # the rounds on all data over those of the folds
_LAST_ROUNDS = 2  # in float64, of the networks at the chosen betas


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Result of :func:`jaxcvx.cross_validate`, a pytree. Its arrays are numpy arrays.

    Attributes:
      betas: (k,) weight decays, on the scale of all data.
      scores: (folds, k) scores of the left-out samples. Higher is better.
      mean: (k,) mean of the scores over the folds.
      standard_error: (k,) standard error of the mean: the folds' standard deviation over the root of their number.
      best: index of the beta with the best mean; of equal ones the largest beta.
      one_standard_error: index of the largest beta whose mean is within one standard error of the best.
      path: batched solution on all data, one entry per beta. Only the networks at ``best`` and ``one_standard_error``
        are finished in float64.
      train_scores: (folds, k) scores of the samples that the fold's networks were trained on.
      networks: batched networks of the folds; the arrays have two leading axes (folds, k).
      train_weights: (folds, n) weight of every sample in the fold's training problem; 0 for a sample that is left out.
      test_weights: (folds, n) weight of every sample in the fold's score.
      scoring: static; the name of the score, "" for a caller's function.
    """

    betas: Float[np.ndarray, k]
    scores: Float[np.ndarray, "folds k"]
    mean: Float[np.ndarray, k]
    standard_error: Float[np.ndarray, k]
    best: Any
    one_standard_error: Any
    path: Solution
    train_scores: Float[np.ndarray, "folds k"]
    networks: Network
    train_weights: Float[np.ndarray, "folds n"]
    test_weights: Float[np.ndarray, "folds n"]
    scoring: str = dataclasses.field(default="", metadata={"static": True})

    def index(self, rule: str = "best") -> int:
        """The index of the chosen beta, by the rule "best" or "one_standard_error"."""
        if rule not in RULES:
            raise invalid("rule", repr(rule), "'best' or 'one_standard_error'")
        return int(self.best if rule == "best" else self.one_standard_error)

    def network(self, rule: str = "best") -> Network:
        """The network on all data at the chosen beta, without zero neurons."""
        chosen = self.index(rule)
        return prune(jax.tree.map(lambda a: a[chosen], self.path.network))


@with_full_precision
def cross_validate(
    X: Any,
    Y: Any,
    *,
    loss: str | Loss = "squared",
    features: str | Features | None = None,
    betas: Any = 20,
    folds: Any = 5,
    key: Any = None,
    scoring: Any = None,
    sample_weight: Any = None,
    solver: ColumnGeneration | None = None,
) -> CrossValidation:
    """Choose beta by cross-validation along a path of betas.

    The networks of all betas are trained on all data, and anew on the training samples of every fold. Folds are
    sample weights, where 0 leaves a sample out, so the folds share compiled programs: they run one after the other on
    CPUs, together on accelerators. Networks are trained in float32, those of the folds with fewer rounds for each beta.
    Those on all data at the two chosen betas, the best one and that of the rule "one_standard_error", are finished in
    float64.

    The betas are those of all data. The loss is a sum over samples, so a fold whose training samples have the share s
    of all weight is trained with ``s * beta``. Then beta over the number of samples is the same in all folds.

    Args:
      X: (n, d) inputs, or the shape that ``features`` expects. Their columns should have a similar scale.
      Y: targets as in :func:`jaxcvx.make_problem`.
      loss: name of a smooth loss, or a Loss.
      features: as in :func:`jaxcvx.make_problem`; None for
        ``Dense(bias=True, output_bias=True)``.
      betas: the number of betas, in equal ratios from the beta for which the solution on all data is zero to 0.01 of
        it; or a vector (k,) of positive numbers, large ones first.
      folds: the number of folds, or an iterable of pairs (train, test) of indices or masks, such as
        ``sklearn.model_selection.KFold(5).split(X)``. A number of folds of nearly equal sizes is drawn at random by
        ``key``; for classes every fold has nearly the same share of each.
      key: a jax random key for the folds and for pricing; None for ``jax.random.key(0)``.
      scoring: "r2" (the default for real targets; the mean over outputs), "neg_mean_squared_error", "accuracy" (the
        default for classes and signs), "neg_log_loss" (for the logistic and the softmax loss), or a function
        ``(Y_true, F) -> number`` that jax can trace. It is called with the targets (m, c) and the network's outputs
        (m, c) of a fold's m samples. Targets are in the loss's form: reals, +-1, or one-hot rows.
      sample_weight: (n,) weights >= 0, or None. They are the weights of the named scores too. A function sees the
        samples of positive weight.
      solver: ``ColumnGeneration(...)`` with other settings than the default ones, or None.

    Returns:
      A :class:`CrossValidation`. ``result.network()`` is the network on all data at the best beta.

    Raises:
      InvalidInputError: an argument has a bad value; a fold has too few samples for its score.
      InvalidTypeError: an argument has a bad type, or is traced: cross-validation runs outside jit.

    Source: J. Friedman, T. Hastie and R. Tibshirani, "Regularization paths for generalized linear models via
    coordinate descent", Journal of Statistical Software 33 (2010).

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> X = np.linspace(-1.0, 1.0, 24)[:, None]
      >>> solver = jaxcvx.ColumnGeneration(width=8, move_steps=20)
      >>> result = jaxcvx.cross_validate(X, np.abs(X), betas=4, folds=3, solver=solver)
      >>> result.scores.shape, bool(result.mean[result.best] > 0.9)
      ((3, 4), True)
    """
    if is_traced(*jax.tree.leaves((X, Y, betas, sample_weight, key))):
        raise InvalidTypeError("cross_validate: got traced arrays, expected concrete ones: it runs outside jit.")
    features = Dense(bias=True, output_bias=True) if features is None else features
    problem = make_problem(X, Y, 1.0, loss=loss, features=features, sample_weight=sample_weight)
    solver = ColumnGeneration() if solver is None else solver
    if not isinstance(solver, ColumnGeneration):
        raise wrong_type("solver", solver, "ColumnGeneration(...) or None")
    if key is not None:
        check_key(key)
    split_key, path_key, fold_key, last_key = list_of_keys(key_of(0) if key is None else key, 4)
    score = resolve_scoring(scoring, problem.loss)
    parts = make_folds(folds, problem.Y, problem.loss, sample_weights(problem), split_key)
    refuse_small_folds(score, parts)
    problem = in_bucket_of_samples(problem)
    path = regularization_path(problem, betas, dataclasses.replace(solver, final_rounds=0), key=path_key)
    padded = parts.padded(problem.num_samples)
    networks = fit_folds(problem, path, padded, solver, fold_key)
    result = summarise(path, networks, parts, *score_networks(problem, networks, padded, score), score_name(score))
    chosen = {result.index(rule) for rule in RULES}
    last = dataclasses.replace(solver, final_rounds=min(solver.final_rounds, _LAST_ROUNDS))
    return dataclasses.replace(result, path=last.finish_path(problem, path, chosen, last_key))


def sample_weights(problem: Problem) -> Float[np.ndarray, n]:
    """The sample weights of a problem in float64, ones if it has none."""
    weight = problem.sample_weight
    return np.ones(problem.num_samples) if weight is None else np.asarray(weight, np.float64)


def refuse_small_folds(score: Any, parts: Folds) -> None:
    """Raise if R2 is not defined because a fold leaves out a single sample."""
    if score is r2 and (parts.test > 0).sum(axis=1).min() < 2:
        expected = "two left-out samples in every fold for scoring 'r2' (or scoring='neg_mean_squared_error')"
        raise invalid("folds", "a fold that leaves out one sample", expected)


def fit_folds(problem: Problem, path: Solution, parts: Folds, solver: ColumnGeneration, key: PRNGKeyArray) -> Network:
    """The networks of every fold, with two leading axes (folds, k).

    Args:
      problem: of all data; its own beta is not used.
      path: on all data; the folds have its betas.
      parts: the folds.
      solver: its settings are those of the folds too.
      key: for pricing's random starts.
    """
    settings = solver.settings()
    work, scaling = scaled_problem(problem, jnp.float32)
    inner = np.asarray(path.betas, np.float64) / (scaling.x * scaling.y)
    shares = parts.shares(sample_weights(problem))
    scaled: Any = np.asarray(shares[:, None] * inner, np.float32)
    train: Any = np.asarray(parts.train, np.float32)
    pace = pace_of(work, settings, solver.rate)
    pace = Pace(
        pace.rate,
        pace.tol,
        moves=-(-pace.moves // _FEWER),
        max_rounds=-(-pace.max_rounds // _FEWER),
        move_steps=-(-2 * pace.move_steps // 3),
    )
    run = _one_after_the_other if jax.default_backend() == "cpu" else _together
    pools = run(work, scaled, train, key, settings, pace, solver.width)
    with double_precision():
        exact, fine = to_double(problem), to_double(pools)
        work, scaling = scaled_problem(exact)
        networks = _networks(work, exact, scaling, fine)
        return jax.device_get(jax.tree.map(lambda a: np.asarray(a, problem.dtype), networks))


def _one_after_the_other(
    problem: Problem,
    betas: Float[Array, "folds k"],
    train: Float[Array, "folds n"],
    key: PRNGKeyArray,
    settings: Settings,
    pace: Pace,
    width: int,
) -> Pool:
    """The pools (folds, k, ...) of every fold's path, by the program of the path on all data.

    Args:
      problem: the scaled problem of all data.
      betas: each fold's betas in scaled units.
      train: each fold's sample weights.
      key: for pricing.
      settings, pace: as in ``follow``.
      width: number of slots for neurons at first.
    """
    start, paths = empty_start(problem, width, settings), []
    for weight, inner, here in zip(train, betas, list_of_keys(key, len(train)), strict=True):
        own = problem.replace(sample_weight=weight)
        paths.append(follow_on_host(own, inner, start, split_keys(here, len(inner)), settings, pace))
    widest = max(path.pools.weights.shape[1] for path in paths)
    grown = [grow(Sliding(*path[:3]), widest, settings).pool for path in paths]
    return jax.tree.map(lambda *arrays: np.stack(arrays), *grown)


def _together(
    problem: Problem, betas: Any, train: Any, key: PRNGKeyArray, settings: Settings, pace: Pace, width: int
) -> Pool:
    """The same in one program for all folds, again with twice the capacity where a pool is full. For accelerators."""
    limit = problem.num_rows * problem.num_columns + 1  # no optimum needs more neurons
    capacity = width
    each = [split_keys(here, betas.shape[1]) for here in list_of_keys(key, len(train))]  # as one after the other
    keys = jnp.stack(each)
    while True:
        sizes = settings._replace(stop_if_full=capacity < limit)
        pools = _follow_folds(problem, betas, train, empty_start(problem, capacity, sizes), keys, sizes, pace)
        full = np.any(np.asarray(pools.weights) != 0, axis=-1).all(axis=-1).any()
        if capacity >= limit or not full:
            return pools
        capacity *= 2


@functools.partial(jax.jit, static_argnames="settings")
def _follow_folds(
    problem: Problem, betas: Any, train: Any, start: Sliding, keys: PRNGKeyArray, settings: Settings, pace: Pace
) -> Pool:
    def fold(weight, inner, keys):
        return follow(problem.replace(sample_weight=weight), inner, start, keys, settings, pace).pools

    return jax.vmap(fold)(train, betas, keys)


@jax.jit
def _networks(work: Problem, problem: Problem, scaling: Scaling, pools: Pool) -> Network:
    """The networks of pools (folds, k, ...) of the scaled problem ``work``, in the caller's units."""
    return jax.vmap(jax.vmap(lambda pool: scaling.network(pool_network(work, pool), problem)))(pools)


def score_networks(
    problem: Problem, networks: Network, parts: Folds, score: Score | UnweightedScore
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (folds, k) of the training samples and of the left-out samples, in float64."""
    with double_precision():
        problem, networks = to_double(problem.replace(arrangements=None)), to_double(networks)
        weights: Any = np.stack([np.asarray(part, np.float64) for part in parts], axis=1)
        if not isinstance(score, UnweightedScore):
            both = jax.device_get(_weighted_scores(problem, networks, weights, score))
            return both[..., 0], both[..., 1]
        X, Y = np.asarray(problem.X), np.asarray(problem.Y)
        values = np.empty((*parts.train.shape[:1], networks.hidden.shape[1], 2))
        for fold, weight in enumerate(np.asarray(weights)):
            own = jax.tree.map(lambda a, fold=fold: a[fold], networks)
            for side, part in enumerate(weight):
                rows = np.flatnonzero(part > 0)
                values[fold, :, side] = _called(own, X[rows], Y[rows], score.function)
    return values[..., 0], values[..., 1]


@functools.partial(jax.jit, static_argnames="score")
def _weighted_scores(
    problem: Problem, networks: Network, weights: Float[Array, "folds 2 n"], score: Score
) -> Float[Array, "folds k 2"]:
    def fold(inputs):
        networks, (train, test) = inputs

        def at(network):
            F = network(problem.X)
            return jnp.stack([score(problem.Y, F, train), score(problem.Y, F, test)])

        return jax.lax.map(at, networks)

    return jax.lax.map(fold, (networks, (weights[:, 0], weights[:, 1])))


def _called(networks: Network, X: np.ndarray, Y: np.ndarray, function: Any) -> np.ndarray:
    """The values (k,) of the caller's function."""
    try:
        values = _called_jitted(networks, jnp.asarray(X), jnp.asarray(Y), function)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as err:
        raise InvalidTypeError("scoring: got a function that needs concrete values, expected one for jax.jit.") from err
    if values.ndim != 1:
        raise invalid("scoring", f"a function with values of shape {values.shape[1:]}", "a function with one number")
    return np.asarray(values)


@functools.partial(jax.jit, static_argnames="function")
def _called_jitted(networks: Network, X: Array, Y: Array, function: Any) -> Array:
    return jax.lax.map(lambda network: jnp.asarray(function(Y, network(X))), networks)


def summarise(
    path: Solution, networks: Network, parts: Folds, train_scores: np.ndarray, scores: np.ndarray, scoring: str
) -> CrossValidation:
    """Mean, standard error and the two choices of beta. A score that is not finite counts as the worst."""
    betas = np.asarray(path.betas)
    with np.errstate(invalid="ignore"):
        mean = scores.mean(axis=0)
        error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.zeros_like(mean)
    value = np.where(np.isfinite(mean), mean, -np.inf)
    best = _largest(betas, value >= value.max())
    room = error[best] if np.isfinite(error[best]) else 0.0
    return CrossValidation(
        betas=betas,
        scores=scores,
        mean=mean,
        standard_error=error,
        best=best,
        one_standard_error=_largest(betas, value >= value[best] - room),
        path=path,
        train_scores=train_scores,
        networks=networks,
        train_weights=parts.train,
        test_weights=parts.test,
        scoring=scoring,
    )


def _largest(betas: np.ndarray, allowed: np.ndarray) -> Any:
    """The index of the largest beta that is allowed."""
    return np.argmax(np.where(allowed, betas, -np.inf))
