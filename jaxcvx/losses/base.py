"""The base class of losses: value, gradient, convex conjugate, prox, and the dual points that certificates need.

Notation: predictions F and targets Y have shape (n, c); losses are sums over all entries or samples,
never means. The Fenchel dual of ``min_F loss(F) + beta * penalty`` is ``max_R -loss*(-R)`` subject to a
bound on R. At the optimum ``R = -grad loss(F)``, which for the squared loss is the residual Y - F. So R is
called the dual residual everywhere in this library.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcvx.errors import invalid
from jaxcvx.numerics.safe import divisor

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


def _maximise_concave(function: Callable[[Array], Array], low: Scalar, high: Scalar, num_steps: int = 80) -> Scalar:
    """Argmax of a concave function of one variable on [low, high], by golden sections. Both ends are tried too."""
    ratio = (5**0.5 - 1) / 2

    def shrink(_, ends):
        a, b = ends
        x1, x2 = b - ratio * (b - a), a + ratio * (b - a)
        left = function(x1) > function(x2)
        return jnp.where(left, a, x1), jnp.where(left, x2, b)

    a, b = jax.lax.fori_loop(0, num_steps, shrink, (low, high))
    candidates = jnp.stack([low, high, (a + b) / 2])
    return candidates[jnp.argmax(jax.vmap(function)(candidates))]


def find_root(slope: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Roots of a nondecreasing function in every entry, by bisection.

    Args:
      slope: takes and returns an array; each entry of the result depends on the same entry of the argument only.
      low, high: ends of intervals. They are moved away from each other until the roots lie between them, as long as
        the slope is not zero.

    Returns:
      The roots, to the precision of the dtype relative to the intervals.
    """
    info = jnp.finfo(low.dtype)
    width = jnp.maximum(high - low, jnp.maximum(jnp.abs(low), jnp.abs(high)) * info.eps + info.tiny)

    def outside(carry):
        low, high, width = carry
        return jnp.any(((slope(low) > 0) | (slope(high) < 0)) & jnp.isfinite(2 * width))

    def wider(carry):
        low, high, width = carry
        return jnp.where(slope(low) > 0, low - width, low), jnp.where(slope(high) < 0, high + width, high), 2 * width

    def halve(_, ends):
        low, high = ends
        middle = low + 0.5 * (high - low)
        rising = slope(middle) > 0
        return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

    low, high, _ = jax.lax.while_loop(outside, wider, (low, high, width))
    low, high = jax.lax.fori_loop(0, info.nmant + 8, halve, (low, high))
    return low + 0.5 * (high - low)


def balanced_columns(R: Matrix) -> Matrix:
    """R with the positive or the negative entries of each column scaled down, so that the column sums to zero.

    Each entry stays between 0 and its old value. So a domain that is an interval around 0 for every entry is kept, and
    zeros stay.
    """
    plus, minus = jnp.sum(jnp.maximum(R, 0.0), axis=0), jnp.sum(jnp.maximum(-R, 0.0), axis=0)
    least = jnp.minimum(plus, minus)
    return R * jnp.where(R > 0, least / divisor(plus), least / divisor(minus))


class Loss(abc.ABC):
    """A convex loss, a sum over samples. Losses are hashable and static under jit.

    Attributes:
      name: the word that the public functions accept.
      curvature: bound on the second derivative of the loss in F (spectral norm per sample), or None.
      kind: what targets look like: "real", "sign" (+-1), or "label" (classes, stored one-hot).
      is_quadratic: True only for ``1/2 ||F - Y||^2``, whose programs have closed forms and linear systems.
      shift_invariant: True if the loss depends on F - Y only, so that the dual objective is ``<R, Y> + h(R)``.
    """

    name: str
    curvature: float | None
    kind: str = "real"
    is_quadratic: ClassVar[bool] = False
    shift_invariant: ClassVar[bool] = False

    @property
    def is_smooth(self) -> bool:
        """Whether the loss has a Lipschitz gradient in F."""
        return self.curvature is not None

    @property
    def unweighted(self) -> Loss:
        """The loss without sample weights: itself, except for :class:`jaxcvx.losses.weighted.Weighted`."""
        return self

    def curvature_bound(self, Y: Any) -> Any:
        """Bound on the second derivative in F, with sample weights; 1 for a loss that is not smooth."""
        return self.curvature or 1.0

    def diagonal_curvature(self, F: Matrix, Y: Any) -> Matrix:
        """A diagonal matrix that majorises the Hessian in F at F, as its entries (n, c). The loss must be smooth.

        This is the second derivative itself for losses that are sums over entries.
        """
        return jax.jvp(lambda G: self.grad(G, Y), (F,), (jnp.ones_like(F),))[1]

    def majorant(self, D: Matrix, Y: Any) -> Scalar:
        """Bound on the second derivative along a change D of the predictions. The loss must be smooth."""
        assert self.curvature is not None, "solvers refuse non-smooth losses by name"
        return self.curvature * jnp.sum(D**2)

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
        """A point near R whose columns sum to zero, as output biases ask for; a multiple of it lies in the domain.

        R lies in the domain. A point of the domain whose columns sum to zero stays as it is.
        """
        return R - jnp.mean(R, axis=0)

    def best_constant(self, F: Matrix, Y: Matrix) -> Float[Array, c]:
        """The number for each output that makes the loss least when it is added to the predictions F.

        The derivatives of the loss at the sum then add up to zero in each column, so minus the gradient is a dual
        residual for networks with an output bias. Where the least value is not attained (one class only), the number
        is so large that the derivatives are zero up to rounding. This method is for smooth losses that are sums over
        entries; it bisects the derivative. Losses that couple the entries must override it.
        """
        low, high = self.constant_bracket(F, Y)
        return find_root(lambda c: jnp.sum(self.grad(F + c, Y), axis=0), low, high)

    def constant_bracket(self, F: Matrix, Y: Any) -> tuple[Float[Array, c], Float[Array, c]]:
        """An interval for each output where ``best_constant`` begins its search."""
        if self.shift_invariant:
            return jnp.min(Y - F, axis=0), jnp.max(Y - F, axis=0)
        one = jnp.ones(F.shape[1], F.dtype)
        return -one, one

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
