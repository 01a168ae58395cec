"""Losses with a weight for every sample: ``sum_i w_i loss(F_i, Y_i)``.

:class:`Weighted` makes the weighted loss of any loss. Its targets are a pair of Y and the weights. The conjugate of
``w f`` at G is ``w f*(G / w)``; with w = 0 it is 0 at G = 0 and infinite elsewhere. So a dual residual is zero at the
samples of weight zero.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcvx.errors import invalid, wrong_type
from jaxcvx.losses.base import Loss
from jaxcvx.losses.entrywise import Huber, Interpolation, Squared, _SignLoss
from jaxcvx.losses.softmax import SoftmaxCrossEntropy, best_log_odds, centred_classes
from jaxcvx.numerics.safe import divide, divisor
from jaxcvx.numerics.trees import is_traced
from jaxcvx.numerics.validation import as_real_matrix


def as_sample_weight(sample_weight: Any, num_samples: int, dtype: Any) -> Array | None:
    """Return the weights as an array (n,), or None. Of traced weights only the shape and the type are checked.

    Raises:
      InvalidTypeError: the weights are not real numbers.
      InvalidInputError: a wrong shape, a weight that is negative or not finite, or no positive weight.
    """
    if sample_weight is None:
        return None
    weight = as_real_matrix("sample_weight", sample_weight, 1)
    if weight.shape != (num_samples,):
        raise invalid("sample_weight", f"{weight.shape[0]} numbers", f"{num_samples}, one for each row of X")
    if not is_traced(weight):
        with np.errstate(over="ignore", under="ignore"):
            host = np.asarray(weight).astype(dtype)
        if not (np.isfinite(host).all() and (host >= 0).all()):
            raise invalid("sample_weight", host[~((host >= 0) & np.isfinite(host))][0], "numbers >= 0")
        if not host.any():
            raise invalid("sample_weight", "only zeros", "a positive weight")
    return weight.astype(dtype)


class WeightedTargets(NamedTuple):
    """The targets of a :class:`Weighted` loss.

    Attributes:
      Y: targets of the loss without weights.
      weight: weights >= 0 of the samples.
    """

    Y: Float[Array, "n c"]
    weight: Float[Array, n]

    @property
    def column(self) -> Float[Array, "n 1"]:
        """The weights as a column."""
        return self.weight[:, None]


@dataclasses.dataclass(frozen=True)
class Weighted(Loss):
    """``sum_i w_i base(F_i, Y_i)``; its methods take :class:`WeightedTargets` for Y.

    It is never quadratic in the sense of :attr:`Loss.is_quadratic`: closed forms and factorisations that are made for
    the squared loss do not hold with weights.

    Attributes:
      base: the loss without weights.

    >>> import jax.numpy as jnp
    >>> targets = WeightedTargets(jnp.zeros((2, 1)), jnp.array([3.0, 0.0]))
    >>> print(Weighted(Squared()).value(jnp.ones((2, 1)), targets))
    1.5
    """

    base: Loss

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"weighted-{self.base.name}"

    @property
    def curvature(self) -> float | None:  # type: ignore[override]
        """Of the loss without weights. See :meth:`curvature_bound`."""
        return self.base.curvature

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.base.kind

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]
        return self.base.shift_invariant

    @property
    def unweighted(self) -> Loss:
        return self.base

    def curvature_bound(self, Y):
        return self.base.curvature_bound(Y.Y) * jnp.max(Y.weight)

    def majorant(self, D, Y):
        return self.base.majorant(jnp.sqrt(_checked(Y).column) * D, Y.Y)

    def value(self, F, Y):
        each = jax.vmap(lambda f, y: self.base.value(f[None], y[None]))(F, _checked(Y).Y)
        return jnp.sum(Y.weight * jnp.where((Y.weight > 0) | jnp.isfinite(each), each, 0.0))

    def grad(self, F, Y):
        return _checked(Y).column * self.base.grad(F, Y.Y)

    def diagonal_curvature(self, F, Y):
        return _checked(Y).column * self.base.diagonal_curvature(F, Y.Y)

    def dual_terms(self, R, Y):
        shares = divide(R, _checked(Y).column)
        terms, inside = jax.vmap(lambda r, y: self.base.dual_terms(r[None], y[None]))(shares, Y.Y)
        weight = Y.weight.reshape(-1, *[1] * (terms.ndim - 1))
        terms = jnp.where(weight > 0, weight * terms, 0.0)
        return terms, jnp.all(inside) & jnp.all((Y.column > 0) | (R == 0))

    def prox(self, F, Y, step):
        def sample(f, y, w):
            return jnp.where(w > 0, self.base.prox(f[None], y[None], step * divisor(w))[0], f)

        return jax.vmap(sample)(F, _checked(Y).Y, Y.weight)

    def max_scaling(self, R, Y):
        return self.base.max_scaling(divide(R, _checked(Y).column), Y.Y)

    def best_scaling(self, R, Y, limit):
        if not isinstance(self.base, Squared | Huber):
            return super().best_scaling(R, Y, limit)
        root = jnp.sqrt(_checked(Y).column)
        limit = jnp.minimum(limit, self.max_scaling(R, Y))
        return Squared().best_scaling(divide(R, root), root * Y.Y, limit)

    def dual_candidates(self, F, Y):
        return _checked(Y).column * self.base.dual_candidates(F, Y.Y)

    def project_dual(self, R, Y):
        return _checked(Y).column * self.base.project_dual(divide(R, Y.column), Y.Y)

    def center_dual(self, R, Y):
        base, given = self.base, _checked(Y)
        if isinstance(base, SoftmaxCrossEntropy):
            return centred_classes(R, given.Y, given.column)
        if isinstance(base, _SignLoss | Huber | Interpolation):  # scales the entries down, so zeros stay
            return base.center_dual(R, given.Y)
        if type(base).center_dual is Loss.center_dual:
            return R - given.column * jnp.sum(R, axis=0) / divisor(jnp.sum(given.weight))
        return jnp.zeros_like(R)  # feasible whatever the loss is

    def best_constant(self, F, Y):
        given = _checked(Y)
        if isinstance(self.base, Squared):
            return jnp.sum(given.column * (given.Y - F), axis=0) / divisor(jnp.sum(given.weight))
        if isinstance(self.base, SoftmaxCrossEntropy):
            return best_log_odds(F, given.Y, given.column)
        return super().best_constant(F, Y)

    def constant_bracket(self, F, Y):
        return self.base.constant_bracket(F, _checked(Y).Y)

    def dual_interval(self, Y):
        low, high = self.base.dual_interval(_checked(Y).Y)
        return Y.column * low, Y.column * high


def _checked(Y: Any) -> WeightedTargets:
    """The targets, if they have weights.

    Raises:
      InvalidTypeError: the targets are a plain array. The weights would be ignored silently.
    """
    if not isinstance(Y, WeightedTargets):
        raise wrong_type("Y", Y, "problem.targets, which holds the sample weights")
    return Y
