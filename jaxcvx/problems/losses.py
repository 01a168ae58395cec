"""Losses: value, gradient, convex conjugate, prox, and the dual points that certificates need.

Notation: predictions F and targets Y have shape (n, c); losses are sums over all entries or samples,
never means. The Fenchel dual of ``min_F loss(F) + beta * penalty`` is ``max_R -loss*(-R)`` subject to a
bound on R; at the optimum ``R = -grad loss(F)``, which for the squared loss is the residual Y - F. So R is
called the dual residual throughout.

Sources: the conjugates are standard (Boyd and Vandenberghe 2004, section 3.3); each is checked numerically
in the tests.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import InvalidTypeError, invalid

Matrix = Float[Array, "n c"]
Scalar = Float[Array, ""]


def entropy_term(t: Array) -> Array:
    """-t log t, continued by 0 at t = 0 and by -inf below."""
    safe = jnp.where(t > 0, t, 1.0)
    return jnp.where(t > 0, -safe * jnp.log(safe), jnp.where(t == 0, 0.0, -jnp.inf))


def rest_entropy(t: Array) -> Array:
    """-(1 - t) log(1 - t) for t in [0, 1], with all digits where t is small."""
    safe = jnp.where(t < 1, t, 0.0)
    return jnp.where(t < 1, -(1 - safe) * jnp.log1p(-safe), 0.0)


def _maximise_concave(
    function: Callable[[Array], Array], low: Scalar, high: Scalar, num_steps: int = 80
) -> Scalar:
    """Argmax of a concave function of one variable on [low, high], by golden sections; ends included."""
    ratio = (5**0.5 - 1) / 2

    def shrink(_, ends):
        a, b = ends
        x1, x2 = b - ratio * (b - a), a + ratio * (b - a)
        left = function(x1) > function(x2)
        return jnp.where(left, a, x1), jnp.where(left, x2, b)

    a, b = jax.lax.fori_loop(0, num_steps, shrink, (low, high))
    candidates = jnp.stack([low, high, (a + b) / 2])
    return candidates[jnp.argmax(jax.vmap(function)(candidates))]


class Loss(abc.ABC):
    """A convex loss, a sum over samples. Losses are hashable and static under jit.

    Attributes:
      name: the word that the public functions accept.
      curvature: bound on the second derivative of the loss in F (spectral norm per sample), or None.
      kind: what targets look like: "real", "sign" (+-1), or "label" (classes, stored one-hot).
    """

    name: str
    curvature: float | None
    kind: str = "real"

    @abc.abstractmethod
    def value(self, F: Matrix, Y: Matrix) -> Scalar:
        """Loss summed over samples."""

    @abc.abstractmethod
    def dual_terms(self, R: Matrix, Y: Matrix) -> tuple[Array, Array]:
        """Terms whose sum is ``-loss*(-R)``, each right to a few units of rounding, and whether R is in the domain.

        What is said of R holds for an R' whose entries differ from it by a few units of rounding: of their own size
        where R comes from ``grad`` or ``project_dual``.
        """

    def dual_value(self, R: Matrix, Y: Matrix) -> Scalar:
        """``-loss*(-R)``: the dual objective at the dual residual R, -inf outside the domain."""
        terms, inside = self.dual_terms(R, Y)
        return jnp.where(inside, jnp.sum(terms), -jnp.inf)

    @abc.abstractmethod
    def prox(self, F: Matrix, Y: Matrix, step: Scalar) -> Matrix:
        """``argmin_G loss(G) + ||G - F||^2 / (2 step)``."""

    @abc.abstractmethod
    def max_scaling(self, R: Matrix, Y: Matrix) -> Scalar:
        """Largest s such that s R stays in the domain of the dual objective."""

    def grad(self, F: Matrix, Y: Matrix) -> Matrix:
        """(Sub)gradient in F."""
        return jax.grad(self.value)(F, Y)

    def conjugate(self, G: Matrix, Y: Matrix) -> Scalar:
        """Convex conjugate ``loss*(G) = sup_F <G, F> - loss(F)``, +inf outside its domain."""
        return -self.dual_value(-G, Y)

    def dual_candidates(self, F: Matrix, Y: Matrix) -> Float[Array, "k n c"]:
        """Dual residuals worth trying for predictions F: minus the gradient, and more where not smooth."""
        return -self.grad(F, Y)[None]

    def project_dual(self, R: Matrix, Y: Matrix) -> Matrix:
        """A point of the dual objective's domain near R (R itself where the domain is everything)."""
        return R

    def center_dual(self, R: Matrix, Y: Matrix) -> Matrix:
        """A point near R whose columns sum to zero, as free biases ask for; a multiple of it lies in the domain."""
        return R - jnp.mean(R, axis=0)

    def dual_interval(self, Y: Matrix) -> tuple[Matrix, Matrix]:
        """Bounds low <= R <= high of the domain of a dual objective that is a sum over entries.

        Raises:
          InvalidInputError: the dual objective couples the entries.
        """
        raise invalid("loss", repr(self.name), "a loss that is a sum over entries")

    def best_scaling(self, R: Matrix, Y: Matrix, limit: Scalar) -> Scalar:
        """The s with |s| <= limit that maximises ``dual_value(s R)``."""
        return _maximise_concave(
            lambda s: self.dual_value(s * R, Y),
            jnp.zeros_like(limit),
            jnp.minimum(limit, self.max_scaling(R, Y)),
        )


@dataclasses.dataclass(frozen=True)
class Squared(Loss):
    """``1/2 ||F - Y||_F^2``."""

    name = "squared"
    curvature = 1.0

    def value(self, F, Y):
        return 0.5 * jnp.sum((F - Y) ** 2)

    def grad(self, F, Y):
        return F - Y

    def dual_terms(self, R, Y):
        return R * (Y - 0.5 * R), jnp.asarray(True)

    def prox(self, F, Y, step):
        return (F + step * Y) / (1 + step)

    def max_scaling(self, R, Y):
        return jnp.asarray(jnp.inf, R.dtype)

    def best_scaling(self, R, Y, limit):
        # Two-sided: for a bad network <R, Y> can be negative, and then a negative s is the feasible choice.
        size = jnp.sum(R**2)
        best = jnp.sum(R * Y) / jnp.where(size > 0, size, 1.0)
        return jnp.clip(best, -limit, limit)


@dataclasses.dataclass(frozen=True)
class Huber(Loss):
    """``e^2/2`` for |e| <= delta, else ``delta (|e| - delta/2)``, with e = F - Y, summed over entries."""

    delta: float = 1.0
    name = "huber"
    curvature = 1.0

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

    def dual_interval(self, Y):
        return jnp.full_like(Y, -self.delta), jnp.full_like(Y, self.delta)

    def best_scaling(self, R, Y, limit):
        return Squared().best_scaling(R, Y, jnp.minimum(limit, self.max_scaling(R, Y)))


@dataclasses.dataclass(frozen=True)
class Interpolation(Loss):
    """``penalty * sum |F - Y|``: the exact penalty of F = Y, so that the network of least weights interpolates.

    The dual variable lives in the box |R| <= penalty. Where the interpolation problem's own dual solution lies
    inside that box the two problems have the same solutions; otherwise some targets are missed, so raise it.
    """

    penalty: float = 1e6
    name = "interpolation"
    curvature = None

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
    """Losses of the margin m = y f with y = +-1; the dual variable is t = y r in [0, 1]."""

    kind = "sign"

    def max_scaling(self, R, Y):
        return 1.0 / jnp.maximum(jnp.max(Y * R), jnp.finfo(R.dtype).tiny)

    def project_dual(self, R, Y):
        return Y * jnp.clip(Y * R, 0.0, 1.0)

    def center_dual(self, R, Y):
        # The class with the larger total is scaled down: that keeps 0 <= y r <= 1.
        total = jnp.sum(jnp.where(Y > 0, R, 0.0), axis=0), -jnp.sum(jnp.where(Y > 0, 0.0, R), axis=0)
        least = jnp.minimum(*total)
        plus, minus = (least / jnp.where(t > 0, t, 1.0) for t in total)
        return R * jnp.where(Y > 0, plus, minus)

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


def balanced_rows(R: Matrix, Y: Matrix) -> Matrix:
    """R with the entries of the right classes such that rows sum to zero."""
    other = jnp.where(Y > 0, 0.0, R)
    return jnp.where(Y > 0, -jnp.sum(other, axis=1, keepdims=True), other)


def other_classes(R: Matrix, Y: Matrix) -> tuple[Matrix, Matrix, Array]:
    """-R at the other classes, its row sums (n, 1), and whether it is >= 0 and rows of R sum to 0, up to rounding."""
    eps = jnp.finfo(R.dtype).eps
    other = jnp.maximum(jnp.where(Y > 0, 0.0, -R), 0.0)
    missed = jnp.sum(other, axis=1, keepdims=True)
    balanced = jnp.abs(jnp.sum(R, axis=1)) <= 64 * eps * (1 + R.shape[1])
    return other, missed, jnp.all(balanced) & jnp.all((Y > 0) | (R <= 8 * eps))


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

    def dual_terms(self, R, Y):
        # The domain is "rows of Y - R are probabilities". Those of the other classes say what that of the right
        # one is: R there is their sum, with all its digits, which 1 - p does not have where p is nearly 1.
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
        return jnp.zeros_like(R)  # feasible; no closed form comes nearer

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


LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (Squared, Logistic, SoftmaxCrossEntropy, Huber, Hinge, Interpolation)
}


def resolve_loss(loss: str | Loss) -> Loss:
    """Turn the public ``loss`` argument (a name, or a Loss such as ``Huber(delta=0.5)``) into a Loss."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str):
        raise InvalidTypeError(f"loss: got {type(loss).__name__}, expected a name or a Loss object.")
    if loss not in LOSSES:
        raise invalid("loss", repr(loss), "one of " + ", ".join(map(repr, LOSSES)))
    return LOSSES[loss]()
