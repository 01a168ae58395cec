"""Softmax cross-entropy, the one loss that couples the entries of a row. Its dual points lie in the simplex.

Source: the conjugate is standard (Boyd and Vandenberghe 2004, section 3.3), and checked numerically in the tests.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.losses.base import Loss, Matrix, entropy_term, rest_entropy
from jaxcvx.numerics.safe import divide


def balanced_rows(R: Matrix, Y: Matrix) -> Matrix:
    """R with the entry of the true class replaced in every row, so that rows sum to zero."""
    other = jnp.where(Y > 0, 0.0, R)
    return jnp.where(Y > 0, -jnp.sum(other, axis=1, keepdims=True), other)


def other_classes(R: Matrix, Y: Matrix) -> tuple[Matrix, Matrix, Array]:
    """Parts of R at the classes other than the true one.

    Returns:
      -R there, and 0 at the true class; its row sums (n, 1); True if, up to rounding, it is >= 0 and the rows of R
      sum to 0.
    """
    eps = jnp.finfo(R.dtype).eps
    other = jnp.maximum(jnp.where(Y > 0, 0.0, -R), 0.0)
    missed = jnp.sum(other, axis=1, keepdims=True)
    balanced = jnp.abs(jnp.sum(R, axis=1)) <= 64 * eps * (1 + R.shape[1])
    return other, missed, jnp.all(balanced) & jnp.all((Y > 0) | (R <= 8 * eps))


def centred_classes(R: Matrix, Y: Matrix, weight: Array) -> Matrix:
    """A point of the domain near R whose columns sum to zero.

    Row i of ``Q = weight * Y - R`` holds the probabilities of sample i times its weight. The columns of Q must sum to
    the weights W_k of the classes. Let S_k be these sums. In a class with S_k > W_k every entry is multiplied by
    ``W_k / S_k``. Every row divides what it lost among the classes with S_k < W_k, in proportion to ``W_k - S_k``.
    Entries stay >= 0 and rows keep their sums. Together the rows lost ``sum_k (S_k - W_k)_+``, which is equal to
    ``sum_k (W_k - S_k)_+``, so every class gets what it lacks.

    Args:
      R: dual residual in the domain.
      Y: one-hot rows.
      weight: the samples' weights (n, 1), or a scalar.
    """
    lacking = jnp.sum(R, axis=0)  # W_k - S_k
    Q = jnp.where(Y > 0, jnp.maximum(weight - R, 0.0), -R)
    excess = jnp.minimum(divide(jnp.maximum(-lacking, 0.0), jnp.sum(Q, axis=0)), 1.0)
    lost = Q * excess
    share = divide(jnp.maximum(lacking, 0.0), jnp.sum(jnp.maximum(lacking, 0.0)))
    return balanced_rows(-(Q - lost + jnp.sum(lost, axis=1, keepdims=True) * share), Y)


def best_log_odds(F: Matrix, Y: Matrix, weight: Array) -> Float[Array, c]:
    """The constants that make the cross-entropy of ``F + constants`` least, with the samples' weights.

    One step of iterative scaling, which is exact for predictions that are equal for all samples; then damped Newton.
    A class without samples gets a constant that is very small.
    """
    tiny, num_classes = jnp.finfo(F.dtype).tiny, F.shape[1]
    counts = jnp.sum(weight * Y, axis=0)
    damping = 0.5 ** jnp.arange(10, dtype=F.dtype)

    def value(c):
        each = jax.nn.logsumexp(F + c, axis=1, keepdims=True)
        return jnp.sum(weight * (each - jnp.sum(Y * (F + c), axis=1, keepdims=True)))

    def newton(_, c):
        P = jax.nn.softmax(F + c, axis=1)
        mass = weight * P
        hessian = jnp.diag(jnp.sum(mass, axis=0)) - P.T @ mass
        # Adding the same number to all constants changes nothing: the matrix of ones fixes that direction.
        size = jnp.trace(hessian) + tiny
        regular = size * (1 + float(jnp.finfo(F.dtype).eps) * jnp.eye(num_classes, dtype=F.dtype))
        step = jnp.linalg.solve(hessian + regular, jnp.sum(mass, axis=0) - counts)
        trials = c - damping[:, None] * step
        best = trials[jnp.argmin(jax.vmap(value)(trials))]
        return jnp.where(value(best) < value(c), best, c)

    P = jax.nn.softmax(F, axis=1)
    start = jnp.log(jnp.maximum(counts, tiny)) - jnp.log(jnp.maximum(jnp.sum(weight * P, axis=0), tiny))
    return jax.lax.fori_loop(0, 30, newton, start)


@dataclasses.dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """``logsumexp(f) - f_y``, summed over samples; Y is one-hot of shape (n, c)."""

    name = "softmax"
    curvature = 0.5
    kind = "label"

    def value(self, F, Y):
        return jnp.sum(jax.nn.logsumexp(F, axis=1) - jnp.sum(F * Y, axis=1))

    def grad(self, F, Y):
        return -balanced_rows(-jax.nn.softmax(F, axis=1), Y)

    def diagonal_curvature(self, F, Y):
        # diag(2 p (1 - p)) minus the Hessian diag(p) - p p^T is diagonally dominant.
        p = jax.nn.softmax(F, axis=1)
        return 2 * p * (1 - p)

    def dual_terms(self, R, Y):
        # The domain: rows of Y - R are probabilities. At the true class R is the sum of the other probabilities,
        # which keeps all digits; 1 - p loses them where p is nearly 1.
        other, missed, inside = other_classes(R, Y)
        slack = (8 + 2 * R.shape[1]) * jnp.finfo(R.dtype).eps
        inside = inside & jnp.all(missed <= 1 + slack)
        return jnp.append(entropy_term(other), rest_entropy(missed), axis=1), inside

    def max_scaling(self, R, Y):
        return 1.0 / jnp.maximum(jnp.max(jnp.where(Y > 0, R, 0.0)), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        p = jnp.maximum(Y - R, 0.0)
        return balanced_rows(-p / jnp.maximum(jnp.sum(p, axis=1, keepdims=True), jnp.finfo(R.dtype).tiny), Y)

    def center_dual(self, R, Y):
        return centred_classes(R, Y, jnp.ones((), R.dtype))

    def best_constant(self, F, Y):
        return best_log_odds(F, Y, jnp.ones((), F.dtype))

    def prox(self, F, Y, step):
        # Damped Newton; the Hessian diag(p) - p p^T + I/step is inverted by Sherman-Morrison.
        damping = 0.5 ** jnp.arange(8, dtype=F.dtype)

        def cost(G):
            return jax.nn.logsumexp(G, axis=-1) - jnp.sum(G * Y, -1) + jnp.sum((G - F) ** 2, -1) / (2 * step)

        def newton(_, G):
            p = jax.nn.softmax(G, axis=1)
            g = p - Y + (G - F) / step
            inverse = 1.0 / (p + 1 / step)
            a, b = inverse * g, inverse * p
            scale = jnp.sum(p * a, 1, keepdims=True) / (1 - jnp.sum(p * b, 1, keepdims=True))
            trial = G - damping[:, None, None] * (a + scale * b)
            best = jnp.argmin(jax.vmap(cost)(trial), axis=0)
            chosen = jnp.take_along_axis(trial, best[None, :, None], axis=0)[0]
            return jnp.where((cost(chosen) <= cost(G))[:, None], chosen, G)

        return jax.lax.fori_loop(0, 15, newton, F)
