"""Training problems that are solved by a formula: rank-one data, whitened data.

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
from jaxcvx.problems.training import Problem


def whitened_value(sizes: Float[Array, k], beta: Any) -> Float[Array, ""]:
    """Optimal training objective on whitened rows, from the sizes of the parts that Y falls into.

    ``sum_l  beta s_l - beta^2 / 2  if s_l > beta  else  s_l^2 / 2``

    Args:
      sizes: (k,) square roots of the class counts for one-hot Y; ``(||y_+||, ||y_-||)`` for one output.
        Singular values of Y give the nuclear-norm relaxation, a lower bound for any Y.
      beta: weight decay.
    """
    sizes = jnp.asarray(sizes)
    return jnp.sum(jnp.where(sizes > beta, beta * sizes - beta**2 / 2, sizes**2 / 2))


@with_full_precision
def rank_one_solution(problem: Problem, tol: float | None = None) -> tuple[Network, Float[Array, ""]]:
    """Globally optimal network, and its training objective, for feature rows Z = c a^T of rank one.

    The extreme neurons are u = +-a / ||a||, with activations phi = ||a|| (+-c)_+ of disjoint supports, so the
    group lasso over them separates: v = (1 - beta / ||Y^T phi||)_+ Y^T phi / ||phi||^2 and

        p* = ||Y||^2 / 2 - sum_phi (||Y^T phi|| - beta)_+^2 / (2 ||phi||^2).

    Args:
      problem: squared loss, any number of outputs, no skip connection.
      tol: second singular value of Z, relative to the first, that still counts as rank one; default
        ``max(n, p)`` units of rounding.

    Returns:
      A balanced network of width 2 and the value. For use outside jit.

    Raises:
      InvalidInputError: the data are not of rank one, the loss is not squared, or there is a skip connection.
    """
    if isinstance(problem.X, jax.core.Tracer):
        raise InvalidTypeError("rank_one_solution: got traced arrays, expected concrete ones.")
    if not problem.loss.is_quadratic or problem.features.skip:
        raise invalid("problem", f"loss {problem.loss.name!r}", "the squared loss without a skip connection")
    Z, Y, beta = problem.rows, problem.Y, problem.beta
    _, size, right = np.linalg.svd(np.asarray(Z), full_matrices=False)
    tol = max(Z.shape) * float(jnp.finfo(Z.dtype).eps) if tol is None else tol
    if size[0] == 0 or (size[1:] > tol * size[0]).any():
        rank = int((size > tol * size[0]).sum()) if size[0] > 0 else 0
        raise invalid("problem.X", f"feature rows of rank {rank}", "rank one")
    hidden = jnp.asarray(np.stack([right[0], -right[0]]))
    phi = jax.nn.relu(Z @ hidden.T)
    square = jnp.sum(phi**2, axis=0)
    inverse = jnp.where(square > 0, 1 / jnp.where(square > 0, square, 1.0), 0.0)
    matched = phi.T @ Y
    norms = jnp.linalg.norm(matched, axis=1)
    kept = jnp.maximum(norms - beta, 0.0)
    scale = kept * inverse / jnp.where(norms > 0, norms, 1.0)
    value = 0.5 * jnp.sum(Y**2) - jnp.sum(kept**2 * inverse) / 2
    return balance(Network(hidden, scale[:, None] * matched, None, problem.features)), value


class ClosedForm(NamedTuple):
    """An optimum by formula.

    Attributes:
      network: optimal network, balanced.
      value: its training objective.
      dual: (n, c) optimal dual residual: its dual value is ``value`` too.
    """

    network: Network
    value: Float[Array, ""]
    dual: Float[Array, "n c"]


@with_full_precision
def whitened_solution(problem: Problem, tol: float | None = None) -> ClosedForm:
    """Optimal network on whitened rows, Z Z^T = I: one neuron ``u = Z^T P / ||P||`` for each part P of the targets.

    The parts are y_+ and (-y)_+ for one output, the columns of one-hot (or other non-negative, disjoint) targets,
    the two classes for the hinge. With s = ||P|| its output weight is

        squared loss    s - beta if s > beta, else 0      value  beta s - beta^2 / 2, else s^2 / 2
        interpolation   s                                        beta s
        hinge           s if s > beta, else 0                    min(beta s, s^2)        (s^2 samples in the class)

    (for s = beta every weight in [0, s] is optimal with the hinge). Works under jit where ``tol`` is infinite.

    Args:
      problem: one of these losses; no skip connection, no free bias.
      tol: largest entry of ``Z Z^T - I`` that still counts as whitened; default ``1e4`` units of rounding.

    Raises:
      InvalidInputError: another loss or architecture, rows that are not whitened, targets with overlapping parts.
    """
    loss, Z, Y, beta = problem.loss, problem.rows, problem.Y, problem.beta
    features = problem.features
    if not isinstance(loss, Squared | Interpolation | Hinge) or features.skip or features.free_bias:
        raise invalid(
            "problem",
            f"loss {loss.name!r}, {features}",
            "squared, interpolation or hinge, without skip or free bias",
        )
    eps = float(jnp.finfo(Z.dtype).eps)
    tol = 1e4 * eps if tol is None else tol
    if tol < np.inf and not float(jnp.max(jnp.abs(Z @ Z.T - jnp.eye(len(Z))))) <= tol:
        raise invalid("problem.X", "rows that are not orthonormal", "whitened rows, see jaxcvx.fit_whitening")
    if problem.num_columns == 1:
        parts, towards = (
            jnp.concatenate([jnp.maximum(Y, 0), jnp.maximum(-Y, 0)], axis=1),
            jnp.array([[1.0], [-1.0]]),
        )
    else:
        disjoint = loss.is_quadratic and problem.num_columns == problem.num_outputs
        if tol < np.inf and not (disjoint and bool(jnp.all(Y >= 0)) and bool(jnp.all(jnp.sum(Y > 0, axis=1) <= 1))):
            raise invalid("problem.Y", "parts that overlap", "one output, or one-hot targets with the squared loss")
        parts, towards = Y, jnp.eye(Y.shape[1])
    sizes = jnp.linalg.norm(parts, axis=0)
    safe = jnp.where(sizes > 0, sizes, 1.0)
    price = jnp.minimum(beta / safe, 1.0)  # of a part, per unit of it
    if isinstance(loss, Squared):
        weights, value = jnp.maximum(sizes - beta, 0.0), whitened_value(sizes, beta)
    elif isinstance(loss, Hinge):
        weights, value = jnp.where(sizes > beta, sizes, 0.0), jnp.sum(jnp.minimum(beta * sizes, sizes**2))
    else:
        price = jnp.minimum(beta / safe, loss.penalty)
        weights, value = jnp.where(price < loss.penalty, sizes, 0.0), jnp.sum(price * sizes**2)
    dual = (parts * price) @ towards
    network = Network((Z.T @ (parts / safe)).T, weights[:, None] * towards, None, features)
    return ClosedForm(balance(network), value, dual)
