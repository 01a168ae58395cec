"""The methods that ``benchmarks path`` measures, behind one interface.

``library`` is ``jaxcvx.regularization_path`` with ``ColumnGeneration`` without last rounds; its finish are these last
rounds. ``stand-in`` is the plain sliding Frank-Wolfe method of ``benchmarks.path_standin``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import path_standin


class Path(NamedTuple):
    """Networks at k betas, of one padded width m."""

    hidden: Any  # (k, m, p)
    output: Any  # (k, m, c)
    price: Any  # (k,) the largest price found over beta; the heuristic gap is price - 1
    solution: Any = None  # the library's own


class Method(NamedTuple):
    """What the benchmark calls. ``problem`` is in float32, betas (k,) fall, every call takes a jax key."""

    name: str
    fit_path: Callable[[Any, Any, Any], Path]  # problem, betas, key
    fit_one: Callable[[Any, Any], Path]  # problem with its beta, key; from nothing; k = 1
    cross_validate: Callable[[Any, Any, int, Any], Any]  # problem, betas, folds, key: anything that can be waited for
    finish: Callable[[Any, Path, int], tuple[np.ndarray, np.ndarray] | None]  # problem in float64, path, index


def _standin_path(problem: Any, betas: Any, key: Any) -> Path:
    weights = jnp.ones((1, problem.num_samples), problem.dtype)
    hidden, output, price = path_standin.paths(problem, jnp.asarray(betas, problem.dtype), weights, key)
    return Path(hidden[0], output[0], price[0])


def _standin_one(problem: Any, key: Any) -> Path:
    """Five betas down to that of the problem, from three times it."""
    return jax.tree.map(lambda a: a[-1:], _standin_path(problem, problem.beta * jnp.geomspace(3.0, 1.0, 5), key))


def _standin_cv(problem: Any, betas: Any, folds: int, key: Any) -> Any:
    """The folds and all data in one program. Returns the losses of the samples left out, (folds, k)."""
    n = problem.num_samples
    fold = np.random.default_rng(0).permutation(n) % folds
    weights = np.concatenate([fold != np.arange(folds)[:, None], np.ones((1, n), bool)])
    paths = path_standin.paths(problem, jnp.asarray(betas, problem.dtype), jnp.asarray(weights, problem.dtype), key)
    return path_standin.left_out(problem, *paths[:2], jnp.asarray(1 - weights, problem.dtype))


def _standin_finish(problem: Any, path: Path, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Convex programs on the cells of the neurons, in float64. None for more than 2048 targets: they take minutes."""
    import jaxcvx

    if problem.Y.size > 2048:
        return None
    hidden, output = path.hidden[k], path.output[k]
    alive = np.linalg.norm(output, axis=1) > 0
    if not alive.any():
        return hidden, output
    hidden, output = (jnp.asarray(a[alive], jnp.float64) for a in (hidden, output))
    network = jaxcvx.Network(hidden, output, features=problem.features)
    polished = jaxcvx.polish(network, problem.X, problem.Y, problem.beta, loss=problem.loss)
    return np.asarray(polished.hidden), np.asarray(polished.output)


def _library_path(problem: Any, betas: Any, key: Any) -> Path:
    import jaxcvx

    solver = jaxcvx.ColumnGeneration(final_rounds=0)
    path = jaxcvx.regularization_path(problem, np.asarray(betas, np.float32), solver, key=key)
    ratio = np.asarray(path.upper_bound) / np.maximum(np.asarray(path.heuristic_bound), np.finfo(np.float32).tiny)
    return Path(path.network.hidden, path.network.output, ratio, path)


def _library_one(problem: Any, key: Any) -> Path:
    """The short path of ``solve``, without its last rounds."""
    path = _library_path(problem, float(problem.beta) * np.array([8.0, 4.0, 2.0, 1.4, 1.0]), key)
    return jax.tree.map(lambda a: a[-1:], path._replace(solution=None))


def _library_cv(problem: Any, betas: Any, folds: int, key: Any) -> Any:
    import jaxcvx

    Y = np.asarray(problem.Y)
    labels = np.argmax(Y, axis=1) if problem.loss.kind == "label" else Y
    return jaxcvx.cross_validate(
        np.asarray(problem.X), labels, loss=problem.loss, features=problem.features, betas=betas, folds=folds, key=key
    )


def _library_finish(problem: Any, path: Path, k: int) -> tuple[np.ndarray, np.ndarray] | None:
    import jaxcvx

    done = jaxcvx.ColumnGeneration().finish_path(problem, path.solution, {k}, jax.random.key(0))
    return np.asarray(done.network.hidden[k]), np.asarray(done.network.output[k])


METHODS = {
    "library": Method("library", _library_path, _library_one, _library_cv, _library_finish),
    "stand-in": Method("stand-in", _standin_path, _standin_one, _standin_cv, _standin_finish),
}
DEFAULT = "library"
