"""SoftThresholdedSVD: the training problem on whitened rows, by one singular value decomposition.

If Z Z^T = I every h >= 0 of norm at most 1 is (Z u)_+ for u = Z^T h, of the same norm, and no neuron does better:
||(Z u)_+|| <= ||u||. So neurons range over non-negative vectors (the data are spike-free), and dropping h >= 0 leaves

    min_V  1/2 ||Z V - Y||^2 + beta ||V||_*,     V = Z^T sum_l (s_l - beta)_+ a_l b_l^T    for Y = sum_l s_l a_l b_l^T

(Sahiner, Ergen, Pauly and Pilanci 2021). Its value bounds every network from below, and is reached by a network if
each kept a_l has one sign. With equal singular values the a_l are not unique: one-hot Y with equal class counts
hides its one-signed vectors, the columns, so columns are tried as well. For one output y the optimum fits y_+
and y_- apart, each shrunk by beta (Ergen and Pilanci, JMLR 2021, theorem 9).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.certificates.dual import proved_bound, scaled_bound
from jaxcvx.errors import invalid
from jaxcvx.networks.network import Network, balance, network_objective
from jaxcvx.numerics.rounding import gamma
from jaxcvx.problems.training import Problem
from jaxcvx.solvers.core.protocol import Solver
from jaxcvx.solvers.core.solution import Outcome, Parts, relative_gap
from jaxcvx.solvers.neurons.refit import better, refit_outputs


class _State(NamedTuple):
    params: Float[Array, "p c"]
    step: Array
    residual: Array
    objective: Array
    bound: Array


def _traced(problem: Problem) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in (problem.X, problem.Y))


def _norms(A: Float[Array, "n k"]) -> Float[Array, k]:
    square = jnp.sum(A**2, axis=0)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _shrink_factor(size: Float[Array, k], beta: Array) -> Float[Array, k]:
    return jnp.where(size > beta, 1 - beta / jnp.where(size > beta, size, 1.0), 0.0)


def _signs(A: Float[Array, "n k"]) -> Float[Array, "n 2k"]:
    """Positive and negative parts of every column."""
    return jnp.concatenate([jnp.maximum(A, 0.0), jnp.maximum(-A, 0.0)], axis=1)


def nonnegative_dual_norm(Z: Float[Array, "n p"], R: Float[Array, "n c"]) -> Float[Array, ""]:
    """Upper bound on ``max ||R^T (Z u)_+||`` over all unit u, for any Z; exact for one output if Z Z^T = I.

    ``(Z u)_+`` is non-negative and no longer than ``||Z||``. Over such vectors: at most the spectral norm of R, and
    at most the root of the summed squares of ``max(||r_+||, ||r_-||)`` over its columns.
    """
    both = _norms(_signs(R)).reshape(2, -1)
    separate = jnp.linalg.norm(jnp.max(both, axis=0))
    spectral = jnp.linalg.norm(R, ord=2)
    rounding = gamma(8 * (sum(Z.shape) + R.shape[1]) + 64, R.dtype)
    return jnp.minimum(separate, spectral) * jnp.linalg.norm(Z, ord=2) * (1 + rounding)


def _column_fit(Y: Array, beta: Array) -> tuple[Array, Array]:
    """Parts (n, 2c) of the columns' signs and their shrunk output weights: each column fitted for itself."""
    parts = _signs(Y)
    eye = jnp.eye(Y.shape[1], dtype=Y.dtype)
    return parts, _shrink_factor(_norms(parts), beta)[:, None] * jnp.concatenate([eye, -eye])


def _network(problem: Problem) -> Network:
    """The better of the two closed forms, its outputs refitted over the hidden directions of both."""
    Z, Y, beta = problem.rows, problem.Y, problem.beta
    left, size, right = jnp.linalg.svd(Y, full_matrices=False)
    left = jnp.where(jnp.abs(left) > 64 * jnp.finfo(Y.dtype).eps, left, 0.0)  # no neurons made of rounding
    weights = jnp.maximum(size - beta, 0.0)[:, None] * right
    first, second = _column_fit(Y, beta), (_signs(left), jnp.concatenate([weights, -weights]))
    hidden = jnp.concatenate([first[0], second[0]], axis=1).T @ Z

    def network(a, b):
        return balance(Network(hidden, jnp.concatenate([a, b]), None, problem.features))

    columns = network(first[1], jnp.zeros_like(second[1]))
    singular = network(jnp.zeros_like(first[1]), second[1])
    zero = jax.tree.map(jnp.zeros_like, columns)
    best = better(problem, columns, better(problem, singular, zero))
    fitted = refit_outputs(problem, dataclasses.replace(best, hidden=hidden, output=_outputs(best, hidden)))
    value = network_objective(best, problem)
    wins = network_objective(fitted, problem) < value * (1 - 256 * jnp.finfo(Y.dtype).eps)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), fitted, best)


def _outputs(network: Network, hidden: Array) -> Array:
    """Output weights of the same function, for parallel hidden weights of other lengths."""
    size = jnp.linalg.norm(hidden, axis=1)
    scale = jnp.linalg.norm(network.hidden, axis=1) / jnp.where(size > 0, size, 1.0)
    return network.output * scale[:, None]


def _has_orthogonal_parts(Y: np.ndarray) -> bool:
    """One column, or non-negative columns with disjoint supports: then the columns' fit is optimal."""
    return Y.shape[1] == 1 or bool((Y >= 0).all() and ((Y > 0).sum(axis=1) <= 1).all())


@dataclasses.dataclass(frozen=True)
class SoftThresholdedSVD(Solver):
    """Closed form for whitened feature rows, Z Z^T = I (see :func:`jaxcvx.fit_whitening`); squared loss.

    ``params`` is V (p, c), the minimiser of the nuclear-norm relaxation, ``objective`` its value. ``network`` is
    globally optimal for one output, for one-hot Y (or any Y >= 0 with one non-zero per row), and where
    the singular vectors kept are one-signed. Otherwise it is rounded: each singular vector is split into its
    positive and negative part, outputs are refitted, and ``gap`` says how far that can be from optimal.

    ``lower_bound`` holds for every network. ``scope`` is "global" for one output, and where Y is seen to be of the
    second kind (it can't be under jit); else "relaxation".

    Outside jit data that are not whitened are refused. Under jit they end as MAX_STEPS, with a real network
    and bounds that hold but are loose. Works under jit and vmap.
    """

    max_steps: int = 1
    check_every: int = 1

    requires = frozenset({"squared loss", "no skip", "no free bias"})

    def validate(self, problem: Problem) -> None:
        if _traced(problem):
            return
        Z = np.asarray(problem.rows)
        error = float(np.abs(Z @ Z.T - np.eye(len(Z))).max())
        if error > max(len(Z), 100) * float(jnp.finfo(Z.dtype).eps) ** 0.75:
            raise invalid(
                "problem.X",
                f"feature rows Z with max |Z Z^T - I| = {error:.2g}",
                "whitened rows, Z Z^T = I: X = jaxcvx.fit_whitening(X)(X) for independent rows",
            )

    def initial_params(self, problem: Problem, key: Any) -> Array:
        return jnp.zeros((problem.rows.shape[1], problem.num_outputs), problem.X.dtype)

    def init(self, problem: Problem, key: Any, params: Array) -> _State:
        one = jnp.ones((), problem.X.dtype)
        return _State(params, jnp.asarray(0, jnp.int32), jnp.inf * one, jnp.inf * one, -jnp.inf * one)

    def step(self, problem: Problem, state: _State) -> _State:
        left, size, right = jnp.linalg.svd(problem.Y, full_matrices=False)
        fit = (left * jnp.maximum(size - problem.beta, 0.0)) @ right
        return state._replace(params=problem.rows.T @ fit, step=state.step + 1)

    def _relaxation(self, problem: Problem, V: Array) -> tuple[Array, Array]:
        """Value of the nuclear-norm relaxation at V, and its dual value."""
        F = problem.rows @ V
        penalty = jnp.sum(jnp.linalg.svd(V, compute_uv=False))
        R = problem.Y - F
        bound = scaled_bound(problem, R, jnp.linalg.norm(problem.rows.T @ R, ord=2))
        return problem.loss.value(F, problem.Y) + problem.beta * penalty, bound

    def check(self, problem: Problem, state: _State) -> _State:
        objective, bound = self._relaxation(problem, state.params)
        return state._replace(residual=relative_gap(objective, bound), objective=objective, bound=bound)

    def finish(self, problem: Problem, state: _State) -> Outcome:
        return Outcome(state.params, None)

    def evaluate(self, problem: Problem, outcome: Outcome) -> Parts:
        Z, Y, V = problem.rows, problem.Y, outcome.params
        network = _network(problem)
        parts, outputs = _column_fit(Y, problem.beta)
        residuals = (Y - Z @ V, Y - parts @ outputs, Y - network(problem.X))
        bounds = [proved_bound(problem, R, nonnegative_dual_norm(Z, R)) for R in residuals]
        objective, bound = self._relaxation(problem, V)
        return Parts(network, objective, bound, jnp.max(jnp.stack(bounds)))

    def scope(self, problem: Problem) -> str:
        exact = problem.num_outputs == 1
        if not _traced(problem):
            exact = _has_orthogonal_parts(np.asarray(problem.Y))
        return "global" if exact else "relaxation"
