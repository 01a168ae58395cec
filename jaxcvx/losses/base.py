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


class Loss(abc.ABC):
    """A convex loss, a sum over samples. Losses are hashable and static under jit.

    Attributes:
      name: the word that the public functions accept.
      curvature: bound on the second derivative of the loss in F (spectral norm per sample), or None.
      kind: what targets look like: "real", "sign" (+-1), or "label" (classes, stored one-hot).
      is_quadratic: True only for ``1/2 ||F - Y||^2``, whose programs have closed forms and linear systems.
    """

    name: str
    curvature: float | None
    kind: str = "real"
    is_quadratic: ClassVar[bool] = False

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
