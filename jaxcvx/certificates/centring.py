"""Dual residuals for networks with an output bias: their columns sum to zero.

For a network with predictions F + c, Fenchel's inequality is ``loss(F + c) >= -loss*(-R) - <R, F + c>``. If the columns
of R sum to zero, c drops out, and R bounds the networks with every c. In floating point the columns sum to zero up to
rounding only, while c is unbounded; :func:`imbalance` bounds the distance to a residual for which the sums are exact.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.numerics.rounding import careful_sum, gamma
from jaxcvx.numerics.safe import divide, divisor
from jaxcvx.problems.training import Problem, best_constant

Scalar = Float[Array, ""]


def feasible_residual(problem: Problem, R: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """R itself; with an output bias a residual near R whose columns sum to zero."""
    return problem.loss.center_dual(R, problem.targets) if problem.features.output_bias else R


def best_shifted(problem: Problem, F: Float[Array, "n c"]) -> Float[Array, "n c"]:
    """F itself; with an output bias and a smooth loss, F plus the best constants.

    The residual of these predictions is dual feasible up to a factor and rounding, so a network's bound does not depend
    on its own output bias.
    """
    return F + best_constant(problem, F) if problem.features.output_bias and problem.loss.is_smooth else F


def imbalance(R: Float[Array, "n c"]) -> Scalar:
    """A share t such that some R' in the segment from R to another dual point has columns that sum to zero exactly.

    ``R' = (1 - t) R + t T``. The columns of a computed R sum to zero up to rounding only, and the output bias of a
    network is unbounded. Let P and N be the sums of a column's positive and negative parts. For a loss that is a sum
    over entries, R' is R with the larger part multiplied by ``min(P, N) / max(P, N)``, so each entry of T lies between
    0 and that of R. For the cross-entropy R' is ``centred_classes(R)``: each probability is at least ``1 - t`` times
    its old value, as the sum S_k of a class is at least N, so T is a dual point as well. In both cases
    ``t = max |P - N| / max(P, N)`` over the columns. Rounding in P - N, and in s R for the scaling s, is added.

    The dual objective is concave. For a sum over entries, the term of each entry falls by at most t times the sum of
    its absolute values at R and at 0. The cross-entropy's dual objective, an entropy, is not negative at T, so it falls
    by at most t times its value at R.
    """
    total, error = jax.vmap(careful_sum, in_axes=1)(R)
    larger = jnp.maximum(jnp.sum(jnp.maximum(R, 0.0), axis=0), jnp.sum(jnp.maximum(-R, 0.0), axis=0))
    slack = 1 + gamma(4 * len(R) + 8, R.dtype)
    return jnp.minimum(jnp.max(divide(jnp.abs(total) + error, larger)) * slack + gamma(16, R.dtype), 1.0)


def imbalance_price(problem: Problem, R: Float[Array, "n c"], rows: Float[Array, "N p"], share: Scalar) -> Scalar:
    """Bound on the change of any price if R moves by the share of :func:`imbalance` towards another dual point."""
    if problem.loss.kind == "label":  # an entry moves by at most the weight of its sample
        weight = problem.sample_weight
        size = jnp.ones_like(R) if weight is None else jnp.broadcast_to(weight[:, None], R.shape)
    else:
        size = jnp.abs(R)
    lifted = problem.readout.lift(size)
    if problem.features.free_bias:
        return share * jnp.linalg.norm(lifted) * spread(problem, rows)
    change = jnp.linalg.norm(jnp.abs(rows).T @ lifted)
    return share * change * (1 + gamma(len(rows) + rows.shape[1] * lifted.shape[1] + 8, R.dtype))


def spread(problem: Problem, rows: Float[Array, "N p"]) -> Scalar:
    """Bound on the norm of the rows as seen from any of them, without the column of ones."""
    X = problem.features.penalised(rows)
    return jnp.linalg.norm(X - jnp.mean(X, axis=0)) * (1 + len(X) ** 0.5)


def dual_targets(problem: Problem) -> tuple[Any, Array | None]:
    """The targets for the dual objective; and Y without its mean, if that replaces Y in them.

    With an output bias ``<R, Y>`` does not change if a constant is taken off Y. Then large constants cost no digits.
    """
    if not (problem.features.output_bias and problem.loss.shift_invariant):
        return problem.targets, None
    weight = 1.0 if problem.sample_weight is None else problem.sample_weight[:, None]
    ones = jnp.ones_like(problem.Y) * weight
    middle = jnp.sum(ones * problem.Y, axis=0) / divisor(jnp.sum(ones, axis=0))
    centred = problem.replace(Y=problem.Y - middle)
    return centred.targets, centred.Y
