"""The losses that are sums over entries, and the table of all losses by name.

Sources: the conjugates are standard (Boyd and Vandenberghe 2004, section 3.3); each is checked numerically
in the tests.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcvx.errors import InvalidTypeError, invalid
from jaxcvx.losses.base import Loss, balanced_columns, entropy_term, rest_entropy
from jaxcvx.losses.softmax import SoftmaxCrossEntropy
from jaxcvx.numerics.safe import divide


@dataclasses.dataclass(frozen=True)
class Squared(Loss):
    """``1/2 ||F - Y||_F^2``."""

    name = "squared"
    curvature = 1.0
    is_quadratic = True
    shift_invariant = True

    def value(self, F, Y):
        return 0.5 * jnp.sum((F - Y) ** 2)

    def grad(self, F, Y):
        return F - Y

    def dual_terms(self, R, Y):
        return R * (Y - 0.5 * R), jnp.asarray(True)

    def prox(self, F, Y, step):
        return (F + step * Y) / (1 + step)

    def best_constant(self, F, Y):
        return jnp.mean(Y - F, axis=0)

    def max_scaling(self, R, Y):
        return jnp.asarray(jnp.inf, R.dtype)

    def best_scaling(self, R, Y, limit):
        # Two-sided: for a bad network <R, Y> can be negative, and then a negative s is the feasible choice.
        return jnp.clip(divide(jnp.sum(R * Y), jnp.sum(R**2)), -limit, limit)


@dataclasses.dataclass(frozen=True)
class Huber(Loss):
    """``e^2/2`` for |e| <= delta, else ``delta (|e| - delta/2)``, with e = F - Y, summed over entries."""

    delta: float = 1.0
    name = "huber"
    curvature = 1.0
    shift_invariant = True

    def __post_init__(self):
        if not 0 < self.delta < float("inf"):
            raise invalid("delta", self.delta, "a positive finite number")

    def value(self, F, Y):
        e = jnp.abs(F - Y)
        inside = jnp.minimum(e, self.delta)
        return jnp.sum(inside * (e - 0.5 * inside))

    def grad(self, F, Y):
        return jnp.clip(F - Y, -self.delta, self.delta)

    def dual_terms(self, R, Y):
        inside = jnp.all(jnp.abs(R) <= self.delta * (1 + 4 * jnp.finfo(R.dtype).eps))
        return R * (Y - 0.5 * R), inside

    def prox(self, F, Y, step):
        e = F - Y
        return F - jnp.clip(step * e / (1 + step), -step * self.delta, step * self.delta)

    def max_scaling(self, R, Y):
        return self.delta / jnp.maximum(jnp.max(jnp.abs(R)), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        return jnp.clip(R, -self.delta, self.delta)

    def center_dual(self, R, Y):
        return balanced_columns(R)

    def dual_interval(self, Y):
        return jnp.full_like(Y, -self.delta), jnp.full_like(Y, self.delta)

    def best_scaling(self, R, Y, limit):
        return Squared().best_scaling(R, Y, jnp.minimum(limit, self.max_scaling(R, Y)))


@dataclasses.dataclass(frozen=True)
class Interpolation(Loss):
    """``penalty * sum |F - Y|``: an exact penalty for F = Y, for the interpolating network of least weights.

    Dual residuals satisfy |R| <= penalty. If a dual solution of the problem with the constraint F = Y satisfies this
    strictly, both problems have the same solutions. Otherwise some targets are missed, and a larger penalty is needed.
    """

    penalty: float = 1e6
    name = "interpolation"
    curvature = None
    shift_invariant = True

    def __post_init__(self):
        if not 0 < self.penalty < float("inf"):
            raise invalid("penalty", self.penalty, "a positive finite number")

    def value(self, F, Y):
        return self.penalty * jnp.sum(jnp.abs(F - Y))

    def grad(self, F, Y):
        return self.penalty * jnp.sign(F - Y)

    def dual_terms(self, R, Y):
        inside = jnp.all(jnp.abs(R) <= self.penalty * (1 + 4 * jnp.finfo(R.dtype).eps))
        return R * Y, inside

    def prox(self, F, Y, step):
        e = F - Y
        return F - jnp.clip(e, -step * self.penalty, step * self.penalty)

    def max_scaling(self, R, Y):
        return self.penalty / jnp.maximum(jnp.max(jnp.abs(R)), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        return jnp.clip(R, -self.penalty, self.penalty)

    def center_dual(self, R, Y):
        return balanced_columns(R)

    def dual_interval(self, Y):
        return jnp.full_like(Y, -self.penalty), jnp.full_like(Y, self.penalty)

    def dual_candidates(self, F, Y):
        # Where F = Y any |R| <= penalty is a subgradient: try steps softened by several widths.
        widths = jnp.max(jnp.abs(Y)) * jnp.asarray([1e-9, 1e-6, 1e-3, 1e-1, 1.0], F.dtype)[:, None, None]
        safe = jnp.maximum(widths, jnp.finfo(F.dtype).tiny)
        return self.penalty * jnp.clip((Y - F) / safe, -1.0, 1.0)

    def best_scaling(self, R, Y, limit):
        value = jnp.sum(R * Y)  # linear in s, and two-sided
        return jnp.where(value == 0, 0.0, jnp.sign(value) * jnp.minimum(limit, self.max_scaling(R, Y)))


class _SignLoss(Loss):
    """Losses of the margin m = y f with y = +-1. Their dual variable is t = y r in [0, 1]."""

    kind = "sign"

    def max_scaling(self, R, Y):
        return 1.0 / jnp.maximum(jnp.max(Y * R), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        return Y * jnp.clip(Y * R, 0.0, 1.0)

    def center_dual(self, R, Y):
        return balanced_columns(R)  # 0 <= y r <= 1 stays

    def dual_interval(self, Y):
        return jnp.minimum(Y, 0.0), jnp.maximum(Y, 0.0)

    def dual_terms(self, R, Y):
        t = Y * R
        slack = 4 * jnp.finfo(R.dtype).eps  # rounding of s * R must not turn a bound into -inf
        inside = jnp.all((t >= 0) & (t <= 1 + slack))
        return self._dual_term(jnp.clip(t, 0.0, 1.0)), inside

    @abc.abstractmethod
    def _dual_term(self, t: Array) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Logistic(_SignLoss):
    """``log(1 + exp(-y f))`` with y = +-1, summed over entries."""

    name = "logistic"
    curvature = 0.25

    def value(self, F, Y):
        return jnp.sum(jax.nn.softplus(-Y * F))

    def grad(self, F, Y):
        return -Y * jax.nn.sigmoid(-Y * F)

    def _dual_term(self, t):
        return entropy_term(t) + rest_entropy(t)

    def prox(self, F, Y, step):
        # In the margin m = y f the solution lies in [m0, m0 + step]: Newton, kept inside that bracket.
        start = Y * F

        def newton(_, carry):
            m, low, high = carry
            p = jax.nn.sigmoid(-m)
            slope = (m - start) / step - p
            low, high = jnp.where(slope < 0, m, low), jnp.where(slope < 0, high, m)
            m_next = m - slope / (1 / step + p * (1 - p))
            return jnp.where((m_next >= low) & (m_next <= high), m_next, 0.5 * (low + high)), low, high

        begin = (start + 0.5 * jnp.minimum(step, 1.0), start, start + step)
        return Y * jax.lax.fori_loop(0, 30, newton, jax.tree.map(lambda a: a + 0 * start, begin))[0]


@dataclasses.dataclass(frozen=True)
class Hinge(_SignLoss):
    """``max(0, 1 - y f)`` with y = +-1, summed over entries. Not smooth: its gradient is a subgradient."""

    name = "hinge"
    curvature = None

    def value(self, F, Y):
        return jnp.sum(jnp.maximum(0.0, 1 - Y * F))

    def grad(self, F, Y):
        return jnp.where(Y * F < 1, -Y, jnp.zeros_like(F))

    def _dual_term(self, t):
        return t

    def dual_candidates(self, F, Y):
        # At margin 1 any t in [0, 1] is a subgradient; try softened steps of several widths.
        widths = jnp.asarray([1e-6, 1e-3, 1e-2, 0.1, 0.5, 1.0], F.dtype)[:, None, None]
        return Y * jnp.clip(0.5 + (1 - Y * F) / widths, 0.0, 1.0)

    def prox(self, F, Y, step):
        return F + Y * jnp.clip(1 - Y * F, 0.0, step)

    def best_scaling(self, R, Y, limit):
        return jnp.minimum(limit, self.max_scaling(R, Y))  # the dual objective is linear in s


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (Squared, Logistic, SoftmaxCrossEntropy, Huber, Hinge, Interpolation)
}


def resolve_loss(loss: str | Loss) -> Loss:
    """Turn the public ``loss`` argument (a name, or a Loss such as ``Huber(delta=0.5)``) into a Loss."""
    if isinstance(loss, Loss):
        return loss.unweighted
    if not isinstance(loss, str):
        raise InvalidTypeError(f"loss: got {type(loss).__name__}, expected a name or a Loss object.")
    if loss not in LOSSES:
        raise invalid("loss", repr(loss), "one of " + ", ".join(map(repr, LOSSES)))
    return LOSSES[loss]()
