"""Training problems that are solved by a formula: rank-one data, and the value on whitened data.

Squared loss throughout. Sources: Ergen and Pilanci, JMLR 22 (2021), corollary 5 and theorem 14 (rank one), theorems
9 and 15 (whitened); Sahiner, Ergen, Pauly and Pilanci 2021 (several outputs).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.networks.network import Network, balance
from jaxcvx.problems.losses import Squared
from jaxcvx.problems.relu import Problem


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
    if not isinstance(problem.loss, Squared) or problem.features.skip:
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
