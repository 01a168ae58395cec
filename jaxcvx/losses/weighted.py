"""Losses with a weight for every sample, carried by the targets: what estimators use for sample weights.

A weight of 0 takes a row out of the sum, so that data can be padded to a shape that is compiled already. (The
squared loss needs none of this: scaling a row of Z and of Y by the root of its weight is the same.)
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxcvx.losses.base import entropy_term, rest_entropy
from jaxcvx.losses.entrywise import Logistic
from jaxcvx.losses.softmax import SoftmaxCrossEntropy, balanced_rows, other_classes


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

    def dual_terms(self, R, Y):
        weight = jnp.abs(Y)
        t = _over(jnp.sign(Y) * R, weight)
        slack = 4 * jnp.finfo(R.dtype).eps
        inside = jnp.all((t >= 0) & (t <= 1 + slack) & ((weight > 0) | (R == 0)))
        return weight * self._dual_term(jnp.clip(t, 0.0, 1.0)), inside

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
        return jnp.sum(Y, axis=1, keepdims=True) * super().grad(F, Y)

    def dual_terms(self, R, Y):
        other, missed, inside = other_classes(R, Y)
        weight = jnp.sum(Y, axis=1, keepdims=True)
        share, lost = _over(other, weight), _over(missed, weight)
        slack = (8 + 2 * R.shape[1]) * jnp.finfo(R.dtype).eps
        terms = weight * jnp.append(entropy_term(share), rest_entropy(lost), axis=1)
        return terms, inside & jnp.all(missed <= weight * (1 + slack))

    def max_scaling(self, R, Y):
        return 1.0 / jnp.maximum(jnp.max(_over(R, Y)), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        p = jnp.maximum(Y - R, 0.0)
        weight = jnp.sum(Y, axis=1, keepdims=True)
        return balanced_rows(-weight * _over(p, jnp.sum(p, axis=1, keepdims=True)), Y)

    def prox(self, F, Y, step):
        weight = jnp.sum(Y, axis=1)

        def one(f, y, w):
            safe = jnp.where(w > 0, w, 1.0)
            moved = SoftmaxCrossEntropy().prox(f[None], y[None] / safe, safe * step)[0]
            return jnp.where(w > 0, moved, f)

        return jax.vmap(one)(F, Y, weight)
