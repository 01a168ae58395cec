"""Losses with a weight for every sample, carried by the targets: what estimators use for sample weights.

A weight of 0 takes a row out of the sum, so that data can be padded to a shape that is compiled already. (The
squared loss needs none of this: scaling a row of Z and of Y by the root of its weight is the same.)
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxcvx.problems.losses import Logistic, SoftmaxCrossEntropy, _entropy_term


def _over(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a / b``, 0 where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)


@dataclasses.dataclass(frozen=True)
class WeightedLogistic(Logistic):
    """``w log(1 + exp(-y f))``, summed over entries, with targets Y = w y: y = +-1 and weights 0 <= w <= 1."""

    name = "weighted-logistic"

    def value(self, F, Y):
        return jnp.sum(jnp.abs(Y) * jax.nn.softplus(-jnp.sign(Y) * F))

    def grad(self, F, Y):
        return -Y * jax.nn.sigmoid(-jnp.sign(Y) * F)

    def dual_value(self, R, Y):
        weight = jnp.abs(Y)
        t = _over(jnp.sign(Y) * R, weight)
        slack = 4 * jnp.finfo(R.dtype).eps
        inside = jnp.all((t >= 0) & (t <= 1 + slack) & ((weight > 0) | (R == 0)))
        return jnp.where(inside, jnp.sum(weight * self._dual_term(jnp.clip(t, 0.0, 1.0))), -jnp.inf)

    def max_scaling(self, R, Y):
        return super().max_scaling(_over(R, jnp.abs(Y)), jnp.sign(Y))

    def project_dual(self, R, Y):
        return jnp.sign(Y) * jnp.clip(jnp.sign(Y) * R, 0.0, jnp.abs(Y))

    def prox(self, F, Y, step):
        scaled = step * jnp.abs(Y)
        moved = super().prox(F, jnp.sign(Y), jnp.where(scaled > 0, scaled, 1.0))
        return jnp.where(scaled > 0, moved, F)


@dataclasses.dataclass(frozen=True)
class WeightedSoftmax(SoftmaxCrossEntropy):
    """``w (logsumexp(f) - f_y)``, summed over samples; rows of Y are w times one-hot, 0 <= w <= 1."""

    name = "weighted-softmax"

    def value(self, F, Y):
        return jnp.sum(jnp.sum(Y, axis=1) * jax.nn.logsumexp(F, axis=1) - jnp.sum(F * Y, axis=1))

    def grad(self, F, Y):
        return jnp.sum(Y, axis=1, keepdims=True) * jax.nn.softmax(F, axis=1) - Y

    def dual_value(self, R, Y):
        p, weight, eps = Y - R, jnp.sum(Y, axis=1), jnp.finfo(R.dtype).eps
        row = jnp.abs(jnp.sum(R, axis=1))
        inside = jnp.all(p >= -8 * eps) & jnp.all(row <= 64 * eps * (1 + R.shape[1]))
        value = jnp.sum(_entropy_term(jnp.maximum(p, 0.0))) - jnp.sum(_entropy_term(weight))
        return jnp.where(inside, value, -jnp.inf)

    def max_scaling(self, R, Y):
        return 1.0 / jnp.maximum(jnp.max(_over(R, Y)), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        p = jnp.maximum(Y - R, 0.0)
        weight = jnp.sum(Y, axis=1, keepdims=True)
        return Y - weight * _over(p, jnp.sum(p, axis=1, keepdims=True))

    def prox(self, F, Y, step):
        weight = jnp.sum(Y, axis=1)

        def one(f, y, w):
            safe = jnp.where(w > 0, w, 1.0)
            moved = SoftmaxCrossEntropy().prox(f[None], y[None] / safe, safe * step)[0]
            return jnp.where(w > 0, moved, f)

        return jax.vmap(one)(F, Y, weight)
