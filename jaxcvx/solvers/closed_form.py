"""SoftThresholdedSVD: the training problem on whitened rows, by one singular value decomposition.

Let Z Z^T = I. Then every h >= 0 of norm at most 1 is (Z u)_+ for u = Z^T h, and u has the norm of h. Conversely
||(Z u)_+|| <= ||u||. So the activations of unit neurons are the non-negative vectors of norm at most 1 (the data are
spike-free). Without h >= 0 the program is

    min_V  1/2 ||Z V - Y||^2 + beta ||V||_*,     V = Z^T sum_l (s_l - beta)_+ a_l b_l^T    for Y = sum_l s_l a_l b_l^T

(Sahiner, Ergen, Pauly and Pilanci 2021). Its value bounds every network from below. A network reaches it if every
a_l with s_l > beta has entries of one sign. With equal singular values the a_l are not unique: for one-hot Y with
equal class counts an SVD need not find the one-signed ones, which are the columns of Y. So the columns are tried as
well. For one output y the optimum fits y_+ and y_- apart, each shrunk by beta (Ergen and Pilanci, JMLR 2021,
theorem 9).
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
from jaxcvx.numerics.safe import divide, divisor, norm
from jaxcvx.numerics.trees import is_traced
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
    return is_traced(problem.X, problem.Y)


def _shrink_factor(size: Float[Array, k], beta: Array) -> Float[Array, k]:
    """``(1 - beta / size)_+``, 0 for size 0."""
    return divide(jnp.maximum(size - beta, 0.0), size)


def _signs(A: Float[Array, "n k"]) -> Float[Array, "n 2k"]:
    """Positive and negative parts of every column."""
    return jnp.concatenate([jnp.maximum(A, 0.0), jnp.maximum(-A, 0.0)], axis=1)


def nonnegative_dual_norm(Z: Float[Array, "n p"], R: Float[Array, "n c"]) -> Float[Array, ""]:
    """Upper bound on ``max ||R^T (Z u)_+||`` over all unit u, for any Z; exact for one output if Z Z^T = I.

    ``(Z u)_+`` is non-negative, and its norm is at most ``||Z||``. Over non-negative unit vectors h two numbers bound
    ``||R^T h||``: the spectral norm of R, and the root of the sum of ``max(||r_+||, ||r_-||)^2`` over the columns r.
    """
    both = norm(_signs(R), axis=0).reshape(2, -1)
    separate = jnp.linalg.norm(jnp.max(both, axis=0))
    spectral = jnp.linalg.norm(R, ord=2)
    rounding = gamma(8 * (sum(Z.shape) + R.shape[1]) + 64, R.dtype)
    return jnp.minimum(separate, spectral) * jnp.linalg.norm(Z, ord=2) * (1 + rounding)


def _column_fit(Y: Array, beta: Array) -> tuple[Array, Array]:
    """Activations (n, 2c) and output weights (2c, c) of the optimum for each column of Y by itself."""
    parts = _signs(Y)
    eye = jnp.eye(Y.shape[1], dtype=Y.dtype)
    return parts, _shrink_factor(norm(parts, axis=0), beta)[:, None] * jnp.concatenate([eye, -eye])


def _network(problem: Problem) -> Network:
    """The better of the two closed forms; then its output weights are refitted over the hidden directions of both."""
    Z, Y, beta = problem.rows, problem.Y, problem.beta
    left, size, right = jnp.linalg.svd(Y, full_matrices=False)
    left = jnp.where(jnp.abs(left) > 64 * jnp.finfo(Y.dtype).eps, left, 0.0)  # no neurons made of rounding
    shrunk = jnp.maximum(size - beta, 0.0)[:, None] * right
    column_parts, column_weights = _column_fit(Y, beta)
    singular_parts, singular_weights = _signs(left), jnp.concatenate([shrunk, -shrunk])
    hidden = jnp.concatenate([column_parts, singular_parts], axis=1).T @ Z

    def network(of_columns, of_singular_vectors):
        output = jnp.concatenate([of_columns, of_singular_vectors])
        return balance(Network(hidden, output, None, problem.features))

    columns = network(column_weights, jnp.zeros_like(singular_weights))
    singular = network(jnp.zeros_like(column_weights), singular_weights)
    zero = jax.tree.map(jnp.zeros_like, columns)
    best = better(problem, columns, better(problem, singular, zero))
    fitted = refit_outputs(problem, dataclasses.replace(best, hidden=hidden, output=_outputs(best, hidden)))
    value = network_objective(best, problem)
    wins = network_objective(fitted, problem) < value * (1 - 256 * jnp.finfo(Y.dtype).eps)
    return jax.tree.map(lambda a, b: jnp.where(wins, a, b), fitted, best)


def _outputs(network: Network, hidden: Array) -> Array:
    """Output weights of the same function, for parallel hidden weights of other lengths."""
    scale = norm(network.hidden) / divisor(norm(hidden))
    return network.output * scale[:, None]


def _has_orthogonal_parts(Y: np.ndarray) -> bool:
    """True for one column, and for non-negative columns with disjoint supports. The columns' fit is optimal then."""
    return Y.shape[1] == 1 or bool((Y >= 0).all() and ((Y > 0).sum(axis=1) <= 1).all())


@dataclasses.dataclass(frozen=True)
class SoftThresholdedSVD(Solver):
    """Closed form for whitened feature rows, Z Z^T = I (see :func:`jaxcvx.fit_whitening`); squared loss.

    ``params`` is V (p, c), the minimiser of the nuclear-norm relaxation, ``objective`` its value. ``network`` is
    globally optimal for one output, for Y >= 0 with at most one non-zero per row (one-hot rows, for instance), and
    where the singular vectors of values above beta have entries of one sign. Otherwise it is rounded: each singular
    vector is split into its positive and negative part, and the output weights are refitted. ``gap`` bounds the cost.

    ``lower_bound`` holds for every network. ``scope`` is "global" for one output, and for Y >= 0 with at most one
    non-zero per row, which is seen outside jit only; else "relaxation".

    Outside jit data that are not whitened are refused. Under jit the solve of such data ends as MAX_STEPS, with a
    real network and bounds that hold but are loose. Works under jit and vmap.

    Example:
      >>> import numpy as np
      >>> import jaxcvx
      >>> X, y = np.eye(2), [2.0, -3.0]
      >>> solution = jaxcvx.solve(jaxcvx.make_problem(X, y, beta=0.5), jaxcvx.SoftThresholdedSVD())
      >>> print([f"{value:.2f}" for value in solution.network(X)[:, 0]], solution.scope)  # targets shrunk by beta
      ['1.50', '-2.50'] global
    """

    max_steps: int = 1
    check_every: int = 1

    requires = frozenset({"squared loss", "no sample weights", "no skip", "no free bias"})

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
