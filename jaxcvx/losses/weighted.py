"""Losses with a weight for every sample, which the targets hold. Estimators use them for sample weights.

A weight of 0 takes a row out of the sum, so data can be padded to a shape for which a program is compiled already.
The squared loss has no such class: a weight is the same as scaling a row of Z and of Y by its square root.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxcvx.losses.base import entropy_term, rest_entropy
from jaxcvx.losses.entrywise import Logistic
from jaxcvx.losses.softmax import SoftmaxCrossEntropy, balanced_rows, other_classes
from jaxcvx.numerics.safe import divide, divisor


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
        t = divide(jnp.sign(Y) * R, weight)
        slack = 4 * jnp.finfo(R.dtype).eps
        inside = jnp.all((t >= 0) & (t <= 1 + slack) & ((weight > 0) | (R == 0)))
        return weight * self._dual_term(jnp.clip(t, 0.0, 1.0)), inside

    def max_scaling(self, R, Y):
        return super().max_scaling(divide(R, jnp.abs(Y)), jnp.sign(Y))

    def project_dual(self, R, Y):
        return jnp.sign(Y) * jnp.clip(jnp.sign(Y) * R, 0.0, jnp.abs(Y))

    def prox(self, F, Y, step):
        scaled = step * jnp.abs(Y)
        solved = super().prox(F, jnp.sign(Y), divisor(scaled))
        return jnp.where(scaled > 0, solved, F)


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
        share, lost = divide(other, weight), divide(missed, weight)
        slack = (8 + 2 * R.shape[1]) * jnp.finfo(R.dtype).eps
        terms = weight * jnp.append(entropy_term(share), rest_entropy(lost), axis=1)
        return terms, inside & jnp.all(missed <= weight * (1 + slack))

    def max_scaling(self, R, Y):
        return 1.0 / jnp.maximum(jnp.max(divide(R, Y)), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        p = jnp.maximum(Y - R, 0.0)
        weight = jnp.sum(Y, axis=1, keepdims=True)
        return balanced_rows(-weight * divide(p, jnp.sum(p, axis=1, keepdims=True)), Y)

    def prox(self, F, Y, step):
        weight = jnp.sum(Y, axis=1)

        def prox_of_sample(f, y, w):
            solved = SoftmaxCrossEntropy().prox(f[None], y[None] / divisor(w), divisor(w) * step)[0]
            return jnp.where(w > 0, solved, f)

        return jax.vmap(prox_of_sample)(F, Y, weight)
