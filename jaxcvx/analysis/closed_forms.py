"""Training problems with an explicit solution: rank-one data and whitened data.

Sources: Ergen and Pilanci, JMLR 22 (2021), corollary 5 and theorem 14 (rank one), lemmas 9 and 10, theorems 9, 12 and
15 (whitened: interpolation, one output, hinge, one-hot); Sahiner, Ergen, Pauly and Pilanci 2021 (several outputs).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.losses.entrywise import Hinge, Interpolation, Squared
from jaxcvx.networks.network import Network, balance
from jaxcvx.numerics.precision import with_full_precision
from jaxcvx.numerics.safe import divide, divisor, norm, unit_rows
from jaxcvx.problems.training import Problem


def whitened_value(sizes: Float[Array, k], beta: Any) -> Float[Array, ""]:
    """Optimal training objective on whitened rows, from the norms s_l of the parts of the targets Y.

    ``sum_l  beta s_l - beta^2 / 2  if s_l > beta  else  s_l^2 / 2``

    Args:
      sizes: (k,) norms s_l. For one-hot Y they are the square roots of the class counts; for one output they are
        ``(||y_+||, ||y_-||)``. The singular values of Y give the nuclear-norm relaxation, a lower bound for any Y.
      beta: weight decay.
    """
    sizes = jnp.asarray(sizes)
    return jnp.sum(jnp.where(sizes > beta, beta * sizes - beta**2 / 2, sizes**2 / 2))


@with_full_precision
def rank_one_solution(problem: Problem, tol: float | None = None) -> tuple[Network, Float[Array, ""]]:
    """Globally optimal network, and its training objective, for feature rows Z = c a^T of rank one.

    The extreme neurons are u = +-a / ||a||. Their activations phi = ||a|| (+-c)_+ have disjoint supports. Therefore
    the group lasso over them separates: v = (1 - beta / ||Y^T phi||)_+ Y^T phi / ||phi||^2 and

        p* = ||Y||^2 / 2 - sum_phi (||Y^T phi|| - beta)_+^2 / (2 ||phi||^2).

    Works only outside jit.

    Args:
      problem: squared loss, any number of outputs, no skip connection.
      tol: Z counts as rank one if its second singular value is at most ``tol`` times the first. The default is
        ``max(n, p)`` units of rounding.

    Returns:
      A balanced network of width 2, and its training objective p*.

    Raises:
      InvalidInputError: the data are not of rank one, the loss is not squared, or there is a skip connection.
      InvalidTypeError: the arrays are traced.

    Example:
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[2.0], [-1.0]], [1.0, 3.0], beta=1.0)
      >>> network, value = jaxcvx.rank_one_solution(problem)
      >>> network.width, round(float(value), 4)
      (2, 2.875)
    """
    if isinstance(problem.X, jax.core.Tracer):
        raise InvalidTypeError("rank_one_solution: got traced arrays, expected concrete ones.")
    if not problem.loss.is_quadratic or problem.features.skip or problem.features.output_bias:
        got = f"loss {problem.loss.name!r}, {problem.features}"
        raise invalid("problem", got, "the squared loss without a skip connection or an output bias")
    Z, Y, beta = problem.rows, problem.Y, problem.beta
    _, size, right = np.linalg.svd(np.asarray(Z), full_matrices=False)
    tol = max(Z.shape) * float(jnp.finfo(Z.dtype).eps) if tol is None else tol
    if size[0] == 0 or (size[1:] > tol * size[0]).any():
        rank = int((size > tol * size[0]).sum()) if size[0] > 0 else 0
        raise invalid("problem.X", f"feature rows of rank {rank}", "rank one")
    hidden = jnp.asarray(np.stack([right[0], -right[0]]))
    phi = jax.nn.relu(Z @ hidden.T)
    square = jnp.sum(phi**2, axis=0)
    correlations = phi.T @ Y
    shrunk = jnp.maximum(norm(correlations) - beta, 0.0)
    output = divide(shrunk, square)[:, None] * unit_rows(correlations)
    value = 0.5 * jnp.sum(Y**2) - jnp.sum(divide(shrunk**2, square)) / 2
    return balance(Network(hidden, output, None, problem.features)), value


class ClosedForm(NamedTuple):
    """An optimum that a formula gives.

    Attributes:
      network: the optimal network, balanced.
      value: its training objective.
      dual: (n, c) optimal dual residual. Its dual value equals ``value``.
    """

    network: Network
    value: Float[Array, ""]
    dual: Float[Array, "n c"]


@with_full_precision
def whitened_solution(problem: Problem, tol: float | None = None) -> ClosedForm:
    """Optimal network on whitened rows, Z Z^T = I: one neuron ``u = Z^T P / ||P||`` for each part P of the targets.

    For one output the parts are y_+ and (-y)_+; for the hinge these are the two classes. For several outputs the
    parts are the columns of the targets, which must be one-hot (or otherwise non-negative with disjoint supports).
    With s = ||P|| the neuron's output weight is

        squared loss    s - beta if s > beta, else 0      value  beta s - beta^2 / 2, else s^2 / 2
        interpolation   s                                        beta s
        hinge           s if s > beta, else 0                    min(beta s, s^2)        (s^2 samples in the class)

    With the hinge and s = beta every weight in [0, s] is optimal. The function works under jit if ``tol`` is infinite:
    then the rows and the targets are not checked.

    Args:
      problem: one of these losses; no skip connection, no output bias.
      tol: the rows count as whitened if no entry of ``Z Z^T - I`` exceeds ``tol``. The default is ``1e4`` units of
        rounding.

    Raises:
      InvalidInputError: another loss or architecture, rows that are not whitened, or targets with overlapping parts.

    Example:
      >>> import jaxcvx
      >>> problem = jaxcvx.make_problem([[1.0, 0.0], [0.0, 1.0]], [3.0, -1.0], beta=0.5)
      >>> optimum = jaxcvx.whitened_solution(problem)
      >>> round(float(optimum.value), 4)
      1.75
    """
    loss, Z, Y, beta = problem.loss, problem.rows, problem.Y, problem.beta
    features = problem.features
    if not isinstance(loss, Squared | Interpolation | Hinge) or features.skip or features.output_bias:
        raise invalid(
            "problem",
            f"loss {loss.name!r}, {features}",
            "squared, interpolation or hinge, without skip or output bias",
        )
    eps = float(jnp.finfo(Z.dtype).eps)
    tol = 1e4 * eps if tol is None else tol
    if tol < np.inf and not float(jnp.max(jnp.abs(Z @ Z.T - jnp.eye(len(Z))))) <= tol:
        raise invalid("problem.X", "rows that are not orthonormal", "whitened rows, see jaxcvx.fit_whitening")
    if problem.num_columns == 1:
        parts = jnp.concatenate([jnp.maximum(Y, 0), jnp.maximum(-Y, 0)], axis=1)
        towards = jnp.array([[1.0], [-1.0]])
    else:
        disjoint = loss.is_quadratic and problem.num_columns == problem.num_outputs
        if tol < np.inf and not (disjoint and bool(jnp.all(Y >= 0)) and bool(jnp.all(jnp.sum(Y > 0, axis=1) <= 1))):
            raise invalid("problem.Y", "parts that overlap", "one output, or one-hot targets with the squared loss")
        parts, towards = Y, jnp.eye(Y.shape[1])
    sizes = norm(parts, axis=0)
    slope = jnp.minimum(beta / divisor(sizes), 1.0)  # the dual residual of a part is slope * part
    if isinstance(loss, Squared):
        weights, value = jnp.maximum(sizes - beta, 0.0), whitened_value(sizes, beta)
    elif isinstance(loss, Hinge):
        weights, value = jnp.where(sizes > beta, sizes, 0.0), jnp.sum(jnp.minimum(beta * sizes, sizes**2))
    else:
        slope = jnp.minimum(beta / divisor(sizes), loss.penalty)
        weights, value = jnp.where(slope < loss.penalty, sizes, 0.0), jnp.sum(slope * sizes**2)
    dual = (parts * slope) @ towards
    network = Network(unit_rows(parts.T) @ Z, weights[:, None] * towards, None, features)
    return ClosedForm(balance(network), value, dual)
